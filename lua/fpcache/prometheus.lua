--- What a cache can tell about itself, as the text that Prometheus scrapes (exposition format 0.0.4).
local exposition = require("fpcache.exposition")
local METRICS = require("fpcache.metrics")
local options = require("fpcache.options")
local Cache = require("fpcache.client")

-- The layers that have a state, one series for each state.
local LAYERS = { "near", "filter", "feed" }
local STATES = { "off", "loading", "fresh", "stale" }

local function check_labels(labels)
  for name, value in pairs(labels) do
    if type(name) ~= "string" or not name:find("^[%a_][%w_]*$") or name:find("^__") then
      return "a label's name has letters, digits and _"
    end
    if type(value) ~= "string" and type(value) ~= "number" then return "a label's value is a string" end
  end
end

local OPTIONS = { labels = { type = "table", check = check_labels } } -- more labels, such as { service = "shop" }

--- The text that Prometheus scrapes: every number of stats(), labelled with schema and namespace.
--
-- `fpcache_up` is 0 when the server did not answer; the numbers of this process are there all the same.
---@param opts table? { labels = { name = value } }
---@return string? text content type "text/plain; version=0.0.4"
---@return string? err only of a closed cache
function Cache:prometheus(opts)
  local read = options.read(OPTIONS, opts, 2)
  local stats, err = self:stats()
  if not stats then return nil, err end
  local labels = { schema = self.schema, namespace = self.space }
  for name, value in pairs(read.labels or {}) do labels[name] = value end
  local add, text, lines = exposition.add, exposition.labels(labels), {}
  add(lines, "up", "gauge", "Whether the server answered.", { { text, stats.server and 1 or 0 } })
  for _, metric in ipairs(METRICS) do
    local name, kind, help, layer, field = metric[1], metric[2], metric[3], metric[4], metric[5]
    local from = stats
    if layer then from = stats[layer] or {} end
    local value = tonumber(from[field])
    if value then add(lines, name, kind, help, { { text, value } }) end
  end
  local series = {}
  for _, layer in ipairs(LAYERS) do
    for _, state in ipairs(STATES) do
      local own = ('%s,layer="%s",state="%s"'):format(text, layer, state)
      series[#series + 1] = { own, stats[layer].state == state and 1 or 0 }
    end
  end
  add(lines, "layer_state", "gauge", "1 for the state that a layer is in.", series)
  return table.concat(lines, "\n") .. "\n"
end

return Cache

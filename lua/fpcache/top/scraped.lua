--- What caches tell by HTTP: the status page of nginx, text for Prometheus, or JSON as the option `publish` writes it.
local codec = require("fpcache.codec")
local core = require("fpcache.core")
local METRICS = require("fpcache.metrics")

local system = core.system
local TIMEOUT_S = 3
local MAX_BYTES = 16 * 1024 * 1024

local scraped = {}

---@param name string
---@return boolean
function scraped.is_url(name) return name:find("^[hH][tT][tT][pP][sS]?://") ~= nil end

--- A URL's host and path, without what may be secret.
local function shown(url) return (url:gsub("^%a+://", ""):gsub("^[^/]*@", ""):gsub("[?#].*$", "")) end

-- --- JSON ---

--- The caches of nginx's workers, as its status page tells them.
local function of_workers(page, url, list)
  for _, worker in ipairs(page.workers) do
    for name, stats in pairs(type(worker) == "table" and type(worker.caches) == "table" and worker.caches or {}) do
      if type(stats) == "table" and type(worker.time) == "number" then
        list[#list + 1] = { kind = "fpcache-process", pid = worker.pid, host = shown(url):match("^[^/]*"), at = worker.time,
          namespace = name, stats = stats, id = ("%s %s %s"):format(url, tostring(worker.pid), name) }
      end
    end
  end
end

local function of_json(text, url, list)
  local page = codec.json.decode(text)
  if type(page) ~= "table" then return nil, "is no JSON" end
  if type(page.workers) == "table" then
    of_workers(page, url, list)
    return true
  end
  local count = #list
  for i, one in ipairs(page.kind and { page } or page) do
    if type(one) == "table" and one.kind == "fpcache-process" and type(one.at) == "number" and type(one.stats) == "table" then
      one.id = ("%s %d %s"):format(url, i, tostring(one.pid))
      list[#list + 1] = one
    end
  end
  if #list == count then return nil, "is JSON of something else" end
  return true
end

-- --- Prometheus ---

local FIELDS = {}
for _, metric in ipairs(METRICS) do FIELDS[metric[1]] = { metric[4], metric[5] } end

local function read_labels(text)
  local labels = {}
  for name, value in text:gmatch('([%a_][%w_]*)="(.-[^\\]?)"[,}]') do
    labels[name] = value:gsub("\\(.)", function(char) return char == "n" and "\n" or char end)
  end
  return labels
end

local function put(one, layer, field, value)
  local into = one.stats
  if layer then
    into[layer] = into[layer] or {}
    into = into[layer]
  end
  into[field] = value
end

--- One process for each set of labels.
local function of_text(text, url, list)
  local known, now = {}, system.wall()
  for name, labels, value in text:gmatch("fpcache_([%w_]+)({[^\n]*}) ([^\n]+)") do
    local field, number = FIELDS[name], tonumber(value:match("^%S+"))
    if number and (field or name == "layer_state") then
      local told = read_labels(labels)
      local id = ("%s %s %s %s %s"):format(url, told.worker or "", told.cache or "", told.schema or "", told.namespace or "")
      local one = known[id]
      if not one then
        one = { kind = "fpcache-process", id = id, at = now, host = shown(url):match("^[^/]*"),
          pid = told.worker and "worker " .. told.worker or told.pid or "?", stats = {},
          namespace = told.cache or told.namespace, schema = told.schema }
        known[id], list[#list + 1] = one, one
      end
      if field then
        put(one, field[1], field[2], number)
      elseif number == 1 and told.layer and told.state then
        put(one, told.layer, "state", told.state)
      end
    end
  end
  if not next(known) then return nil, "tells nothing of fpcache" end
  return true
end

-- --- asking ---

local function read(one, url, list)
  local text = one.body
  if text:find("^%s*[{%[]") then return of_json(text, url, list) end
  return of_text(text, url, list)
end

--- Fetches some URLs at once.
---@return table<integer, table> answers by the URL's place
---@return string? err
local function fetch(urls)
  local downloads, err = core.downloads { parallel = 16, tries = 1, timeout = TIMEOUT_S, stall = TIMEOUT_S, first_pause = 0.1,
    longest_pause = 0.1, max_bytes = MAX_BYTES, headers = { "Accept: application/json, text/plain" } }
  if not downloads then return {}, err end
  local places, answers = {}, {}
  for i, url in pairs(urls) do
    local id
    id, err = downloads:add(url)
    if id then places[id] = i else answers[i] = { error = err } end
  end
  while downloads:left() > 0 do
    local one = downloads:wait(TIMEOUT_S + 1)
    if not one then break end
    answers[places[one.id]] = one
  end
  downloads:close()
  return answers
end

--- All that these URLs tell.
---@param urls string[]
---@return table[] processes as published.read() gives them
---@return string? err of the first that told nothing
function scraped.read(urls)
  local list, first_err, again = {}, nil, {}
  local answers, now = fetch(urls), system.wall()
  for i, one in pairs(answers) do -- the page for people says where its numbers are
    if one.body and one.type:find("text/html", 1, true) then
      again[i] = urls[i] .. (urls[i]:find("?", 1, true) and "&" or "?") .. "format=json"
    end
  end
  if next(again) then
    for i, one in pairs(fetch(again)) do answers[i] = one end
  end
  for i, url in ipairs(urls) do
    local one = answers[i] or { error = "timeout: no answer" }
    local ok, err = one.body ~= nil, one.error
    if ok then
      ok, err = read(one, url, list)
      err = err and ("invalid: %s %s"):format(shown(url), err)
    end
    if not ok then first_err = first_err or err end
  end
  for _, one in ipairs(list) do one.age = math.max(now - one.at, 0) end
  return list, first_err
end

return scraped

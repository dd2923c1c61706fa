--- What the statements of a replay cost on a real server: the median time of each kind, one after the other on one connection.
local core = require("fpcache.core")
local fpcache = require("fpcache")

local now = core.system.now
local CALLS = 500 -- of each kind

local server_cost = {}

local function median(times)
  table.sort(times)
  return times[math.floor((#times + 1) / 2)]
end

--- Seconds for each row of a walk.
local function row_cost(cache)
  local times = {}
  for i = 1, 5 do
    local began, scan = now(), cache:scan { page = CALLS }
    if not (scan and scan:next()) then return 0 end
    times[i] = (now() - began) / CALLS
  end
  return median(times)
end

--- Measures in a namespace of its own, which is empty afterwards.
---@param opts table connection options of fpcache.new
---@param value_bytes integer of a typical value
---@return table? seconds { hit, miss, set, delete, row (of a walk) }
---@return string? err
function server_cost.measure(opts, value_bytes)
  local o = {}
  for name, value in pairs(opts) do o[name] = value end
  o.feed, o.namespace = false, ("fpcache-replay-%d"):format(core.system.pid())
  local cache, err = fpcache.new(o)
  if not cache then return nil, err end
  local half = core.system.random(math.min(math.ceil(value_bytes / 2), 65536)) or ("x"):rep(100)
  local value = half:rep(math.max(math.ceil(value_bytes / #half), 1)):sub(1, math.max(value_bytes, 1))
  local seconds = {}
  for _, kind in ipairs { { "set", function(key) return cache:set(key, value) end },
    { "hit", function(key) return cache:get(key) end }, { "delete", function(key) return cache:delete(key) end },
    { "miss", function(key) return select(2, cache:get(key)) == nil end } } do
    local times = {}
    if kind[1] == "delete" then seconds.row = row_cost(cache) end
    for i = 1, CALLS do
      local began = now()
      local ok, reason = kind[2](("key:%d"):format(i))
      times[i] = now() - began
      if not ok then
        cache:clear()
        cache:close()
        return nil, reason or "conflict: somebody else changed the keys that were measured with"
      end
    end
    seconds[kind[1]] = median(times)
  end
  cache:clear()
  cache:close()
  return seconds
end

--- Adds to each setting of a report what it costs that server.
---@param report table of replay.run
---@param seconds table of server_cost.measure
function server_cost.apply(report, seconds)
  report.server = seconds
  for _, one in ipairs(report.settings) do
    one.server_seconds = (one.server_hits + one.stale) * seconds.hit + one.server_misses * seconds.miss
      + one.writes * seconds.set + one.deletes * seconds.delete + (one.scans + one.clears) * seconds.miss
      + one.scan_rows * seconds.row
    one.server_busy = report.seconds > 0 and one.server_seconds / report.seconds or nil -- statements under way, on average
  end
end

return server_cost

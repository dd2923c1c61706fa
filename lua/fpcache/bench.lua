--- Measures a cache on a user's own server: latency percentiles and throughput of each kind of call.
--
-- It works in a namespace of its own, which is empty afterwards.  Calls that take less than a microsecond or so are timed many at
-- once, or the clock would be most of what is seen.
local core = require("fpcache.core")
local fpcache = require("fpcache")
local options = require("fpcache.options")

local now = core.system.now
local bench = {}

local STEP_S = 0.1           -- of the timeline
local MAX_SAMPLES = 200000   -- of one kind; beyond, every so many is kept
local NEAR_GROUP = 100       -- calls timed at once
local AT_ONCE = 64

bench.OPTIONS = {
  connection = { type = "table" },                                                        -- options of fpcache.new
  seconds = { type = "number", default = 2, check = options.positive },                   -- for each kind
  value_bytes = { type = "integer", default = 100, check = options.between(1, 16 * 1024 * 1024, " bytes") },
  keys = { type = "integer", default = 1000, check = options.between(200, 1000000, " keys") },
  on_progress = { type = "function" },                                                    -- (title)
}

local function keys_of(prefix, count)
  local keys = {}
  for i = 1, count do keys[i] = ("%s:%07d"):format(prefix, i) end
  return keys
end

-- name, title, what it is, and a function(cache, data) -> function(i) -> ok, err
local KINDS = {
  { name = "ping", title = "round trip", is_remote = true, make = function(cache) return function() return cache:ping() end end },
  { name = "get", title = "get, server", is_remote = true, is_tile = true, make = function(cache, data)
    local asking = { near = false }
    return function(i)
      local value, err = cache:get(data.keys[i % #data.keys + 1], asking)
      return value ~= nil, err
    end
  end },
  { name = "miss", title = "get, server has none", is_remote = true, make = function(cache, data)
    local asking = { near = false }
    return function(i)
      local value, err = cache:get(data.absent[i % #data.absent + 1], asking)
      return value == nil and not err, err
    end
  end },
  { name = "set", title = "set", is_remote = true, is_tile = true, make = function(cache, data)
    return function(i) return cache:set(data.keys[i % #data.keys + 1], data.value, 600) end
  end },
  { name = "get_many", title = "get_many of 100", is_remote = true, is_bulk = true, make = function(cache, data)
    local slice, asking = {}, { near = false }
    for i = 1, 100 do slice[i] = data.keys[i] end
    return function() return cache:get_many(slice, asking) end
  end },
  { name = "set_many", title = "set_many of 100", is_remote = true, is_bulk = true, make = function(cache, data)
    local items = {}
    for i = 1, 100 do items[data.keys[i]] = data.value end
    return function() return cache:set_many(items, 600) end
  end },
  { name = "near", title = "get, near cache", group = NEAR_GROUP, is_tile = true, make = function(cache, data)
    local count = math.min(#data.keys, 1000)
    for i = 1, count do cache:get(data.keys[i]) end
    return function(i)
      local value, err = cache:get(data.keys[i % count + 1])
      return value ~= nil, err
    end
  end },
  { name = "absent", title = "get, filter says absent", group = NEAR_GROUP, is_tile = true, make = function(cache, data)
    return function(i)
      local _, err = cache:get(data.absent[i % #data.absent + 1])
      return not err, err
    end
  end },
}

local function percentile(sorted, share)
  return sorted[math.max(math.ceil(share * #sorted), 1)]
end

--- What was sampled as percentiles; sorts.
local function latency_of(samples)
  table.sort(samples)
  return { p50 = percentile(samples, 0.5), p95 = percentile(samples, 0.95), p99 = percentile(samples, 0.99),
    p999 = percentile(samples, 0.999), max = samples[#samples] }
end

---@class fpcache.bench.Meter
local Meter = {}
Meter.__index = Meter

local function new_meter(seconds)
  return setmetatable({ began = now(), ends = now() + seconds, samples = {}, timeline = setmetatable({}, core.array_mt),
    calls = 0, every = 1, left = 1 }, Meter)
end

--- Notes `count` calls that ended now and took `seconds` each.
function Meter:add(time, seconds, count)
  self.calls = self.calls + count
  local slot = math.floor((time - self.began) / STEP_S) + 1
  for missing = #self.timeline + 1, slot do self.timeline[missing] = 0 end
  self.timeline[slot] = self.timeline[slot] + count
  self.left = self.left - 1
  if self.left > 0 then return end
  local samples = self.samples
  samples[#samples + 1] = seconds
  if #samples >= MAX_SAMPLES then -- half of them, evenly, and from here on half as often
    for i = 1, #samples / 2 do samples[i] = samples[2 * i] end
    for i = #samples, MAX_SAMPLES / 2 + 1, -1 do samples[i] = nil end
    self.every = 2 * self.every
  end
  self.left = self.every
end

function Meter:result(kind)
  local took = now() - self.began
  self.timeline[#self.timeline] = nil -- the last step is not a whole one
  return { name = kind.name, title = kind.title, is_remote = kind.is_remote or false, is_bulk = kind.is_bulk or false,
    is_tile = kind.is_tile or false, calls = self.calls, per_second = self.calls / took, latency = latency_of(self.samples),
    timeline = self.timeline, step = STEP_S }
end

--- One kind, one call after the other.
local function measure(cache, data, kind, seconds)
  local call, group = kind.make(cache, data), kind.group or 1
  local meter, i = new_meter(seconds), 0
  repeat
    local began = now()
    for _ = 1, group do
      i = i + 1
      local ok, err = call(i)
      if not ok then return nil, err or ("conflict: somebody else changed the keys of the bench (%s)"):format(kind.title) end
    end
    local ended = now()
    meter:add(ended, (ended - began) / group, group)
    if core.interrupted() then return nil, "interrupted: the bench was stopped" end
  until ended >= meter.ends
  return meter:result(kind)
end

--- Gets of many tasks at once, through the pipeline.
local function measure_at_once(cache, data, seconds)
  local meter, asking, failure = new_meter(seconds), { near = false }, nil
  local i = 0
  local ok, err = fpcache.parallel {
    jobs = AT_ONCE, each = function() return not failure and now() < meter.ends and not core.interrupted() or nil end,
    run = function()
      for _ = 1, 20 do
        i = i + 1
        local began = now()
        local value, reason = cache:get(data.keys[i % #data.keys + 1], asking)
        local ended = now()
        if value == nil then
          failure = reason or "conflict: somebody else deleted the keys of the bench"
          return
        end
        meter:add(ended, ended - began, 1)
      end
    end,
  }
  if not ok or failure then return nil, failure or err end
  return meter:result { name = "parallel", title = "get, 64 at once", is_remote = true, is_tile = true }
end

local function run_all(cache, o, kinds)
  local data = { keys = keys_of("key", o.keys), absent = keys_of("absent", o.keys) }
  local bytes = core.system.random(math.min(o.value_bytes, 65536))
  if not bytes then return nil, "memory: no random bytes for the values" end
  data.value = bytes:rep(math.ceil(o.value_bytes / #bytes)):sub(1, o.value_bytes)
  local items = {}
  for _, key in ipairs(data.keys) do items[key] = data.value end
  local ok, err = cache:set_many(items, 600)
  if ok then ok, err = cache:wait_ready(30) end
  if not ok then return nil, err end
  for _, kind in ipairs(KINDS) do
    if o.on_progress then o.on_progress(kind.title) end
    kinds[#kinds + 1], err = measure(cache, data, kind, o.seconds)
    if err then return nil, err end
  end
  if o.on_progress then o.on_progress("get, 64 at once") end
  kinds[#kinds + 1], err = measure_at_once(cache, data, o.seconds)
  if err then return nil, err end
  return true
end

--- Runs all of it.
---@param opts table { connection, seconds, value_bytes, keys, on_progress }
---@return table? result { kind, at, server, keys, value_bytes, seconds, kinds = list }
---@return string? err
function bench.run(opts)
  local o = options.read(bench.OPTIONS, opts, 2)
  local settings = {}
  for name, value in pairs(o.connection or {}) do settings[name] = value end
  settings.namespace = ("fpcache-bench-%d"):format(core.system.pid())
  settings.near_size = math.max(o.keys, 1000)
  local cache, err = fpcache.new(settings)
  if not cache then return nil, err end
  local kinds = {}
  local found, version = cache:transaction(function(tx)
    local rows, reason = tx:query("SELECT current_setting('server_version') AS version")
    return rows, rows and rows[1].version or reason
  end)
  local called, ok, reason = pcall(run_all, cache, o, kinds)
  cache:clear()
  cache:close()
  if not called then error(ok, 0) end
  if not ok then return nil, reason end
  return { kind = "fpcache-bench", at = core.system.wall(), server = found and "PostgreSQL " .. version or nil, keys = o.keys,
    value_bytes = o.value_bytes, seconds = o.seconds, kinds = kinds }
end

return bench

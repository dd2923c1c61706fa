-- worker.lua -- one process of the torture: random calls on a cache, each with its times and its outcome in a log.
--
-- Arguments: URL, log file, seed, name, seconds to run, max_staleness.
-- A line of the log: what key value start end outcome
--   what     get set delete clear
--   value    unique to each write; "-" is none; a write adds ":ttl"
--   outcome  ok; no (nothing was done); maybe (nobody knows); rolled_back
local url, log_name, seed, name, seconds, staleness = ...
local announce = require "fpcache.announce"
local core = require "fpcache.core"
local fpcache = require "fpcache"

local now, random = core.system.now, math.random
local FEW, MANY = 12, 3000
math.randomseed(tonumber(seed))
local log = assert(io.open(log_name, "w"))
local cache = assert(fpcache.new {
  connection_string = url, timeout = 2, bulk_timeout = 4, connect_timeout = 2, maxconn = 2,
  max_staleness = tonumber(staleness), feed_interval = 0.05, near_size = 500, near_negative_size = 100,
  near_ttl = 5, cuckoo_capacity = 1000,
})

local count = 0
local function new_value()
  count = count + 1
  return name .. "." .. count
end

local function some_key()
  if random() < 0.6 then return "few" .. random(FEW) end
  return "many" .. random(MANY)
end

local function some_ttl()
  return random() < 0.2 and random(5, 150) / 100 or nil
end

local function note(what, key, value, start, stop, outcome)
  log:write(("%s %s %s %.9f %.9f %s\n"):format(what, key, value or "-", start, stop, outcome))
end

--- The outcome of a write that answered `result, err`.
local function outcome_of(result, err)
  if result then return "ok" end
  if result == false then return "no" end
  return announce.is_surely_undone(err) and "no" or "maybe"
end

local function get()
  local key, start = some_key(), now()
  local value, err, source = cache:get(key)
  if not err then note("get", key, value, start, now(), source) end
  return err
end

local function get_many()
  local keys, seen = {}, {}
  for i = 1, 20 do
    local key = some_key()
    if not seen[key] then keys[#keys + 1] = key end
    seen[key] = i
  end
  local start = now()
  local values, err = cache:get_many(keys)
  local stop = now()
  if not values then return err end
  for _, key in ipairs(keys) do note("get", key, values[key], start, stop, "many") end
end

local function exists()
  local key, start = some_key(), now()
  local found, err = cache:exists(key)
  if found == false then note("get", key, nil, start, now(), "exists") end
  return err
end

local function set()
  local key, value, ttl, start = some_key(), new_value(), some_ttl(), now()
  local ok, err = cache:set(key, value, ttl)
  note("set", key, value .. ":" .. (ttl or "-"), start, now(), outcome_of(ok, err))
  return err
end

local function delete()
  local key, start = some_key(), now()
  local ok, err
  if random() < 0.5 then
    ok, err = cache:delete(key)
  else
    ok, err = cache:delete_many { key }
    if ok then ok = ok > 0 end
  end
  note("delete", key, nil, start, now(), outcome_of(ok, err))
  return err
end

local function set_many()
  local items = {}
  for _ = 1, random(2, 30) do items[some_key()] = new_value() end
  local start = now()
  local ok, err = cache:set_many(items, { batch = random(5, 40) })
  local stop = now()
  for key, value in pairs(items) do note("set", key, value .. ":-", start, stop, outcome_of(ok, err)) end
  return err
end

local function transaction()
  local done, keeps, start = {}, random() < 0.5, now()
  local ok, err = cache:transaction(function(tx)
    for _ = 1, random(1, 5) do
      local key, value = some_key(), new_value()
      done[#done + 1] = { key, value }
      local stored, problem = tx:set(key, value)
      if not stored then return nil, problem end
    end
    if not keeps then return nil, "rolled back" end
    return true
  end)
  local outcome, last = err == "rolled back" and "rolled_back" or outcome_of(ok, err), {}
  -- Of a key that came twice the first value is never seen by others.
  for _, pair in ipairs(done) do last[pair[1]] = pair[2] end
  local stop = now()
  for _, pair in ipairs(done) do
    local is_last = last[pair[1]] == pair[2]
    note("set", pair[1], pair[2] .. ":-", start, stop, is_last and outcome or "rolled_back")
  end
  return err ~= "rolled back" and err or nil
end

local function clear()
  local start = now()
  local ok, err = cache:clear()
  note("clear", "-", nil, start, now(), outcome_of(ok, err))
  return err
end

local function cleanup() return select(2, cache:cleanup()) end

local CALLS = {
  { 60, get }, { 8, get_many }, { 4, exists }, { 12, set }, { 6, delete }, { 3, set_many }, { 4, transaction },
  { 0.3, cleanup }, { 0.05, clear },
}
local total = 0
for _, call in ipairs(CALLS) do total = total + call[1] end

local function some_call()
  local point = random() * total
  for _, call in ipairs(CALLS) do
    point = point - call[1]
    if point < 0 then return call[2] end
  end
  return get
end

local ends = now() + tonumber(seconds)
while now() < ends do
  if some_call()() then core.system.sleep(0.005) end -- an error: the server is away
end
local stats = cache:stats()
log:write(("stats %d %d %d %d\n"):format(stats.near.hits or 0, stats.filter.absent or 0, stats.feed.incarnation_changes or 0,
  stats.near.invalidated or 0))
log:close()
cache:close()

-- worker.lua -- one process of the torture: random calls on two caches, each with its times and its outcome in a log.
--
-- Arguments: URL, log file, seed, name, seconds to run, max_staleness.
-- A line of the log: what key value start end outcome
--   what     get set delete clear; sql_set and sql_delete by SQL of the caller's own, which counts as another's change;
--            lie: a transaction that did not see what it had written
--   value    unique to each write; "-" is none; a write adds ":ttl"
--   outcome  ok; no (nothing was done); maybe (nobody knows); rolled_back
local url, log_name, seed, name, seconds, staleness = ...
local announce = require "fpcache.announce"
local core = require "fpcache.core"
local fpcache = require "fpcache"

local now, random = core.system.now, math.random
local FEW, SOME, MANY = 12, 150, 3000
math.randomseed(tonumber(seed))
local log = assert(io.open(log_name, "w"))

local overtake -- below

--- One answer in fifty is overtaken: before it arrives somebody changes the key, and all readers are told.
local function slowly(pool)
  local function late(stored, ...)
    if random() < 0.02 then overtake(stored) end
    return ...
  end
  local slow = {
    value = function(_, statement, timeout, codec, parse_json, space, stored)
      return late(stored, pool:value(statement, timeout, codec, parse_json, space, stored))
    end,
    map = function(_, statement, timeout, codec, parse_json, space, stored)
      return late(stored[1], pool:map(statement, timeout, codec, parse_json, space, stored))
    end,
  }
  return setmetatable(slow, { __index = function(_, method)
    return function(_, ...) return pool[method](pool, ...) end
  end })
end

local function open(near_size, near_ttl)
  local cache = assert(fpcache.new {
    connection_string = url, timeout = 2, bulk_timeout = 4, connect_timeout = 2, maxconn = 2,
    max_staleness = tonumber(staleness), feed_interval = 0.05, near_size = near_size, near_negative_size = near_size,
    near_ttl = near_ttl, cuckoo_capacity = 1000,
  })
  cache.db = slowly(cache.db)
  return cache
end

local cache = open(500, 5) -- which evicts
local other = open(10000, 60) -- which keeps what is wrong; what one writes the other sees at once: they are of one process

--- Either of them, for what only reads.
local function any() return random() < 0.5 and cache or other end

local count = 0
local function new_value()
  count = count + 1
  return name .. "." .. count
end

local function key_of(few, some)
  local point = random()
  if point < few then return "few" .. random(FEW) end
  if point < few + some then return "some" .. random(SOME) end
  return "many" .. random(MANY)
end

local function read_key() return key_of(0.4, 0.3) end

--- Some are read far more often than they are written: what is wrong about them shows, as nobody overwrites it.
local function written_key() return key_of(0.5, 0.05) end

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
  local key, start = read_key(), now()
  local value, err, source = any():get(key)
  if not err then note("get", key, value, start, now(), source) end
  return err
end

local function get_many()
  local keys, seen = {}, {}
  for i = 1, 20 do
    local key = read_key()
    if not seen[key] then keys[#keys + 1] = key end
    seen[key] = i
  end
  local start = now()
  local values, err = any():get_many(keys)
  local stop = now()
  if not values then return err end
  for _, key in ipairs(keys) do note("get", key, values[key], start, stop, "many") end
end

local function exists()
  local key, start = read_key(), now()
  local found, err = any():exists(key)
  if found == false then note("get", key, nil, start, now(), "exists") end
  return err
end

local function set()
  local key, value, ttl, start = written_key(), new_value(), some_ttl(), now()
  local ok, err = cache:set(key, value, ttl)
  note("set", key, value .. ":" .. (ttl or "-"), start, now(), outcome_of(ok, err))
  return err
end

local function delete()
  local key, start = written_key(), now()
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
  for _ = 1, random(2, 30) do items[written_key()] = new_value() end
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
      local key, value = written_key(), new_value()
      done[#done + 1] = { key, value }
      local stored, problem = tx:set(key, value)
      if not stored then return nil, problem end
      if random() < 0.3 then
        local seen, trouble = tx:get(key)
        if trouble then return nil, trouble end
        if seen ~= value then note("lie", key, seen, now(), now(), "tx") end
      end
      if random() < 0.3 then -- outside of it nothing has changed yet
        local from, began = any(), now()
        local outside, trouble, source = from:get(key)
        if not trouble then note("get", key, outside, began, now(), source) end
      end
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

--- As a client that is not ours: the triggers tell.
local function change_by_sql(key, is_set)
  local value, start = new_value(), now()
  local ok, err = cache:transaction(function(tx)
    if is_set then return tx:query("SELECT cache_set(session_user::text, $1, $2, NULL)", key, value) end
    return tx:query("DELETE FROM cache WHERE key = convert_to($1, 'UTF8')", key)
  end)
  if is_set then
    note("sql_set", key, value .. ":-", start, now(), outcome_of(ok, err))
  else
    if ok == 0 then ok = false end
    note("sql_delete", key, nil, start, now(), outcome_of(ok, err))
  end
  return err
end

local function sql() return change_by_sql(written_key(), random() < 0.7) end

function overtake(key)
  if random() < 0.7 then change_by_sql(key, random() < 0.7) end
  core.system.sleep(random(60, 150) / 1000)
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
  { 2, sql }, { 0.3, cleanup },
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

-- Seldom, as it makes everybody forget everything, what is wrong included.
local function next_clear() return now() + random(60, 200) / 10 end

local ends, clears_at = now() + tonumber(seconds), next_clear()
while now() < ends do
  local call = some_call()
  if now() > clears_at then call, clears_at = clear, next_clear() end
  if call() then core.system.sleep(0.005) end -- an error: the server is away
end
local one, two = cache:stats(), other:stats()
log:write(("stats %d %d %d %d\n"):format(one.near.hits + two.near.hits, (one.filter.absent or 0) + (two.filter.absent or 0),
  one.feed.incarnation_changes or 0, one.near.invalidated + two.near.invalidated))
log:close()
cache:close()
other:close()

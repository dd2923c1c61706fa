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
local FEW, SOME, STILL, MANY = 12, 150, 60, 3000
math.randomseed(tonumber(seed))
local log = assert(io.open(log_name, "w"))

local overtake -- below
local in_transaction = false

--- Whether the key is one that is changed now and then only, and deleted as often as set.
local function is_still(key) return key:find("^still") ~= nil end

--- Some answers are overtaken: before they arrive somebody changes the key, and all readers are told.  One in fifty; and most
-- of those that a still key is not there, as the filter lets few of such questions pass.
local function slowly(pool, cache)
  local function late(share, key, is_absent, ...)
    if random() < (is_absent and is_still(key) and share or 0.02) then overtake(cache, key, is_absent) end
    return ...
  end
  --- The key of an answer to many that is most worth overtaking.
  local function late_one(keys, found, ...)
    local key = keys[1]
    for _, other in ipairs(keys) do
      if found and is_still(other) and found[other] == nil then key = other end
    end
    return late(0.3, key, found and found[key] == nil, found, ...)
  end
  local slow = {
    value = function(_, statement, timeout, codec, parse_json, space, stored)
      local function keep(found, ...) return late(0.8, stored, found == false, found, ...) end
      return keep(pool:value(statement, timeout, codec, parse_json, space, stored))
    end,
    map = function(_, statement, timeout, codec, parse_json, space, stored)
      return late_one(stored, pool:map(statement, timeout, codec, parse_json, space, stored))
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
  cache.db = slowly(cache.db, cache)
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

local function key_of(few, some, still)
  local point = random()
  if point < few then return "few" .. random(FEW) end
  if point < few + some then return "some" .. random(SOME) end
  if point < few + some + still then return "still" .. random(STILL) end
  return "many" .. random(MANY)
end

local function read_key() return key_of(0.35, 0.25, 0.2) end

--- Some are read far more often than they are written: what is wrong about them shows, as nobody overwrites it.
local function written_key() return key_of(0.5, 0.05, 0) end

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

local function get(from, at_key)
  local key, start = at_key or read_key(), now()
  local value, err, source = (from or any()):get(key)
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

local function set(at_key)
  local key, value, ttl, start = at_key or written_key(), new_value(), not at_key and some_ttl() or nil, now()
  local ok, err = cache:set(key, value, ttl)
  note("set", key, value .. ":" .. (ttl or "-"), start, now(), outcome_of(ok, err))
  return err
end

local function delete(at_key)
  local key, start = at_key or written_key(), now()
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
        in_transaction = true
        local outside, trouble, source = from:get(key)
        in_transaction = false
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

local suspects = {} -- what was overtaken: to be looked at again as soon as the old answer must not be given any more

function overtake(from, key, is_absent)
  if in_transaction then return end -- the change would wait for us
  if is_absent or random() < 0.7 then change_by_sql(key, is_absent or random() < 0.7) end
  core.system.sleep(random(60, 150) / 1000)
  suspects[#suspects + 1] = { from, key, now() + 1.1 * staleness }
end

local function look_again()
  local suspect = table.remove(suspects, 1)
  return get(suspect[1], suspect[2])
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

local function change_still()
  return (random() < 0.5 and set or delete)("still" .. random(STILL))
end

-- What comes by the clock and not by the number of calls: what, at least and at most so many seconds apart, when next.
local TIMED = {
  { clear, 6, 20 }, -- seldom, as it makes everybody forget everything, what is wrong included
  { change_still, 0.15, 0.35 },
}

local function timed_call()
  if suspects[1] and now() > suspects[1][3] then return look_again end
  for _, timed in ipairs(TIMED) do
    local is_due = timed.at and now() > timed.at
    if is_due or not timed.at then timed.at = now() + timed[2] + random() * (timed[3] - timed[2]) end
    if is_due then return timed[1] end
  end
end

assert(cache:wait_ready(60))
assert(other:wait_ready(60))
for i = 1, STILL do set("still" .. i) end
print("ready")
io.stdout:flush()

local ends = now() + tonumber(seconds)
while now() < ends do
  local call = timed_call() or some_call()
  if call() then core.system.sleep(0.005) end -- an error: the server is away
end
local one, two = cache:stats(), other:stats()
log:write(("stats %d %d %d %d\n"):format(one.near.hits + two.near.hits, (one.filter.absent or 0) + (two.filter.absent or 0),
  one.feed.incarnation_changes or 0, one.near.invalidated + two.near.invalidated))
log:close()
cache:close()
other:close()

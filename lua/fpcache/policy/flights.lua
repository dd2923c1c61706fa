--- Single flight in one process: who asks for a key that another coroutine is fetching waits for that one's result, error
-- included.  Only where others run while one waits: without a scheduler it would be in vain.
local waiting = require("fpcache.waiting")

---@class fpcache.Flight
---@field done boolean
---@field old any an older value, as soon as one is known that may be given meanwhile
---@field old_source string?
---@field old_until number? until then
---@field fresh_until number? from then on it is stale
---@field ends number? who loads behind has so long; then nobody waits for him any more
local flights = {}

--- The names of keys in flight are of a cache and all its views.
function flights.new() return {} end

-- Keys are given as they are stored.
local function id_of(space, key) return #space .. ":" .. space .. key end

--- The flight of a key.
local function find(all, id)
  local flight = all[id]
  if flight and flight.ends and waiting.now() > flight.ends then
    all[id] = nil -- lost, or late
    return nil
  end
  return flight
end

--- The flight of a key, to be waited for, if another coroutine of this process has it.
---@return fpcache.Flight?
function flights.of(all, space, key)
  if next(all) == nil then return nil end
  local other = find(all, id_of(space, key))
  return other and other.task ~= (coroutine.running() or false) and other or nil
end

--- Enters the flight of a key.
---@return fpcache.Flight? others another coroutine's, to be waited for
---@return fpcache.Flight? own to be left with the result
---@return boolean? is_alone whoever has it in this process cannot go on while the caller waits, so waiting is in vain
function flights.enter(all, space, key)
  local id, task = id_of(space, key), coroutine.running()
  local other = find(all, id)
  if not other then
    local own = { id = id, task = task or false, done = false }
    all[id] = own
    return nil, own
  end
  if other.task == (task or false) or not waiting.lets_others_run() then return nil, nil, true end
  return other
end

--- Gives the result to those who wait.
---@param own fpcache.Flight?
function flights.leave(all, own, ...)
  if own then
    own.done, own.results = true, { ... }
    if all[own.id] == own then all[own.id] = nil end
  end
  return ...
end

-- So many keys are remembered until COMMIT; more count as all.
local MOST_PENDING = 1000

--- Stands in a transaction for the flights of its cache: what it has written counts from COMMIT on.
function flights.pending() return { pending = {} } end -- no id is called so: they begin with a digit

--- This process has written a key: who asks for it from now on must not get what was loaded, or was known, before.
---@param key string? nil: every key
function flights.forget(all, space, key)
  local pending = all.pending
  if pending then
    if not key or #pending >= MOST_PENDING then
      all.pending = { false }
    elseif pending[1] ~= false then
      pending[#pending + 1] = id_of(space, key)
    end
  elseif next(all) == nil then
    return
  elseif key then
    all[id_of(space, key)] = nil
  else
    for id in pairs(all) do all[id] = nil end
  end
end

--- After COMMIT: forgets what is pending.  Repeatable.
function flights.publish(from, all)
  for _, id in ipairs(from.pending) do
    if id then all[id] = nil else flights.forget(all) end
  end
  from.pending = {}
end

--- Waits for another's result.
---@return boolean arrived
---@return any value, string? err, string? source, string? why
function flights.wait(other, policy)
  local takes_old = policy.stale_ttl ~= nil
  local function look() return other.done or takes_old and other.old ~= nil and waiting.now() < other.old_until end
  if not (look() or waiting.poll(policy.lock_timeout, look)) then return false end
  if not other.done then return true, other.old, nil, waiting.now() < other.fresh_until and other.old_source or "stale" end
  local results = other.results
  return true, results[1], results[2], results[3], results[4]
end

return flights

--- Single flight in one process: who asks for a key that another coroutine is fetching waits for that one's result, error
-- included.  Only where others run while one waits: without a scheduler it would be in vain.
local cancelled = require("fpcache.policy.cancelled")
local waiting = require("fpcache.waiting")

---@class fpcache.Flight
---@field done boolean
---@field old any an older value, as soon as one is known that may be given meanwhile
---@field old_source string?
---@field old_until number? until then
---@field fresh_until number? from then on it is stale
---@field ends number? who loads behind has so long; then nobody waits for him any more
---@field is_nested boolean? its own loader is fetching the key, too
---@field is_interrupted boolean? it ended because its task was cancelled, which is nobody else's business
local flights = {}

flights.ENDLESS = "invalid: the loader fetches the key that it loads, and its loader does so again: this would not end; have "
  .. "the loader ask the origin"

--- The names of keys in flight are of a cache and all its views.
function flights.new() return {} end

-- Keys are given as they are stored.  No id of one namespace begins as one of another.
local function prefix_of(space) return #space .. ":" .. space end
local function id_of(space, key) return prefix_of(space) .. key end

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
---@return fpcache.Flight? outer then: the caller's own, whose loader he is
function flights.enter(all, space, key)
  local id, task = id_of(space, key), coroutine.running()
  local other = find(all, id)
  if not other then
    local own = { id = id, task = task or false, done = false }
    all[id] = own
    return nil, own
  end
  if other.task == (task or false) then return nil, nil, true, other end
  if not waiting.lets_others_run() then return nil, nil, true end
  return other
end

--- Whose flight a key is, for who has none of his own.
---@return fpcache.Flight? others another coroutine's, to be waited for
---@return boolean? is_alone as above
---@return fpcache.Flight? outer the one that is in vain to be waited for
function flights.look(all, space, key)
  if next(all) == nil then return nil end
  local other = find(all, id_of(space, key))
  if not other then return nil end
  if other.task == (coroutine.running() or false) or not waiting.lets_others_run() then return nil, true, other end
  return other
end

--- Gives the result to those who wait.
---@param own fpcache.Flight?
function flights.leave(all, own, ...)
  if own then
    local _, err = ...
    own.done, own.results = true, { ... }
    own.is_interrupted = cancelled.is_reason(err)
    if all[own.id] == own then all[own.id] = nil end
  end
  return ...
end

--- Has others take an older value while it is loaded anew, for as long as it may be given.
---@param own fpcache.Flight
---@param answer fpcache.Answer what the server said of it
---@param old any
---@param source string "db" or "stale"
function flights.offer(own, answer, old, source)
  local now_s = waiting.now()
  local function time_of(left) return left and left >= 0 and now_s + left or math.huge end
  own.old, own.old_source = old, source
  own.fresh_until = answer.is_fresh and time_of(answer.left) or now_s
  own.old_until = time_of(answer.kept or answer.is_fresh and answer.left)
end

-- So many keys are remembered until COMMIT; more count as all.
local MOST_PENDING = 1000
flights.MOST_KEYS = MOST_PENDING -- that are worth naming one by one

--- Stands in a transaction for the flights of its cache: what it has written counts from COMMIT on.
function flights.pending() return { pending = {} } end -- no id is called so: they begin with a digit

--- Forgets the flights whose ids begin so.
local function forget_prefix(all, prefix)
  for id in pairs(all) do
    if id:sub(1, #prefix) == prefix then all[id] = nil end
  end
end

--- This process has written a key: who asks for it from now on must not get what was loaded, or was known, before.
---@param space string? nil: every key of every namespace
---@param key string? nil: every key of the namespace
function flights.forget(all, space, key)
  local pending = all.pending
  if pending then
    if not space or #pending >= MOST_PENDING then
      all.pending = { { prefix = "" } }
    else
      pending[#pending + 1] = key and id_of(space, key) or { prefix = prefix_of(space) }
    end
  elseif next(all) == nil then
    return
  elseif key then
    all[id_of(space, key)] = nil
  else
    forget_prefix(all, space and prefix_of(space) or "")
  end
end

--- After COMMIT: forgets what is pending.  Repeatable.
function flights.publish(from, all)
  for _, one in ipairs(from.pending) do
    if type(one) == "table" then forget_prefix(all, one.prefix) else all[one] = nil end
  end
  from.pending = {}
end

--- Waits for another's result.
---@param seconds number? at most; the policy's lock_timeout
---@return boolean arrived false: it takes too long, or was interrupted
---@return any value, string? err, string? source, string? why
function flights.wait(other, policy, seconds)
  local takes_old = policy.stale_ttl ~= nil
  local function look() return other.done or takes_old and other.old ~= nil and waiting.now() < other.old_until end
  if not (look() or waiting.poll(seconds or policy.lock_timeout, look)) then return false end
  if not other.done then return true, other.old, nil, waiting.now() < other.fresh_until and other.old_source or "stale" end
  local results = other.results
  if other.is_interrupted then return false end
  return true, results[1], results[2], results[3], results[4]
end

return flights

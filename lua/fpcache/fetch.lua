--- fetch: the value of a key, loaded by the caller's function where the cache has none.
--
-- Here stands the order of things: near cache, others of this process, the server, who loads, who waits, who gets what is stale.
-- Each policy is a module of its own in policy/.
local behind = require("fpcache.policy.behind")
local flights = require("fpcache.policy.flights")
local host_lock = require("fpcache.policy.host_lock")
local leases = require("fpcache.policy.leases")
local lifetimes = require("fpcache.policy.lifetimes")
local limits = require("fpcache.limits")
local loading = require("fpcache.policy.loading")
local near_cache = require("fpcache.near")
local nearby = require("fpcache.policy.nearby")
local older = require("fpcache.policy.older")
local outcomes = require("fpcache.policy.outcomes")
local breaker = require("fpcache.policy.breaker")
local policies = require("fpcache.policy")
local waiting = require("fpcache.waiting")
local Cache = require("fpcache.client")

local ABSENT, Policy = near_cache.ABSENT, policies.Policy
local stored_key = limits.stored_key
local getmetatable, next, type = getmetatable, next, type

local fetch = {}

--- What a cache and its views share for fetch.
---@param o table { breaker_failures, breaker_pause }
function fetch.new_flow(o)
  return {
    flights = flights.new(),
    breaker = breaker.new(o.breaker_failures, o.breaker_pause, function() return waiting.now() end),
    counts = { loads = 0, load_failures = 0, stale = 0, waits = 0, overtaken = 0, without_server = 0 },
  }
end

--- Errors after which doing without the server would hide a mistake, or the wish to stop.
local FINAL = { closed = true, memory = true, interrupted = true, invalid = true }

--- Whether nothing is to be done after this error but to give it back.
function fetch.is_final(err)
  return FINAL[err:match("^(%l+):")] or false
end

fetch.NOT_IN_TRANSACTIONS = "invalid: fetch is not for transactions, in which others would wait for its lease until COMMIT; "
  .. "fetch before, or use get and set"

--- Prolongs a sliding entry once enough of its life is over.
local function slide(self, stored, policy, left)
  if lifetimes.slides(policy, left) then
    leases.slide(self, stored, policy.ttl, policy.stale_ttl and policy.ttl + policy.stale_ttl)
  end
end

--- A hit that the words of a miss tell of: it came into being meanwhile, or it is known that there is no value.
local function late_hit(self, call, answer)
  self.counts.hits = self.counts.hits + 1
  local look = call.look
  if answer.value == nil then
    if look then nearby.keep_absent(self, look, call.key, answer.kept) end
    return nil, nil, "db"
  end
  if look then
    nearby.keep(self, look, call.key, call.policy, answer.value, answer.left, answer.bytes, answer.age, answer.cost)
  end
  return answer.value, nil, "db"
end

local function give_old(self, old, source)
  if source == "stale" then self.flow.counts.stale = self.flow.counts.stale + 1 end
  return old, nil, source
end

--- Ends the flight and the host's lock by what was loaded.
local function finish(self, call, called, ...)
  if call.host_lock then call.host_lock.release() end
  if call.outer then call.outer.is_nested = nil end
  if not called then
    flights.leave(self.flow.flights, call.flight, nil, "loader: another caller failed: " .. tostring((...)))
    error((...), 0)
  end
  return flights.leave(self.flow.flights, call.flight, ...)
end

--- Loads in the background and gives the old value meanwhile, or after soft_timeout; without an old one waits for hard_timeout.
---@return boolean taken false: there is no background here
local function load_behind(self, call, answer, fence, old, source)
  local policy, results = call.policy, nil
  local function loaded(...)
    results = { ... }
    if call.is_behind then finish(self, call, ...) end
  end
  local function run()
    if call.flight then call.flight.task = coroutine.running() or false end -- the caller may go on and ask again
    loaded(pcall(loading.run, self, call, fence, answer))
  end
  local is_done = behind.run(policy, old ~= nil, run, function() return results end, function()
    if old ~= nil and call.flight then flights.offer(call.flight, answer, old, source) end
  end)
  if is_done == nil then return false end
  if is_done then
    if not results[1] then error(results[2], 0) end
    return true, results[2], results[3], results[4], results[5]
  end
  if old ~= nil then
    call.is_behind = true
    if call.flight then call.flight.ends = waiting.now() + policy.hard_timeout end
    return true, give_old(self, old, source)
  end
  return true, nil, behind.too_late(policy), "loader"
end

local function conclude(self, call, answer, fence, taken, ...)
  if taken then return ... end
  return loading.run(self, call, fence, answer)
end

--- Loads, with a lease or without.
local function load(self, call, answer, fence)
  local old, source = older.meanwhile(call.policy, answer, call.key)
  return conclude(self, call, answer, fence, load_behind(self, call, answer, fence, old, source))
end

--- The server did not answer: what this process remembers, or else the loader; nothing is stored.
local function without_server(self, call, err)
  if err and fetch.is_final(err) then return nil, err end
  local flow, policy = self.flow, call.policy
  flow.counts.without_server = flow.counts.without_server + 1
  local answer, is_due = older.remembered_answer(self, policy, call.key)
  if answer and not is_due then
    local old = older.meanwhile(policy, answer, call.key)
    if old ~= nil then
      flow.counts.stale = flow.counts.stale + 1
      return old, nil, "stale", err or flow.breaker.last_error
    end
  end
  if answer and not older.is_waited_for(policy, answer) then return load(self, call, answer, nil) end
  return loading.run(self, call, nil, answer)
end

--- What a statement of fetch answered, as ask() gives it.
local function heard(self, stored, found, value, left, bytes, age, cost)
  local circuit = self.flow.breaker
  if not found then -- a row comes in any case
    circuit:failed(value)
    return nil, value
  end
  if circuit.failures > 0 then circuit:succeeded() end
  if value ~= nil then return true, value, left, bytes, age, cost end
  local answer, err = leases.read_words(self, stored, left)
  if not answer then return nil, err end
  return false, answer
end

--- Asks the server: a hit, or the lease, or that somebody has it.
---@param seconds number? that the lease lasts; nil: none is wanted
---@return boolean? is_hit false: there is no living entry, or one that is to be loaded anew; nil: the server did not answer
---@return any value of a hit; else the fpcache.Answer, or the error
---@return number? left seconds that a hit lives; -1: without end; when the policy or the near cache needs it
---@return integer? bytes
---@return number? age, number? cost
local function ask(self, policy, stored, long, seconds, look)
  local statements = self.statements
  local found, value, left, bytes, age, cost
  if policy.is_early or long then
    local share, times = lifetimes.early(policy)
    found, value, left, bytes, age, cost = self.db:value(statements.fetch_early, self.timeout, self.codec, self.parse_json,
      self.space, stored, seconds, long, share, times, policy.tags)
  else
    local statement = statements[look and policy.asks_with_life or policy.asks]
    found, value, left, bytes = self.db:value(statement, self.timeout, self.codec, self.parse_json, self.space, stored, seconds,
      policy.tags)
  end
  return heard(self, stored, found, value, left, bytes, age, cost)
end

--- Whether the time to wait for somebody else's loading is over; waits if not.
local function is_over(self, call)
  local left = call.deadline - waiting.now()
  if left <= 0 then return true end
  if not call.pause then self.flow.counts.waits = self.flow.counts.waits + 1 end
  call.pause = math.min(call.pause and call.pause * 1.5 or 0.002, 0.05)
  waiting.sleep(math.min(call.pause, left))
  return false
end

--- Enters the flight of the key, unless another coroutine of this process has it.  A loader that fetches its own key loads at
-- once; when he who loads then does so again there would be no end to it.
---@return fpcache.Flight? others
local function enter(self, call)
  if call.has_entered then return nil end
  call.has_entered = true
  local others, own, is_alone, outer = flights.enter(self.flow.flights, self.space, call.stored)
  call.flight, call.deadline = own, is_alone and 0 or waiting.now() + call.policy.lock_timeout
  if outer and outer.is_nested then
    call.loader = function() return nil, flights.ENDLESS end
  elseif outer then
    call.outer, outer.is_nested = outer, true
  end
  return others
end

--- Waits for another coroutine's result.
---@return boolean arrived
---@return any value, string? err, string? source, string? why
local function share(self, call, others)
  if call.host_lock then -- for which that one may be waiting
    call.host_lock.release()
    call.host_lock = nil
  end
  self.flow.counts.waits = self.flow.counts.waits + 1
  while true do
    local arrived, value, err, source, why = flights.wait(others, call.policy)
    if arrived or not others.is_interrupted then return arrived, value, err, source, why end
    call.has_entered = false -- who is first now goes on in its place
    others = enter(self, call)
    if not others then return false end
  end
end

--- Goes on from an answer that was no hit until there is a value, a lease, or no more time.
---@param answer fpcache.Answer|string|nil what the server said; an error; nil: it was not asked
local function lead(self, call, answer)
  local policy = call.policy
  while type(answer) == "table" do
    if answer.granted == nil then return late_hit(self, call, answer) end
    if not call.has_missed then
      call.has_missed = true
      self.counts.misses = self.counts.misses + 1
    end
    local outcome, reason = outcomes.hear(self, call, answer)
    if outcome == "failed" or outcome == "none" then return outcomes.share(self, call, answer, reason) end
    if answer.granted then
      enter(self, call)
      return load(self, call, answer, answer.fence ~= leases.NOTHING_STORED and answer.fence or nil)
    end
    local is_first = false
    if policy.lock == "host" and not call.host_lock then
      call.host_lock = host_lock.try(self.space, call.key)
      is_first = call.host_lock ~= nil -- asks again: it may have been loaded meanwhile
    end
    if not is_first then
      local old, source = older.meanwhile(policy, answer, call.key)
      if old ~= nil then return give_old(self, old, source) end
      local others = enter(self, call)
      if others then
        local arrived, value, err, from, why = share(self, call, others)
        if arrived then return value, err, from, why end
      end
      if policy.lock == "process" or call.host_lock or outcome == "alone" or is_over(self, call) then
        return load(self, call, answer, nil)
      end
    end
    if self.flow.breaker:is_open() then -- the server was lost meanwhile
      answer = nil
      break
    end
    local is_hit, value, left, bytes, age, cost = ask(self, policy, call.stored, call.long,
      (policy.lock ~= "host" or call.host_lock) and policy.hard_timeout or nil, call.look)
    if is_hit then
      value = { value = value, left = left, bytes = bytes, age = age, cost = cost }
    end
    answer = value
  end
  local others = enter(self, call)
  if others then
    local arrived, value, err, from, why = share(self, call, others)
    if arrived then return value, err, from, why end
  end
  return without_server(self, call, answer)
end

--- What the leader did; a loading that goes on behind him ends the flight itself.
local function land(self, call, called, ...)
  if not call.is_behind then return finish(self, call, called, ...) end
  if not called then error((...), 0) end
  return ...
end

--- Everything that is no hit.
local function fetch_missing(self, look, key, stored, long, policy, answer, loader, ...)
  local count, arguments = select("#", ...), ...
  if count > 1 then
    local all = { ... }
    arguments = function() return (table.unpack or unpack)(all, 1, count) end -- luacheck: ignore
  else
    local only = arguments
    arguments = function() if count == 1 then return only end end
  end
  local call = { key = key, stored = stored, long = long, policy = policy, loader = loader, arguments = arguments, look = look }
  return land(self, call, pcall(lead, self, call, answer))
end

--- Waits for another coroutine of this process that is fetching the key.
---@return boolean arrived false: there is none, or it takes too long
---@return any value, string? err, string? source, string? why
local function join(self, stored, policy)
  if not waiting.lets_others_run() then return false end
  local others = flights.of(self.flow.flights, self.space, stored)
  if not others then return false end
  self.flow.counts.waits = self.flow.counts.waits + 1
  return flights.wait(others, policy)
end

--- Raises when `loader` cannot be called.
function fetch.check_loader(loader, level)
  if type(loader) == "function" then return end
  local meta = getmetatable(loader)
  if type(meta) == "table" and meta.__call ~= nil then return end
  error(("bad loader (function expected, got %s)"):format(type(loader)), level + 1)
end

--- The value of a key, loaded where the cache has none; by one caller at a time, however many ask.
--
-- The loader is called as loader(..., context).  It returns the value; or nil, remembered for negative_ttl; or nil and an error,
-- which is not stored; what it raises is such an error.  See docs/policies.md and fpcache.Context.
---@param key string
---@param policy fpcache.Policy|table|number|string|nil fpcache.policy{}, its fields, or a ttl; may be left out
---@param loader fun(...): any, string?
---@param ... any for the loader
---@return any value nil: there is none; a table may be shared, see docs/near.md
---@return string? err the loader's, or of the cache
---@return string? source "near", "shared", "db", "loader", or "stale": older than the policy wants
---@return string? why with "stale": what went wrong; with "loader": why it could not be stored
function Cache:fetch(key, policy, loader, ...)
  if getmetatable(policy) ~= Policy then
    if type(policy) == "function" then -- fetch(key, loader, ...)
      if loader == nil and select("#", ...) == 0 then return self:fetch(key, policies.DEFAULT, policy) end
      return self:fetch(key, policies.DEFAULT, policy, loader, ...)
    end
    policy = policies.of(policy, 2)
  end
  local near = policy.near and self.near
  if near then
    local value, is_told = near:get(self.space, key)
    if is_told then return nil, nil, "near" end
    if value ~= nil and value ~= ABSENT then return value, nil, "near" end
  end
  if type(loader) ~= "function" then fetch.check_loader(loader, 2) end
  local stored, long = stored_key(key, self.max_key_bytes, 2)
  if not stored then return nil, long end
  local flow, look = self.flow, nil
  if next(flow.flights) ~= nil then -- one asks for all of this process; and never empty in a transaction
    if self.is_transaction then return nil, fetch.NOT_IN_TRANSACTIONS end
    local arrived, value, err, source, why = join(self, stored, policy)
    if arrived then return value, err, source, why end
  end
  if near or policy.near and self.shared then
    look = nearby.look(self, stored)
    if look and self.shared then
      local value = nearby.shared(self, look, key)
      if value ~= nil then return value, nil, "shared" end
    end
  end
  local is_hit, value, left, bytes, age, cost
  local circuit = flow.breaker
  if circuit.failures == 0 or circuit:lets_through() then
    if look or long or not policy.is_plain then
      is_hit, value, left, bytes, age, cost = ask(self, policy, stored, long, policy.first_lease, look)
    else -- the same, for the many calls that it is to cost nothing
      is_hit, value, left = self.db:value(self.statements.fetch_usual, self.timeout, self.codec, self.parse_json, self.space,
        stored)
      if value == nil or not is_hit or circuit.failures > 0 then is_hit, value = heard(self, stored, is_hit, value, left) end
    end
    if is_hit then
      local counts = self.counts
      counts.hits = counts.hits + 1
      if self.touches then self.touches:hit(self.space, stored) end
      if look then nearby.keep(self, look, key, policy, value, left, bytes, age, cost) end
      if policy.sliding then slide(self, stored, policy, left) end
      return value, nil, "db"
    end
  end
  local err, source, why
  value, err, source, why = fetch_missing(self, look, key, stored, long, policy, value, loader, ...)
  return value, err, source, why
end

return fetch

--- fetch: the value of a key, loaded by the caller's function where the cache has none.
--
-- Here stands the order of things: near cache, others of this process, the server, who loads, who waits, who gets what is stale.
-- Each policy is a module of its own in policy/.
local flights = require("fpcache.policy.flights")
local host_lock = require("fpcache.policy.host_lock")
local leases = require("fpcache.policy.leases")
local lifetimes = require("fpcache.policy.lifetimes")
local limits = require("fpcache.limits")
local loading = require("fpcache.policy.loading")
local near_cache = require("fpcache.near")
local breaker = require("fpcache.policy.breaker")
local policies = require("fpcache.policy")
local waiting = require("fpcache.waiting")
local Cache = require("fpcache.client")

local ABSENT, Policy = near_cache.ABSENT, policies.Policy

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

--- The server did not answer: what the near cache last had, or else the loader at once; nothing is stored.
local function without_server(self, call, err)
  if err and fetch.is_final(err) then return nil, err end
  local flow, policy = self.flow, call.policy
  flow.counts.without_server = flow.counts.without_server + 1
  if policy.stale_ttl and self.near then
    local value = self.near:remembered(self.space, call.key, policy.stale_ttl)
    if value ~= nil then
      flow.counts.stale = flow.counts.stale + 1
      return value, nil, "stale", err or flow.breaker.last_error
    end
  end
  return loading.run(self, call, nil, nil)
end

--- A hit at the server.
local function hit(self, call, answer)
  local policy = call.policy
  self.counts.hits = self.counts.hits + 1
  if self.touches then self.touches:hit(self.space, call.stored) end
  if answer.value == nil then return nil, nil, "db" end
  if call.stamp then
    local keep = lifetimes.near(policy, answer.left, answer.age, answer.cost)
    if keep ~= 0 then
      self.near:put(self.space, call.key, answer.value, answer.bytes, call.asked_at, keep, call.spot, call.stamp)
    end
  end
  if policy.sliding and answer.left > 0 and answer.left < policy.ttl * (1 - lifetimes.SLIDE_SHARE) then
    leases.slide(self, call.stored, policy.ttl, policy.stale_ttl and policy.ttl + policy.stale_ttl)
  end
  return answer.value, nil, "db"
end

--- The older value, when the policy lets it be given.
local function old_of(policy, answer, key)
  if answer.value == nil then return nil end
  if policy.gives_old and not policy.gives_old(answer.value, key) then return nil end
  if answer.is_fresh then return answer.value, "db" end
  if policy.stale_ttl then return answer.value, "stale" end
end

local function give_old(self, old, source)
  if source == "stale" then self.flow.counts.stale = self.flow.counts.stale + 1 end
  return old, nil, source
end

--- Loads in the background and gives the old value meanwhile, or after soft_timeout; without an old one waits for hard_timeout.
---@return boolean taken false: there is no background here
local function load_behind(self, call, answer, fence, old, source)
  local policy, results = call.policy, nil
  if old == nil and not policy.stops_waiting then return false end
  local function run() results = { loading.run(self, call, fence, answer) } end
  if not (policy.background or waiting.background)(run) then return false end
  local patience = old ~= nil and (policy.soft_timeout or 0) or policy.hard_timeout
  if old ~= nil and call.flight then call.flight.old, call.flight.old_source = old, source end
  if patience > 0 then waiting.poll(patience, function() return results end) end
  if results then return true, results[1], results[2], results[3], results[4] end
  if old ~= nil then return true, give_old(self, old, source) end
  return true, nil, ("timeout: loading took longer than hard_timeout (%g s); it goes on"):format(patience), "loader"
end

local function conclude(self, call, answer, fence, taken, ...)
  if taken then return ... end
  return loading.run(self, call, fence, answer)
end

--- Loads, with a lease or without.
local function load(self, call, answer, fence)
  local old, source = old_of(call.policy, answer, call.key)
  return conclude(self, call, answer, fence, load_behind(self, call, answer, fence, old, source))
end

--- Asks the server; nil when it did not answer.
local function ask(self, call)
  local flow, policy = self.flow, call.policy
  local wants_lease = policy.lock ~= "host" or call.host_lock -- on a host its lock comes first
  local answer, err = leases.ask(self, call.stored, call.long, wants_lease and policy.hard_timeout or nil, call.share, call.times)
  if not answer then
    flow.breaker:failed(err)
    return nil, err
  end
  flow.breaker:succeeded()
  if answer.granted ~= nil and not call.has_missed then
    call.has_missed = true
    self.counts.misses = self.counts.misses + 1
  end
  return answer
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

--- Asks the server until there is a value, a lease, or no more time.
local function lead(self, call)
  local policy = call.policy
  if not self.flow.breaker:lets_through() then return without_server(self, call) end
  if policy.refresh_ahead or policy.beta then call.share, call.times = lifetimes.early(policy) end
  while true do
    local answer, err = ask(self, call)
    if not answer then return without_server(self, call, err) end
    if answer.granted == nil then return hit(self, call, answer) end
    if answer.granted then return load(self, call, answer, answer.fence) end
    local is_first = false
    if policy.lock == "host" and not call.host_lock then
      call.host_lock = host_lock.try(self.space, call.key)
      is_first = call.host_lock ~= nil -- asks again: it may have been loaded meanwhile
    end
    if not is_first then
      local old, source = old_of(policy, answer, call.key)
      if old ~= nil then return give_old(self, old, source) end
      if policy.lock == "process" or call.host_lock or is_over(self, call) then return load(self, call, answer, nil) end
    end
  end
end

--- Ends the flight and the host's lock by what the leader did.
local function land(self, call, called, ...)
  if call.host_lock then call.host_lock.release() end
  if not called then
    flights.leave(self.flow.flights, call.flight, nil, "loader: another caller failed: " .. tostring((...)))
    error((...), 0)
  end
  return flights.leave(self.flow.flights, call.flight, ...)
end

--- Everything but a hit of the near cache.
local function fetch_far(self, level, key, policy, loader, ...)
  if self.is_transaction then return nil, fetch.NOT_IN_TRANSACTIONS end
  local stored, long = limits.stored_key(key, self.max_key_bytes, level + 1)
  if not stored then return nil, long end
  local count, arguments = select("#", ...), ...
  if count > 1 then
    local all = { ... }
    arguments = function() return (table.unpack or unpack)(all, 1, count) end -- luacheck: ignore
  else
    local only = arguments
    arguments = function() if count == 1 then return only end end
  end
  local call = { key = key, stored = stored, long = long, policy = policy, loader = loader, arguments = arguments }
  local others, is_alone
  others, call.flight, is_alone = flights.enter(self.flow.flights, self.space, key)
  if others then
    self.flow.counts.waits = self.flow.counts.waits + 1
    local arrived, value, err, source, why = flights.wait(others, policy)
    if arrived then return value, err, source, why end
  end
  call.deadline = is_alone and 0 or waiting.now() + policy.lock_timeout
  if self.near and policy.near then
    local _, spot, stamp = self.feed:look(self.seed, stored) -- the stamp comes before the value
    call.spot, call.stamp, call.asked_at = spot, stamp, stamp and self.near.now()
  end
  return land(self, call, pcall(lead, self, call))
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
---@return string? source "near", "db", "loader", or "stale": older than the policy wants
---@return string? why with "stale": what went wrong; with "loader": why it could not be stored
function Cache:fetch(key, policy, loader, ...)
  if getmetatable(policy) ~= Policy then
    if type(policy) == "function" then -- fetch(key, loader, ...)
      if loader == nil and select("#", ...) == 0 then return self:fetch(key, policies.DEFAULT, policy) end
      return self:fetch(key, policies.DEFAULT, policy, loader, ...)
    end
    policy = policies.of(policy, 2)
  end
  if policy.near then
    local near = self.near
    if near then
      local value = near:get(self.space, key)
      if value ~= nil and value ~= ABSENT then return value, nil, "near" end
    end
  end
  fetch.check_loader(loader, 2)
  local value, err, source, why = fetch_far(self, 2, key, policy, loader, ...)
  return value, err, source, why
end

return fetch

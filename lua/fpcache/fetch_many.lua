--- fetch_many: the values of many keys; one call of the loader for all that the cache lacks.
--
-- The order of things is that of fetch, for lists: a round trip asks for all and is granted leases for those that nobody
-- loads; what was loaded is stored by one statement; for the keys that others load it asks again.  A key that cannot be
-- answered takes nothing from the others.
local behind = require("fpcache.policy.behind")
local bulk = require("fpcache.bulk")
local fetch = require("fpcache.fetch")
local flights = require("fpcache.policy.flights")
local leases_many = require("fpcache.policy.leases_many")
local lifetimes = require("fpcache.policy.lifetimes")
local loading_many = require("fpcache.policy.loading_many")
local near_cache = require("fpcache.near")
local nearby = require("fpcache.policy.nearby")
local older = require("fpcache.policy.older")
local outcomes = require("fpcache.policy.outcomes")
local policies = require("fpcache.policy")
local waiting = require("fpcache.waiting")
local Cache = require("fpcache.client")

local ABSENT = near_cache.ABSENT
local BATCH_KEYS = 10000 -- asked for, and loaded, at a time

--- Answers a key.
local function give(self, call, key, value, source)
  call.values[key], call.sources[key] = value, source
  if source == "stale" then self.flow.counts.stale = self.flow.counts.stale + 1 end
end

--- Notes why a key cannot be answered.
local function fail(call, err)
  call.err = call.err or err
end

--- Gives what was loaded.
---@param loaded fpcache.Loaded
local function give_loaded(call, loaded)
  for key, source in pairs(loaded.sources) do call.values[key], call.sources[key] = loaded.values[key], source end
  if loaded.err then fail(call, loaded.err) end
end

--- Begins a flight for each key that has none, by which others of this process wait for its loading.
local function enter(self, call, keys)
  local own = {}
  for _, key in ipairs(keys) do
    local _, flight = flights.enter(self.flow.flights, self.space, call.stored[key])
    own[key] = flight
  end
  return own
end

--- Ends flights by what was loaded, or by the error.
local function leave(self, own, loaded, err)
  for key, flight in pairs(own) do
    local source = loaded and loaded.sources[key]
    if source then
      flights.leave(self.flow.flights, flight, loaded.values[key], nil, source)
    else
      flights.leave(self.flow.flights, flight, nil, loaded and loaded.err or err, "loader")
    end
  end
end

--- The older values that may be given while these keys are loaded, by key, and whether each has one.
local function meanwhile(call, keys, answers)
  local found, has_all = {}, true
  for _, key in ipairs(keys) do
    local value, source = older.meanwhile(call.policy, answers and answers[key], key)
    if value == nil then has_all = false else found[key] = { value = value, source = source } end
  end
  return found, has_all
end

--- Loading goes on behind the caller, who does not wait any longer: he gets what there is.
---@param cancelled string? the error when his task was cancelled, which ends nobody else's wait
local function go_on(self, call, keys, own, found, cancelled)
  local ends, err = waiting.now() + call.policy.hard_timeout, cancelled or behind.too_late(call.policy)
  for _, key in ipairs(keys) do
    local old, flight = found[key], own[key]
    if not (old or cancelled) then
      flights.leave(self.flow.flights, flight, nil, err, "loader")
    elseif flight then
      flight.ends = ends
    end
    if old then give(self, call, key, old.value, old.source) else fail(call, err) end
  end
end

--- Loads keys by one call of the loader, in the background where the policy wants and there is one.
---@param fence integer? of their leases; nil: nothing is stored
---@param answers table<string, fpcache.Answer>? what the server said
local function load(self, call, keys, fence, answers)
  if #keys == 0 then return end
  local own = enter(self, call, keys)
  local found, has_all = meanwhile(call, keys, answers)
  if has_all and older.is_waited_for(call.policy, answers[keys[1]]) then has_all = false end
  local called, loaded
  local function run()
    local task = coroutine.running() or false
    for _, flight in pairs(own) do flight.task = task end -- the caller may go on and ask again
    called, loaded = pcall(loading_many.run, self, call, keys, fence, answers)
    if not called then self.flow.last_error = tostring(loaded) end -- who began this may be gone
    leave(self, own, called and loaded, "loader: another caller failed: " .. tostring(loaded))
  end
  local function offer()
    for key, old in pairs(found) do
      if own[key] then flights.offer(own[key], answers[key], old.value, old.source) end
    end
  end
  local is_done, cancelled = behind.run(call.policy, has_all, run, function() return called ~= nil end, offer)
  if is_done == false then return go_on(self, call, keys, own, found, cancelled) end
  if is_done == nil then
    offer()
    run()
  end
  if not called then error(loaded, 0) end
  give_loaded(call, loaded)
end

--- Loads keys that this very task, or one that cannot go on, is loading already: to wait for that would be in vain.
local function load_nested(self, call, keys, outer, answers)
  if #keys == 0 then return end
  for _, flight in ipairs(outer) do
    if flight.is_nested then return fail(call, flights.ENDLESS) end
  end
  for _, flight in ipairs(outer) do flight.is_nested = true end
  local called, loaded = pcall(loading_many.run, self, call, keys, nil, answers)
  for _, flight in ipairs(outer) do flight.is_nested = nil end
  if not called then error(loaded, 0) end
  give_loaded(call, loaded)
end

--- Who of this process loads the keys: others that can be waited for, the caller himself, or nobody.
---@return table[] shared { key, flight }
---@return string[] nested, fpcache.Flight[] outer
---@return string[] free
local function look_around(self, call, keys)
  local shared, nested, outer, free = {}, {}, {}, {}
  for _, key in ipairs(keys) do -- all before the first wait, at whose end others have ended too
    local others, is_alone, own = flights.look(self.flow.flights, self.space, call.stored[key])
    if others then
      shared[#shared + 1] = { key = key, flight = others }
    elseif is_alone then
      nested[#nested + 1], outer[#outer + 1] = key, own
    else
      free[#free + 1] = key
    end
  end
  return shared, nested, outer, free
end

--- Waits for what other tasks of this process load.
---@param deadline number of waiting.now()
---@param late string[] gets the keys whose loading takes longer
local function await(self, call, shared, deadline, late)
  for _, one in ipairs(shared) do
    self.flow.counts.waits = self.flow.counts.waits + 1
    local arrived, value, err, source = flights.wait(one.flight, call.policy, math.max(deadline - waiting.now(), 0))
    if not arrived then
      late[#late + 1] = one.key
    elseif err then
      fail(call, err)
    else
      give(self, call, one.key, value, source)
    end
  end
end

--- The server does not answer: what the near cache last had; or the loader at once, whose values are not stored.
---@return boolean goes_on false: nobody needs to ask for more
local function without_server(self, call, keys, deadline, err)
  if err and fetch.is_final(err) then
    fail(call, err)
    return false
  end
  local flow, rest, answers = self.flow, {}, {}
  flow.counts.without_server = flow.counts.without_server + 1
  for _, key in ipairs(keys) do
    local answer, is_due = older.remembered_answer(self, call.policy, key)
    answers[key] = answer
    if answer and not is_due then give(self, call, key, answer.value, "stale") else rest[#rest + 1] = key end
  end
  local shared, nested, outer, free = look_around(self, call, rest)
  local late = {}
  load(self, call, free, nil, answers)
  await(self, call, shared, deadline, late)
  load_nested(self, call, nested, outer, answers)
  load(self, call, late, nil, answers)
  return true
end

--- Counts a hit of the server, and prolongs it.
local function use(self, call, key, answer, due)
  local stored, look = call.stored[key], call.looks[key]
  self.counts.hits = self.counts.hits + 1
  if answer.value == nil then
    if look then nearby.keep_absent(self, look, key, answer.kept) end
    return
  end
  if self.touches then self.touches:hit(self.space, stored) end
  if look then
    nearby.keep(self, look, key, call.policy, answer.value, answer.left, answer.bytes, answer.age, answer.cost)
  end
  if call.policy.sliding and lifetimes.slides(call.policy, answer.left) then due[#due + 1] = key end
end

--- Whether another process's loading, for which the caller has waited, answers a key: it failed, or there is no value.
---@return boolean is_answered
---@return fpcache.Outcome? outcome
local function hear(self, call, key, answer)
  local waiter = call.waiters[key]
  if not waiter then
    waiter = { stored = call.stored[key] }
    call.waiters[key], self.counts.misses = waiter, self.counts.misses + 1
  end
  local outcome, err = outcomes.hear(self, waiter, answer)
  if outcome == "failed" then fail(call, err) elseif outcome == "none" then give(self, call, key, nil, "loader") end
  return outcome == "failed" or outcome == "none", outcome
end

--- Takes what the answers say: hits go to the caller.
---@return string[] mine to be loaded under leases
---@return integer? fence of these
---@return string[] theirs that others load
---@return string[] alone that are not stored, whoever loads them
local function take(self, call, keys, answers)
  local mine, theirs, alone, unwanted, due, fence = {}, {}, {}, {}, {}, nil
  for _, key in ipairs(keys) do
    local answer = answers[key]
    if answer.granted == nil then
      give(self, call, key, answer.value, "db")
      use(self, call, key, answer, due)
    else
      local is_answered, outcome = hear(self, call, key, answer)
      if answer.granted then
        local list = is_answered and unwanted or mine
        list[#list + 1], fence = key, answer.fence
      elseif not is_answered then
        local old, source = older.meanwhile(call.policy, answer, key)
        local list = outcome == "alone" and alone or theirs
        if old ~= nil then give(self, call, key, old, source) else list[#list + 1] = key end
      end
    end
  end
  leases_many.slide(self, due, call.policy)
  leases_many.release(self, unwanted, fence, 0) -- the next who comes tries again
  return mine, fence, theirs, alone
end

--- Asks the server.
---@return table<string, fpcache.Answer>? answers nil: it does not answer
---@return string[]|string|nil readable_or_err keys of answers that can be read
---@return table<string, string[]>? broken keys of values that cannot be read, by the error
local function ask(self, call, keys)
  local circuit = self.flow.breaker
  if not circuit:lets_through() then return nil end
  local answers, errors, is_watched = leases_many.ask(self, keys, call.policy)
  if not answers then
    circuit:failed(errors)
    return nil, errors
  end
  if circuit.failures > 0 then circuit:succeeded() end
  call.is_watched = is_watched
  local readable, broken = keys, {}
  if next(errors) ~= nil then
    readable = {}
    for _, key in ipairs(keys) do
      local err = errors[key]
      if err then broken[err] = broken[err] or {} end
      local list = err and broken[err] or readable
      list[#list + 1] = key
    end
  end
  return answers, readable, broken
end

--- Fetches a list of different keys.
---@return boolean goes_on false: nobody needs to ask for more
local function fetch_list(self, call, keys)
  local policy = call.policy
  local deadline, pause = waiting.now() + policy.lock_timeout, 0.002
  while #keys > 0 do
    local answers, readable, broken = ask(self, call, keys)
    if not answers then return without_server(self, call, keys, deadline, readable) end
    local mine, fence, theirs, alone = take(self, call, readable, answers)
    load(self, call, mine, fence, answers)
    load(self, call, alone, nil, answers)
    for err, list in pairs(broken) do without_server(self, call, list, deadline, err) end
    local shared, nested, outer, rest = look_around(self, call, theirs)
    await(self, call, shared, deadline, rest)
    load_nested(self, call, nested, outer, answers)
    local left = deadline - waiting.now()
    if #rest > 0 and (policy.lock == "process" and #mine == 0 or left <= 0) then
      load(self, call, rest, nil, answers)
      return true
    end
    if #rest > 0 then
      self.flow.counts.waits = self.flow.counts.waits + 1
      waiting.sleep(math.min(pause, left))
      pause = math.min(pause * 1.5, 0.05)
    end
    keys = rest
  end
  return true
end

--- Answers from the near cache, and from what the workers of an nginx share; the rest as a list, each key once.
local function ask_nearby(self, call, keys, stored)
  local near = call.policy.near and self.near
  local keeps = near or call.policy.near and self.shared
  local rest, seen = {}, {}
  for i = 1, #keys do
    local key = keys[i]
    if not seen[key] then
      seen[key], call.stored[key] = true, stored[i]
      local value, is_told, source = nil, nil, "near"
      if near then value, is_told = near:get(self.space, key) end
      if value == ABSENT then value = nil end
      if value == nil and not is_told and keeps then
        local look = nearby.look(self, stored[i])
        call.looks[key] = look
        if look and self.shared then value, source = nearby.shared(self, look, key), "shared" end
      end
      if value ~= nil or is_told then
        call.values[key], call.sources[key] = value, source
      else
        rest[#rest + 1] = key
      end
    end
  end
  return rest
end

--- The values of many keys; those that the cache lacks are loaded by one call of the loader.
--
-- The loader is called as loader(keys, ..., context) and returns a table of values by key (a key without one does not exist), or
-- nil and an error.  context.ttls[key] gives one value a ttl of its own; context.old has the older values by key, and
-- context.validators what the loader noted on them; context.not_modified() stands for an older value that is still right.
---@param keys string[]
---@param policy fpcache.Policy|table|number|string|nil as in fetch; may be left out
---@param loader fun(keys: string[], ...): table?, string?
---@param ... any for the loader
---@return table? values by key, of all that could be answered; nil when that is none of them
---@return string? err why some could neither be found nor loaded: the first reason.  These have no source
---@return table? sources by key: "near", "shared", "db", "loader" or "stale"
function Cache:fetch_many(keys, policy, loader, ...)
  if type(policy) == "function" then
    if loader == nil and select("#", ...) == 0 then return self:fetch_many(keys, policies.DEFAULT, policy) end
    return self:fetch_many(keys, policies.DEFAULT, policy, loader, ...)
  end
  policy = policies.of(policy, 2)
  fetch.check_loader(loader, 2)
  local stored, err = bulk.stored_keys(self, keys, 2) -- that they are keys
  if not stored then return nil, err end
  if self.is_transaction then return nil, fetch.NOT_IN_TRANSACTIONS end
  local count, all = select("#", ...), { ... }
  local call = {
    policy = policy, loader = loader, values = {}, sources = {}, stored = {}, looks = {}, waiters = {},
    arguments = function() return (table.unpack or unpack)(all, 1, count) end, -- luacheck: ignore 143
  }
  local rest = ask_nearby(self, call, keys, stored)
  for first = 1, #rest, BATCH_KEYS do
    local slice = {}
    for i = first, math.min(first + BATCH_KEYS - 1, #rest) do slice[#slice + 1] = rest[i] end
    if not fetch_list(self, call, slice) then break end
  end
  if call.err and next(call.sources) == nil then return nil, call.err, call.sources end
  return call.values, call.err, call.sources
end

return Cache

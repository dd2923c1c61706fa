--- fetch_many: the values of many keys; one call of the loader for all that the cache lacks.
--
-- The order of things is that of fetch, for lists: a round trip asks for all and is granted leases for those that nobody
-- loads; what was loaded is stored by one statement; for the keys that others load it asks again.
local announce = require("fpcache.announce")
local bulk = require("fpcache.bulk")
local context = require("fpcache.policy.context")
local core = require("fpcache.core")
local fetch = require("fpcache.fetch")
local flights = require("fpcache.policy.flights")
local leases = require("fpcache.policy.leases")
local lifetimes = require("fpcache.policy.lifetimes")
local limits = require("fpcache.limits")
local near_cache = require("fpcache.near")
local older = require("fpcache.policy.older")
local policies = require("fpcache.policy")
local waiting = require("fpcache.waiting")
local Cache = require("fpcache.client")

local ABSENT = near_cache.ABSENT
local COLUMNS = 11       -- of statement fetch_many
local BATCH_KEYS = 10000 -- asked for, and loaded, at a time

--- Asks the server for a list of keys.
---@return table<string, fpcache.Answer>? answers by key
---@return boolean|string is_watched_or_err whether tables are watched
local function ask(self, keys, policy)
  local batch = core.batch()
  for _, key in ipairs(keys) do
    local ok, err = batch:add(key, true, nil, nil, self.max_value_bytes) -- its keys are what counts
    if not ok then
      batch:close()
      return nil, err
    end
  end
  local share, times
  if policy.refresh_ahead or policy.beta then share, times = lifetimes.early(policy) end
  local rows, count = self.db:rows(self.statements.fetch_many, self.bulk_timeout, self.space, batch, policy.hard_timeout,
    share, times, policy.tags)
  batch:close()
  if not rows then return nil, count end
  local answers, is_watched = {}, false
  for row = 0, count - 1 do
    local at = row * COLUMNS
    local stored = limits.stored_key(rows[at + 1], self.max_key_bytes, 2)
    local answer, err = leases.read(self, stored, rows[at + 2], rows[at + 3], rows[at + 4], rows[at + 5], rows[at + 6],
      rows[at + 7], rows[at + 8], rows[at + 9], rows[at + 10])
    if not answer then return nil, err end
    answers[rows[at + 1]], is_watched = answer, rows[at + 11]
  end
  return answers, is_watched
end

--- Keeps a hit in the near cache.
local function keep(self, call, key, answer)
  local stamp = call.stamps[key]
  if not stamp then return end
  if answer.value == nil then
    if answer.is_absent then self.near:put_absent(self.space, key, call.asked_at, call.spots[key], stamp, answer.kept) end
    return
  end
  local seconds = lifetimes.near(call.policy, answer.left, answer.age, answer.cost)
  if seconds ~= 0 then
    self.near:put(self.space, key, answer.value, answer.bytes, call.asked_at, seconds, call.spots[key], stamp, answer.left)
  end
end

--- A batch of what was loaded, and the keys of what does not exist.  A value that cannot be stored is only given back.
local function sort_out(self, call, keys, loaded, given)
  local batch, absent, unstorable = core.batch(), {}, {}
  for _, key in ipairs(keys) do
    local value = loaded[key]
    if value == nil then
      absent[#absent + 1] = key
    else
      local ttl = given.ttls[key]
      local ok, err = batch:add(key, value, lifetimes.of_value(call.policy, ttl and { ttl = ttl } or given), self.codec,
        self.max_value_bytes)
      if not ok then
        unstorable[#unstorable + 1] = key
        self.flow.last_error = err
      end
    end
  end
  return batch, absent, unstorable
end

local function run_for_keys(self, statement, keys, seconds, fence)
  if #keys == 0 then return end
  local stored = bulk.stored_keys(self, keys, 3)
  local rows, err = self.db:run(self.statements[statement], self.bulk_timeout, self.space, stored, seconds, fence)
  if rows or not announce.is_surely_undone(err) then self.feed:wrote_keys(self.seed, stored) end
  if not rows then self.flow.breaker:failed(err) end
end

--- Stores what was loaded under a lease.
local function store(self, call, keys, fence, loaded, given, took)
  local policy = call.policy
  local batch, absent, unstorable = sort_out(self, call, keys, loaded, given)
  if batch:rows() > 0 then
    local tags = context.tags(given, policy)
    local found, rows = self.db:row(self.statements[tags and "fetch_store_many_tagged" or "fetch_store_many"],
      self.bulk_timeout, self.space, batch, given.stale_ttl or policy.stale_ttl, took, fence, tags)
    local err = not found and rows
    if found or not announce.is_surely_undone(err) then self.feed:wrote_batch(self.seed, batch) end
    if found then
      self.flow.counts.overtaken = self.flow.counts.overtaken + batch:rows() - rows
    else
      self.flow.breaker:failed(err)
    end
  end
  batch:close()
  run_for_keys(self, "fetch_absent_many", absent, given.negative_ttl or policy.negative_ttl, fence)
  run_for_keys(self, "fetch_release_many", unstorable, 0, fence)
end

--- What to give where loading failed: older values; nil when there is none for some key.
local function old_values(call, keys, answers)
  local found = {}
  for _, key in ipairs(keys) do
    local answer = answers and answers[key]
    local value = answer and answer.value
    if value == nil or answer and answer.is_stale and not call.policy.stale_ttl then return nil end
    found[key] = value
  end
  return found
end

--- Of keys with a lease those under which what is loaded may be stored: no transaction of a watched table is changing them.
local function storable(self, policy, keys, fence)
  local stored = bulk.stored_keys(self, keys, 3)
  local marked, err = self.db:rows(self.statements.fetch_marked, self.bulk_timeout, self.space, stored, policy.tags)
  if not marked then
    self.flow.breaker:failed(err)
    return {}
  end
  if #marked == 0 then return keys end
  local is_marked, free, taken = {}, {}, {}
  for _, key in ipairs(marked) do is_marked[key] = true end
  for i, key in ipairs(keys) do
    local list = is_marked[stored[i]] and taken or free
    list[#list + 1] = key
  end
  run_for_keys(self, "fetch_release_many", taken, 0, fence)
  return free
end

--- Calls the loader for a list of keys and gives what it loaded to the caller, and with a fence to the server.
---@return boolean? ok, string? err
local function load(self, call, keys, fence, answers)
  local flow, policy = self.flow, call.policy
  local old = {}
  for _, key in ipairs(keys) do old[key] = answers and answers[key] and answers[key].value end
  local given = context.new(nil, policy, old)
  local leased = call.is_watched and fence and storable(self, policy, keys, fence) or keys
  flow.counts.loads = flow.counts.loads + 1
  local ok, loaded, took = context.load(call.loader, given, keys, call.arguments())
  if ok and type(loaded) ~= "table" then
    ok, loaded = false, ("loader: a table of values by key is expected, got %s"):format(type(loaded))
  end
  for _, key in ipairs(answers and keys or {}) do
    if answers[key] and answers[key].is_remembered then older.loaded(self, policy, key, ok, ok and loaded[key]) end
  end
  if not ok then
    flow.counts.load_failures, flow.last_error = flow.counts.load_failures + 1, loaded
    local found = old_values(call, keys, answers)
    if fence then run_for_keys(self, "fetch_release_many", leased, found and policy.error_backoff or 0, fence) end
    if not found then return nil, loaded end
    flow.counts.stale = flow.counts.stale + #keys
    for key, value in pairs(found) do call.values[key], call.sources[key] = value, "stale" end
    return true
  end
  if fence and given.store ~= false then
    store(self, call, leased, fence, loaded, given, took)
  elseif fence then
    run_for_keys(self, "fetch_release_many", leased, 0, fence)
  end
  for _, key in ipairs(keys) do call.values[key], call.sources[key] = loaded[key], "loader" end
  return true
end

--- Takes what the answers say: hits go to the caller.  Returns the keys to load, and those to ask for again.
local function take(self, call, keys, answers)
  local mine, theirs, fence = {}, {}, nil
  local counts = self.counts
  for _, key in ipairs(keys) do
    local answer = answers[key]
    if answer.granted == nil then
      call.values[key], call.sources[key] = answer.value, "db"
      counts.hits = counts.hits + 1
      keep(self, call, key, answer)
    elseif answer.granted then
      mine[#mine + 1], fence = key, answer.fence
      counts.misses = counts.misses + 1
    elseif answer.is_fresh or answer.is_stale and call.policy.stale_ttl then
      call.values[key], call.sources[key] = answer.value, answer.is_fresh and "db" or "stale"
    else
      theirs[#theirs + 1] = key
    end
  end
  return mine, theirs, fence
end

--- Loads under leases, as flights that others of this process wait for.
local function load_mine(self, call, keys, fence, answers)
  local own = {}
  for _, key in ipairs(keys) do
    local _, flight = flights.enter(self.flow.flights, self.space, (limits.stored_key(key, self.max_key_bytes, 2)))
    own[key] = flight
  end
  local called, ok, err = pcall(load, self, call, keys, fence, answers)
  for key, flight in pairs(own) do
    local value
    if called and ok then value = call.values[key] end
    flights.leave(self.flow.flights, flight, value, not called and "loader: another caller failed" or err, call.sources[key])
  end
  if not called then error(ok, 0) end
  return ok, err
end

--- Loads keys that this very task, or one that cannot go on, is loading already: to wait for that would be in vain.
---@return boolean? ok, string? err
local function load_nested(self, call, keys, outer)
  for _, flight in ipairs(outer) do
    if flight.is_nested then return nil, flights.ENDLESS end
  end
  for _, flight in ipairs(outer) do flight.is_nested = true end
  local called, ok, err = pcall(load, self, call, keys)
  for _, flight in ipairs(outer) do flight.is_nested = nil end
  if not called then error(ok, 0) end
  return ok, err
end

--- Waits for what other tasks of this process load, and loads what nobody else here can finish.
---@param deadline number of waiting.now()
---@return string[]? rest keys that others load, elsewhere
---@return string? err
local function share(self, call, keys, deadline)
  local flow, rest, nested, outer, shared = self.flow, {}, {}, {}, {}
  for _, key in ipairs(keys) do -- all before the first wait, at whose end others have ended too
    local others, is_alone, own = flights.look(flow.flights, self.space, (limits.stored_key(key, self.max_key_bytes, 2)))
    if others then
      shared[#shared + 1] = { key = key, flight = others }
    elseif is_alone then
      nested[#nested + 1], outer[#outer + 1] = key, own
    else
      rest[#rest + 1] = key
    end
  end
  for _, one in ipairs(shared) do
    flow.counts.waits = flow.counts.waits + 1
    local arrived, value, err, source = flights.wait(one.flight, call.policy, math.max(deadline - waiting.now(), 0))
    if arrived and err then return nil, err end
    if arrived then
      call.values[one.key], call.sources[one.key] = value, source
    else
      rest[#rest + 1] = one.key
    end
  end
  if #nested > 0 then
    local ok, err = load_nested(self, call, nested, outer)
    if not ok then return nil, err end
  end
  return rest
end

--- The server cannot be asked: what this process remembers, or else one call of the loader for all.
---@return boolean? ok, string? err
local function without_server(self, call, keys)
  local flow, answers, must_load = self.flow, {}, false
  flow.counts.without_server = flow.counts.without_server + 1
  for _, key in ipairs(keys) do
    local answer, is_due = older.remembered_answer(self, call.policy, key)
    answers[key] = answer
    if not answer or is_due then must_load = true end
  end
  if must_load then return load(self, call, keys, nil, answers) end
  flow.counts.stale = flow.counts.stale + #keys
  for key, answer in pairs(answers) do call.values[key], call.sources[key] = answer.value, "stale" end
  return true
end

--- Fetches a list of different keys.
---@return boolean? ok, string? err
local function fetch_list(self, call, keys)
  local flow, policy = self.flow, call.policy
  local deadline, pause = waiting.now() + policy.lock_timeout, 0.002
  while #keys > 0 do
    local answers, err
    if flow.breaker:lets_through() then
      answers, err = ask(self, keys, policy)
      if not answers then flow.breaker:failed(err) else flow.breaker:succeeded() end
    end
    call.is_watched = answers and err
    if not answers then
      if err and fetch.is_final(err) then return nil, err end
      return without_server(self, call, keys)
    end
    local mine, theirs, fence = take(self, call, keys, answers)
    if #mine > 0 then
      local ok, reason = load_mine(self, call, mine, fence, answers)
      if not ok then return nil, reason end
    end
    theirs, err = share(self, call, theirs, deadline)
    if not theirs then return nil, err end
    local left = deadline - waiting.now()
    if #theirs > 0 and (policy.lock == "process" and #mine == 0 or left <= 0) then return load(self, call, theirs) end
    if #theirs > 0 then
      waiting.sleep(math.min(pause, left))
      pause = math.min(pause * 1.5, 0.05)
    end
    keys = theirs
  end
  return true
end

--- Answers from the near cache; the rest as a list, each key once.
local function ask_nearby(self, call, keys)
  local near = call.policy.near and self.near
  local rest, seen = {}, {}
  for i = 1, #keys do
    local key = keys[i]
    if not seen[key] then
      seen[key] = true
      local value, is_told
      if near then value, is_told = near:get(self.space, key) end
      if is_told then
        call.sources[key] = "near"
      elseif value ~= nil and value ~= ABSENT then
        call.values[key], call.sources[key] = value, "near"
      else
        rest[#rest + 1] = key
      end
    end
  end
  if near then
    local stored = bulk.stored_keys(self, rest, 3)
    for i, key in ipairs(rest) do
      local _, spot, stamp = self.feed:look(self.seed, stored[i])
      call.spots[key], call.stamps[key] = spot, stamp
    end
    call.asked_at = near.now()
  end
  return rest
end

--- The values of many keys; those that the cache lacks are loaded by one call of the loader.
--
-- The loader is called as loader(keys, ..., context) and returns a table of values by key (a key without one does not exist), or
-- nil and an error.  context.ttls[key] gives one value a ttl of its own; context.old has the older values by key.
---@param keys string[]
---@param policy fpcache.Policy|table|number|string|nil as in fetch; may be left out
---@param loader fun(keys: string[], ...): table?, string?
---@param ... any for the loader
---@return table? values by key
---@return string? err when some could neither be found nor loaded
---@return table? sources by key: "near", "db", "loader" or "stale"
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
    policy = policy, loader = loader, values = {}, sources = {}, spots = {}, stamps = {},
    arguments = function() return (table.unpack or unpack)(all, 1, count) end, -- luacheck: ignore 143
  }
  local rest = ask_nearby(self, call, keys)
  for first = 1, #rest, BATCH_KEYS do
    local slice = {}
    for i = first, math.min(first + BATCH_KEYS - 1, #rest) do slice[#slice + 1] = rest[i] end
    local ok, reason = fetch_list(self, call, slice)
    if not ok then return nil, reason, call.sources end
  end
  return call.values, nil, call.sources
end

return Cache

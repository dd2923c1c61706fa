--- One loading of many keys: the loader is called once, and what it says of each becomes an entry, a mark of absence, or nothing.
local cancelled = require("fpcache.policy.cancelled")
local context = require("fpcache.policy.context")
local core = require("fpcache.core")
local leases_many = require("fpcache.policy.leases_many")
local lifetimes = require("fpcache.policy.lifetimes")
local older = require("fpcache.policy.older")
local outcomes = require("fpcache.policy.outcomes")

local NOT_MODIFIED = context.NOT_MODIFIED

local loading_many = {}

---@class fpcache.Loaded
---@field values table<string, any>
---@field sources table<string, string> of each key that was answered: "loader"; or of an older value "db" or "stale"
---@field err string? why the others were not

--- What the loader is told.
local function new_context(policy, keys, answers)
  local old, validators, has_all = {}, {}, true
  for _, key in ipairs(keys) do
    local answer = answers and answers[key]
    if answer and answer.value ~= nil then
      old[key], validators[key] = answer.value, answer.validator
    else
      has_all = false
    end
  end
  return context.new_for_many(policy, old, validators, has_all)
end

--- Keys that could not be loaded: what is given instead, and for how long nobody tries again.
local function fail(self, call, keys, fence, answers, err, result)
  local flow, with_old, without = self.flow, {}, {}
  flow.counts.load_failures, flow.last_error = flow.counts.load_failures + 1, err
  for _, key in ipairs(keys) do
    local value, source = older.after_failure(call.policy, answers and answers[key])
    if value == nil then
      without[#without + 1], result.err = key, result.err or err
    else
      with_old[#with_old + 1] = key
      result.values[key], result.sources[key] = value, source
      if source == "stale" then flow.counts.stale = flow.counts.stale + 1 end
    end
  end
  if not fence then return end
  local mark = not cancelled.is_reason(err) and outcomes.mark_many(self, "failed", fence, err) or nil
  leases_many.release(self, with_old, fence, call.policy.error_backoff, mark)
  leases_many.release(self, without, fence, 0, mark)
end

--- A batch of keys of which each has its own life, and the keys that fit into one.  Of those of `renewed` no value is sent.
local function new_batch(self, policy, keys, loaded, given, renewed, unstorable)
  local batch, taken = core.batch(), {}
  for _, key in ipairs(keys) do
    local ttl, value, codec = given.ttls[key], true, nil
    if not renewed then value, codec = loaded[key], self.codec end
    local ok, err = batch:add(key, value, (lifetimes.of_value(policy, ttl and { ttl = ttl } or given)), codec,
      self.max_value_bytes)
    local list = ok and taken or unstorable
    list[#list + 1] = key
    if not ok then self.flow.last_error = err end
  end
  return batch, taken
end

--- The tags of what was loaded; what is not modified keeps its own where the loader names none.
local function tags_of(policy, given, is_renewed)
  if is_renewed then return given.tags end
  return context.tags(given, policy)
end

--- Stores what was loaded under a lease.
local function store(self, call, sorted, fence, loaded, given, took)
  local policy, unstorable = call.policy, {}
  for _, is_renewed in ipairs { false, true } do
    local keys = is_renewed and sorted.renewed or sorted.new
    local batch
    batch, keys = new_batch(self, policy, keys, loaded, given, is_renewed, unstorable)
    leases_many.store(self, batch, keys, {
      stale_ttl = given.stale_ttl or policy.stale_ttl, cost = took, fence = fence, validators = given.validators,
      is_renewed = is_renewed, tags = tags_of(policy, given, is_renewed),
    })
    batch:close()
  end
  local negative_ttl = given.negative_ttl or policy.negative_ttl
  local mark = not negative_ttl and outcomes.mark_many(self, "none", fence) or nil
  leases_many.store_absent(self, sorted.absent, negative_ttl, fence, mark, context.tags(given, policy))
  leases_many.release(self, unstorable, fence, 0, outcomes.mark_many(self, "alone", fence))
end

--- What the loader said of the keys: whether it is new, not modified, or that there is none.
local function sort_out(keys, loaded)
  local sorted = { new = {}, renewed = {}, absent = {} }
  for _, key in ipairs(keys) do
    local value = loaded[key]
    local list = value == nil and sorted.absent or value == NOT_MODIFIED and sorted.renewed or sorted.new
    list[#list + 1] = key
  end
  return sorted
end

--- Splits off the keys of which the loader says in vain that they are not modified.
local function split(keys, loaded, old)
  local good, vain = {}, {}
  for _, key in ipairs(keys) do
    local list = loaded[key] == NOT_MODIFIED and old[key] == nil and vain or good
    list[#list + 1] = key
  end
  return good, vain
end

--- Calls the loader and stores what it gives.
---@param self fpcache.Cache
---@param call table of fetch_many
---@param keys string[]
---@param fence integer? of their leases; nil: nothing is stored
---@param answers table<string, fpcache.Answer>? what the server said
---@return fpcache.Loaded
function loading_many.run(self, call, keys, fence, answers)
  local policy, result = call.policy, { values = {}, sources = {} }
  local leased = keys
  if fence and call.is_watched then leased = leases_many.storable(self, policy, keys, fence) end
  local given = new_context(policy, keys, answers)
  local old = {} -- the loader's own is the loader's
  for key, value in pairs(given.old) do old[key] = value end
  self.flow.counts.loads = self.flow.counts.loads + 1
  local ok, loaded, took = context.load(call.loader, given, keys, call.arguments())
  if ok and loaded == NOT_MODIFIED then
    loaded = {}
    for _, key in ipairs(keys) do loaded[key] = NOT_MODIFIED end
  elseif ok and type(loaded) ~= "table" then
    ok, loaded = false, ("loader: a table of values by key is expected, got %s"):format(type(loaded))
  end
  for _, key in ipairs(keys) do
    local answer = answers and answers[key]
    if answer and answer.is_remembered then older.loaded(self, policy, key, ok, ok and loaded[key]) end
  end
  if fence and self.flow.breaker:is_open() then fence = nil end -- the server was lost meanwhile
  if not ok then
    fail(self, call, keys, fence, answers, loaded, result)
    return result
  end
  local vain
  keys, vain = split(keys, loaded, old)
  if #vain > 0 then fail(self, call, vain, fence, answers, context.NOTHING_OLD, result) end
  leased = split(leased, loaded, old)
  if fence and given.store == false then
    leases_many.release(self, leased, fence, 0, outcomes.mark_many(self, "alone", fence))
  elseif fence then
    store(self, call, sort_out(leased, loaded), fence, loaded, given, took)
  end
  for _, key in ipairs(keys) do
    local value = loaded[key]
    if value == NOT_MODIFIED then value = old[key] end
    result.values[key], result.sources[key] = value, "loader"
  end
  return result
end

return loading_many

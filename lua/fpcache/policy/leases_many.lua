--- Leases of many keys: what fetch_many asks of the server and tells it, each in one round trip (statements/policies.lua).
--
-- As in leases.lua; all leases that one question was granted have the same fence.
local announce = require("fpcache.announce")
local bulk = require("fpcache.bulk")
local cancelled = require("fpcache.policy.cancelled")
local core = require("fpcache.core")
local leases = require("fpcache.policy.leases")
local lifetimes = require("fpcache.policy.lifetimes")
local limits = require("fpcache.limits")

local leases_many = {}

local COLUMNS = 11 -- of statement fetch_many

--- A batch of keys alone.
local function batch_of(self, keys)
  local batch = core.batch()
  for _, key in ipairs(keys) do
    local ok, err = batch:add(key, true, nil, nil, self.max_value_bytes) -- its keys are what counts
    if not ok then
      batch:close()
      return nil, err
    end
  end
  return batch
end

--- Asks for a list of keys; wants the leases of those that nobody loads.
---@param self fpcache.Cache
---@param keys string[]
---@param policy fpcache.Policy
---@return table<string, fpcache.Answer>? answers by key
---@return table<string, string>|string broken_or_err errors of single values that cannot be read
---@return boolean? is_watched whether tables are watched
function leases_many.ask(self, keys, policy)
  local batch, err = batch_of(self, keys)
  if not batch then return nil, err end
  local share, times
  if policy.is_early then share, times = lifetimes.early(policy) end
  local rows, count = self.db:rows(self.statements.fetch_many, self.bulk_timeout, self.space, batch, policy.hard_timeout,
    share, times, policy.tags)
  batch:close()
  if not rows then return nil, count end
  local answers, broken, is_watched = {}, {}, false
  for row = 0, count - 1 do
    local at = row * COLUMNS
    local key = rows[at + 1]
    local stored = limits.stored_key(key, self.max_key_bytes, 2)
    answers[key], broken[key] = leases.read(self, stored, rows[at + 2], rows[at + 3], rows[at + 4], rows[at + 5], rows[at + 6],
      rows[at + 7], rows[at + 8], rows[at + 9], rows[at + 10])
    is_watched = rows[at + 11]
  end
  return answers, broken, is_watched
end

--- Tells the server something of keys.
---@return integer? rows, string? err
local function run_for_keys(self, statement, keys, seconds, fence, mark, tags)
  local stored = bulk.stored_keys(self, keys, 3)
  local rows, err = self.db:run(self.statements[statement], self.bulk_timeout, self.space, stored, seconds, fence, mark,
    tags)
  if rows or not announce.is_surely_undone(err) then self.feed:wrote_keys(self.seed, stored) end
  return rows, err
end

--- Ends leases without values; nobody gets others for `pause` seconds.  Also in a task that is cancelled, soon.
---@param mark string? for those who wait, see outcomes.lua
function leases_many.release(self, keys, fence, pause, mark)
  if #keys == 0 then return end
  cancelled.surely(function() return run_for_keys(self, "fetch_release_many", keys, pause, fence, mark) end,
    function(err) self.flow.breaker:failed(err) end)
end

--- Notes that something could not be told; when that is because the task was cancelled, its leases end.
local function give_up(self, keys, fence, err)
  self.flow.breaker:failed(err)
  if cancelled.is_reason(err) then leases_many.release(self, keys, fence, 0) end
end

---@class fpcache.StoreMany
---@field stale_ttl number? seconds after its end that an entry may be given
---@field cost number seconds that loading took
---@field fence integer
---@field validators table<string, string> by key
---@field is_renewed boolean the values stay as they are, and live anew
---@field tags string[]? nil: none, or the older ones of what stays

--- Stores by a lease.
---@param batch userdata keys, values, ttls; of renewed entries the values do not count
---@param keys string[] of the batch
---@param o fpcache.StoreMany
function leases_many.store(self, batch, keys, o)
  if #keys == 0 then return end
  local noted, validators = {}, {}
  for i, stored in ipairs(bulk.stored_keys(self, keys, 3)) do
    local validator = o.validators[keys[i]]
    if validator then noted[#noted + 1], validators[#noted + 1] = stored, validator end
  end
  local statement = (o.is_renewed and "fetch_renew_many" or "fetch_store_many") .. (o.tags and "_tagged" or "")
  local found, rows = self.db:row(self.statements[statement], self.bulk_timeout, self.space, batch, o.stale_ttl, o.cost, o.fence,
    noted, validators, o.tags)
  local err = not found and rows
  if found or not announce.is_surely_undone(err) then self.feed:wrote_batch(self.seed, batch) end
  if found then
    self.flow.counts.overtaken = self.flow.counts.overtaken + #keys - rows
  else
    give_up(self, keys, o.fence, err)
  end
end

--- Notes that keys do not exist.
---@param seconds number? to remember it; nil: not
---@param mark string? for those who wait, see outcomes.lua
---@param tags string[]?
function leases_many.store_absent(self, keys, seconds, fence, mark, tags)
  if #keys == 0 then return end
  local rows, err = run_for_keys(self, tags and "fetch_absent_many_tagged" or "fetch_absent_many", keys, seconds, fence, mark,
    tags)
  if not rows then give_up(self, keys, fence, err) end
end

--- Prolongs entries.
---@param policy fpcache.Policy
function leases_many.slide(self, keys, policy)
  if #keys == 0 then return end
  self.db:run(self.statements.fetch_slide_many, self.bulk_timeout, self.space, bulk.stored_keys(self, keys, 3), policy.ttl,
    policy.stale_ttl and policy.ttl + policy.stale_ttl)
end

--- Of keys with a lease those under which what is loaded may be stored: no transaction of a watched table is changing them.
---@return string[] keys
function leases_many.storable(self, policy, keys, fence)
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
  leases_many.release(self, taken, fence, 0)
  return free
end

return leases_many

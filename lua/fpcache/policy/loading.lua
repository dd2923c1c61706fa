--- One loading: the loader is called, and what it says becomes an entry, a mark of absence, or nothing.
local context = require("fpcache.policy.context")
local core = require("fpcache.core")
local leases = require("fpcache.policy.leases")
local lifetimes = require("fpcache.policy.lifetimes")
local remembered = require("fpcache.policy.remembered")

local loading = {}

local FOREVER = 1e10 -- seconds, for what math.huge means in a mark of absence

--- Bytes and format as they are stored.
---@return string? bytes, string format_or_err
function loading.encode(self, value, stored)
  local bytes, format = core.value_encode(value, self.codec, stored)
  if bytes and #bytes > self.max_value_bytes then
    return nil, ("invalid: a value of %d bytes exceeds max_value_bytes (%d)"):format(#bytes, self.max_value_bytes)
  end
  return bytes, format
end

--- Stores what was loaded.
---@return boolean? stored, string? err
local function store(self, call, fence, value, given, cost)
  local policy = call.policy
  if value == nil then
    local negative_ttl = given.negative_ttl or policy.negative_ttl
    if negative_ttl == math.huge then negative_ttl = FOREVER end
    return leases.store(self, call.stored, fence, "", "a", -1, negative_ttl, nil, nil, given.tags or policy.tags)
  end
  local ttl, stale_ttl = lifetimes.of_value(policy, given)
  local kept = ttl and stale_ttl and ttl + stale_ttl
  local bytes, format
  local tags = given.tags
  if value ~= context.NOT_MODIFIED then
    tags = tags or policy.tags
    bytes, format = loading.encode(self, value, call.stored)
    if not bytes then
      leases.release(self, call.stored, fence, 0)
      return nil, format
    end
  end
  return leases.store(self, call.stored, fence, bytes, format, ttl, kept, cost, given.validator, tags)
end

local function note(self, err)
  local flow = self.flow
  flow.last_error = err
  flow.breaker:failed(err)
end

--- Calls the loader and stores what it gives.
---@param call table of fetch
---@param fence integer? the lease; nil: nothing is stored
---@param answer fpcache.Answer? what the server said
---@return any value, string? err, string source, string? why
function loading.run(self, call, fence, answer)
  local flow, policy = self.flow, call.policy
  local counts = flow.counts
  local old, validator
  if answer and (answer.is_fresh or answer.is_stale) then old, validator = answer.value, answer.validator end
  local given = context.new(call.key, policy, old, validator)
  counts.loads = counts.loads + 1
  local ok, value, took, traceback = context.load(call.loader, given, call.arguments())
  if answer and answer.is_remembered then remembered.loaded(self, policy, call.key, ok, value) end
  if not ok then
    counts.load_failures = counts.load_failures + 1
    flow.last_error = value
    if fence then
      local released, err = leases.release(self, call.stored, fence, old ~= nil and policy.error_backoff or 0)
      if released == nil then note(self, err) end
    end
    if old == nil or answer.is_stale and not policy.stale_ttl then return nil, value, "loader", traceback end
    if answer.is_fresh then return old, nil, "db", value end
    counts.stale = counts.stale + 1
    return old, nil, "stale", value
  end
  local why
  if fence and given.store == false then
    local released, err = leases.release(self, call.stored, fence, 0)
    if released == nil then note(self, err) end
  elseif fence then
    local stored, err = store(self, call, fence, value, given, took)
    if stored == nil then
      note(self, err)
      why = err
    elseif not stored then
      counts.overtaken = counts.overtaken + 1
    end
  end
  if value == context.NOT_MODIFIED then value = old end
  return value, nil, "loader", why
end

return loading

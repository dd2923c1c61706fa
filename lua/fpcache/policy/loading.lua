--- One loading: the loader is called, and what it says becomes an entry, a mark of absence, or nothing.
local cancelled = require("fpcache.policy.cancelled")
local context = require("fpcache.policy.context")
local core = require("fpcache.core")
local leases = require("fpcache.policy.leases")
local lifetimes = require("fpcache.policy.lifetimes")
local older = require("fpcache.policy.older")
local outcomes = require("fpcache.policy.outcomes")

local loading = {}

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
    return leases.store(self, call.stored, fence, "", "a", -1, negative_ttl, nil,
      not negative_ttl and outcomes.mark(self, call.stored, "none", fence) or nil, context.tags(given, policy))
  end
  local ttl, stale_ttl = lifetimes.of_value(policy, given)
  local kept = ttl and stale_ttl and ttl + stale_ttl
  local bytes, format
  local tags = given.tags -- of what is not modified: nil, they stay as they are
  if value ~= context.NOT_MODIFIED then
    tags = context.tags(given, policy)
    bytes, format = loading.encode(self, value, call.stored)
    if not bytes then return nil, format end
  end
  return leases.store(self, call.stored, fence, bytes, format, ttl, kept, cost, given.validator, tags)
end

--- Ends the lease: nobody gets another for `pause` seconds, and who waits is told why, unless that concerns this caller alone.
local function release(self, call, fence, pause, outcome, reason)
  local is_news = not cancelled.is_reason(reason)
  leases.release(self, call.stored, fence, pause, is_news and outcomes.mark(self, call.stored, outcome, fence, reason) or nil)
end

-- Errors after which the lease cannot be ended either: to try would cost another wait.
local LOST = { connect = true, auth = true, timeout = true, busy = true, unknown = true, closed = true }

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
  local why
  if fence and flow.breaker:is_open() then fence, why = nil, flow.breaker.last_error end -- the server was lost meanwhile
  if answer and answer.is_remembered then older.loaded(self, policy, call.key, ok, value) end
  if not ok then
    counts.load_failures = counts.load_failures + 1
    flow.last_error = value
    local given_old, source = older.after_failure(policy, answer)
    if fence then release(self, call, fence, given_old ~= nil and policy.error_backoff or 0, "failed", value) end
    if given_old == nil then return nil, value, "loader", traceback end
    if source == "stale" then counts.stale = counts.stale + 1 end
    return given_old, nil, source, value
  end
  if fence and given.store == false then
    release(self, call, fence, 0, "alone")
  elseif fence then
    local stored, err = store(self, call, fence, value, given, took)
    if stored == nil then
      leases.note(self, err)
      why = err
      if not LOST[err:match("^(%l+):")] then release(self, call, fence, 0, "alone", err) end -- who waits for it waits in vain
    elseif not stored then
      counts.overtaken = counts.overtaken + 1
    end
  end
  if value == context.NOT_MODIFIED then value = old end
  return value, nil, "loader", why
end

return loading

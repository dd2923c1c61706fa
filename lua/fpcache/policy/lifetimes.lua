--- How long what was loaded lives, and when it is loaded anew before that: ttl, jitter, stale_ttl, refresh_ahead, beta.
local chance = require("fpcache.policy.chance")

local lifetimes = {}

-- A sliding entry is prolonged by a read at the server once so much of its ttl is over; the near cache keeps it for no longer.
lifetimes.SLIDE_SHARE = 0.25
-- Seconds that a lease lasts where a policy does not say it.  The statements of such policies name it themselves.
lifetimes.USUAL_LEASE = 10

--- Seconds to live of a value; nil: without end.
---@param policy fpcache.Policy
---@param context table what the loader asked for goes first, and unchanged
---@return number? ttl, number? stale_ttl
function lifetimes.of_value(policy, context)
  if context.ttl ~= nil then
    if context.ttl == math.huge then return nil end
    return context.ttl, context.stale_ttl or policy.stale_ttl
  end
  local ttl = policy.ttl
  if not ttl then return nil end
  if policy.jitter > 0 then ttl = ttl * (1 - policy.jitter * chance.draw()) end
  return ttl, context.stale_ttl or policy.stale_ttl
end

--- What the server needs to say that a living entry is to be loaded anew.
---@param policy fpcache.Policy
---@return number? share of its life that is left then
---@return number? times its cost of loading that are left then; drawn for each lookup
function lifetimes.early(policy)
  local share, times = policy.refresh_ahead, policy.beta
  if share then share = 1 - share end
  if times then times = times * -math.log(chance.draw()) end
  return share, times
end

--- Whether a read is to prolong an entry: enough of its life is over.
---@param policy fpcache.Policy with sliding
---@param left number seconds it lives; -1: without end
---@return boolean
function lifetimes.slides(policy, left)
  return left > 0 and left < policy.ttl * (1 - lifetimes.SLIDE_SHARE)
end

--- How long the near cache may keep an entry: not into the time in which it is to be loaded anew.  Of a beta the chance is
-- drawn here once, for all hits of the near cache together.
---@param policy fpcache.Policy
---@param left number seconds it lives; -1: without end
---@param age number
---@param load_seconds number?
---@return number seconds 0 or less: not at all; -1 as above when without end
function lifetimes.near(policy, left, age, load_seconds)
  if left < 0 then return left end
  local keep = left
  if policy.sliding then keep = math.min(keep, policy.ttl * lifetimes.SLIDE_SHARE) end
  local share, times = lifetimes.early(policy)
  if share then keep = math.min(keep, left - share * (left + age)) end
  if times and load_seconds then keep = math.min(keep, left - times * load_seconds) end
  return math.max(keep, 0)
end

return lifetimes

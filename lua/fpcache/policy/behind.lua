--- Loading in the background: the caller gets an older value meanwhile, or waits no longer than he wants to.
local waiting = require("fpcache.waiting")

local behind = {}

--- Has a loading run in the background and waits for its end: where there is an older value for soft_timeout, or not at all; else
-- for hard_timeout, if the policy names it.
---@param policy fpcache.Policy
---@param has_old boolean
---@param run function must not raise
---@param is_done fun(): any
---@param begun function called before the wait
---@return boolean? done false: it goes on; nil: nothing was begun, there is no background here
---@return string? err "interrupted: ..." when it goes on because the caller's task was cancelled
function behind.run(policy, has_old, run, is_done, begun)
  if not has_old and not policy.stops_waiting then return nil end
  if not (policy.background or waiting.background)(run) then return nil end
  begun()
  local patience = has_old and (policy.soft_timeout or 0) or policy.hard_timeout
  local _, err
  if patience > 0 then _, err = waiting.poll(patience, is_done) end
  if is_done() then return true end
  return false, err
end

--- What a caller is told who has waited for hard_timeout.
---@param policy fpcache.Policy
---@return string err
function behind.too_late(policy)
  return ("timeout: loading took longer than hard_timeout (%g s); it goes on"):format(policy.hard_timeout)
end

return behind

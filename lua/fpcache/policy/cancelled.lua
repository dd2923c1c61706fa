--- What a task leaves undone that is cancelled.
local waiting = require("fpcache.waiting")

local cancelled = {}

--- Whether something failed because the task it was asked in was cancelled: that one can ask nothing more.
---@param err any
---@return boolean
function cancelled.is_reason(err) return type(err) == "string" and err:find("^interrupted:") ~= nil end

--- Does what has to be done also when the caller's task is cancelled: then once more, in the background.
---@param run fun(): any, string? answers nil and an error when it was not done; repeatable
---@param failed? fun(err: string)
function cancelled.surely(run, failed)
  local function try()
    local answer, err = run()
    return answer == nil and (err or "unknown: it was not done") or nil
  end
  local function try_again()
    local err = try()
    if err and failed then failed(err) end
  end
  local err = try()
  if cancelled.is_reason(err) and waiting.background(try_again) then return end
  if err and failed then failed(err) end
end

return cancelled

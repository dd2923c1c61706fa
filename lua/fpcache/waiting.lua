--- How policies wait, and do work in the background: the one place where a scheduler of coroutines plugs in.
--
-- Without a scheduler a wait blocks the whole program in short sleeps, always up to a deadline; nothing else of this
-- Lua state can run meanwhile, and there is no background.
local core = require("fpcache.core")

local waiting = {}

---@class fpcache.Scheduler
---@field sleep fun(seconds: number) lets others run for so long
---@field is_task fun(): boolean whether the caller runs in a coroutine of the scheduler, so that sleep() lets others run
---@field spawn? fun(fn: function): boolean? starts fn in a coroutine of its own, false when it could not; without it there is
-- no background
---@field now? fun(): number seconds on a clock that only goes forward

local scheduler -- nil: none

--- Has all waits go through a scheduler; nil: through none.  Returns the one before.
---@param with fpcache.Scheduler?
---@return fpcache.Scheduler? before
function waiting.plug(with)
  if with ~= nil then
    if type(with) ~= "table" or type(with.sleep) ~= "function" or type(with.is_task) ~= "function" then
      error("bad scheduler (a table with the functions sleep and is_task is expected)", 2)
    end
  end
  local before = scheduler
  scheduler = with
  return before
end

local system_now = core.system.now

--- Seconds on a clock that only goes forward.
---@return number
function waiting.now()
  local now = scheduler and scheduler.now
  if now then return now() end
  return system_now()
end

--- Whether other coroutines of this Lua state go on while the caller sleeps.
---@return boolean
function waiting.lets_others_run()
  return scheduler ~= nil and scheduler.is_task()
end

--- Sleeps, letting others run where they can.
---@param seconds number
---@return boolean? true
---@return string? err "interrupted: ..." when the task was cancelled
function waiting.sleep(seconds)
  if waiting.lets_others_run() then return scheduler.sleep(seconds) end
  core.system.sleep(seconds)
  return true
end

--- Starts `fn` in the background.
---@param fn function
---@return boolean started false when there is no background here: the caller does it himself, or leaves it
function waiting.background(fn)
  if not (scheduler and scheduler.spawn and scheduler.is_task()) then return false end
  return scheduler.spawn(fn) ~= false
end

local FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.002, 0.05, 1.5 -- seconds

--- Asks `check` again and again, with pauses that grow, until it answers something or the time is over.
---@param seconds number
---@param check fun(): any nil or false: not yet
---@return any answer nil when the time was over, or the task was cancelled
---@return string? err "interrupted: ..." when it was cancelled
function waiting.poll(seconds, check)
  local deadline, pause = waiting.now() + seconds, FIRST_PAUSE
  while true do
    local left = deadline - waiting.now()
    if left <= 0 then return nil end
    local _, err = waiting.sleep(math.min(pause, left))
    local answer = check()
    if answer then return answer end
    if err then return nil, err end -- it would not sleep again
    pause = math.min(pause * GROWTH, LONGEST_PAUSE)
  end
end

return waiting

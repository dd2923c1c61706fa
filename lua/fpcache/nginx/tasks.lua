--- Tasks inside nginx: light threads, with the names and results of scheduler.lua.
--
-- A light thread ends with the request that started it, as all of nginx's do.
local phases = require("fpcache.nginx.phases")
local semaphore = require("ngx.semaphore")

local pack = table.pack or function(...) return { n = select("#", ...), ... } end
local unpack = table.unpack or unpack -- luacheck: ignore 143

local tasks = {}

local CANCELLED = "interrupted: the task was cancelled"
local LONGEST_PAUSE = 0.001 -- seconds; a shorter one keeps unpatched nginx from its other work

local Task = {} -- marks what spawn() made

local function finish(task, ok, ...)
  if task.status == "done" then return end
  task.status = "done"
  if ok then task.results = pack(...) else task.results = { n = 2, nil, "raised: " .. tostring((...)) } end
  if task.waiters > 0 then task.ended:post(task.waiters) end
end

--- Starts fn(...) in a light thread, at once: it runs until it waits for the first time.
---@param fn fun(...): ...
---@return fpcache.Task
function tasks.spawn(fn, ...)
  if type(fn) ~= "function" then error(("bad fn (function expected, got %s)"):format(type(fn)), 2) end
  if not phases.can_wait() then
    error(("fpcache.spawn is not for nginx's phase %s, in which nothing can wait"):format(phases.name()), 2)
  end
  local task = setmetatable({ status = "waiting", waiters = 0, ended = semaphore.new(0) }, Task)
  local arguments = pack(...)
  task.thread = ngx.thread.spawn(function()
    finish(task, pcall(fn, unpack(arguments, 1, arguments.n)))
  end)
  return task
end

local function check_task(task, level)
  if getmetatable(task) ~= Task then
    error(("bad task (what fpcache.spawn returned is expected, got %s)"):format(type(task)), level + 1)
  end
end

local FOREVER = 86400 * 20 -- seconds, the most that a timer of nginx holds

--- Waits until a task is done; other requests and tasks run meanwhile.
---@param task fpcache.Task
---@param timeout number? seconds; none: as long as it takes
---@return any ... what its function returned; nil, "raised: ..." when it raised; nil, "timeout: ..."
function tasks.await(task, timeout)
  check_task(task, 2)
  if task.status ~= "done" then
    local refused = phases.refusal()
    if refused then return nil, refused end
    task.waiters = task.waiters + 1
    task.ended:wait(timeout or FOREVER)
    if task.status ~= "done" then
      task.waiters = task.waiters - 1
      return nil, "timeout: the task is not done yet"
    end
  end
  return unpack(task.results, 1, task.results.n)
end

--- Ends a task of the same request where it waits; who awaits it gets nil, "interrupted: ...".  A write under way may happen.
---@param task fpcache.Task
function tasks.cancel(task)
  check_task(task, 2)
  if task.status == "done" then return end
  ngx.thread.kill(task.thread)
  finish(task, true, nil, CANCELLED)
end

--- Lets `seconds` pass; others run meanwhile.
---@param seconds number
---@return boolean? true, string? err
function tasks.sleep(seconds)
  if type(seconds) ~= "number" then error(("bad seconds (number expected, got %s)"):format(type(seconds)), 2) end
  local refused = phases.refusal()
  if refused then return nil, refused end
  ngx.sleep(math.max(seconds, LONGEST_PAUSE))
  return true
end

--- Whether the worker ends, and nothing can be started any more: there a timer raises.
---@return boolean
function tasks.ends() return ngx.get_phase() == "exit_worker" end

--- Starts `fn` where it outlives the request: in a timer.
---@param fn function
---@return boolean started
function tasks.background(fn)
  if tasks.ends() then return false end
  local ok = ngx.timer.at(0, function() fn() end)
  return ok and true or false
end

tasks.can_wait, tasks.refusal = phases.can_wait, phases.refusal

local NOT_HERE = "invalid: nginx has its event loop; fpcache.%s is for programs without one"

--- Not for nginx.
function tasks.run() return nil, NOT_HERE:format("run") end
function tasks.step() return nil, NOT_HERE:format("step") end
function tasks.fd() return nil, NOT_HERE:format("completions_fd") end

return tasks

--- Tasks: coroutines whose cache calls yield instead of blocking.
--
-- A task runs until it waits: for an answer, a point of time, another task.  A turn (step) resumes those whose wait is over,
-- has the pipelines send what was asked for, and sleeps when nobody can run.  There is one scheduler for each Lua state.  It
-- sleeps on one descriptor (scheduler.fd), which other event loops may watch in its place.
--
-- Each wait ends by one call of resume with what the wait is to return: true, or nil and an error.
local core = require("fpcache.core")
local timers = require("fpcache.timers")

local running, yield, resume = coroutine.running, coroutine.yield, coroutine.resume
local isyieldable = coroutine.isyieldable or function() return true end
local now = core.system.now
local pack = table.pack or function(...) return { n = select("#", ...), ... } end
local unpack = table.unpack or unpack -- luacheck: ignore 143
local WAIT = {}            -- what a task of ours yields while it waits
local KICK_EVERY = 32      -- requests that are submitted before the pipeline is woken in the midst of a turn
local MAX_OUTSTANDING = 10000
local CANCELLED, INTERRUPTED = "interrupted: the task was cancelled", "interrupted: interrupted"
local TOO_LATE = "timeout: the task is not done yet"
local STUCK = "invalid: the task waits for something that cannot come"
local FORKED = "closed: the process is a fork, and its parent gets the answer"

local scheduler = {}

---@class fpcache.Task
---@field status string "ready", "waiting" or "done"

local Task = {}                                  -- marks what spawn() made
local tasks = setmetatable({}, { __mode = "k" }) -- those that are not done, by coroutine
local alive = 0                                  -- how many
local ready, first_ready, last_ready = {}, 1, 0  -- tasks to be resumed, each with what its wait returns
local requests = {}                              -- waiting tasks by the id of their request
local room, first_room, last_room = {}, 1, 0     -- tasks that could not submit because too much was on its way
local clock = timers.new()
local to_kick, submitted = {}, 0                 -- pools with requests that may not have been noticed yet
local generation = core.fork_generation()
local queue                                      -- made when it is first needed, before the first task

local function completions()
  local err
  if not queue then queue, err = core.completions(MAX_OUTSTANDING) end
  return queue, err
end

--- The task that runs now and may yield; nil outside, and where Lua cannot yield.
---@return fpcache.Task?
function scheduler.current()
  local task = tasks[running() or false]
  if task and isyieldable() then return task end
end

-- --- waiting ---

--- The task is to go on, its wait returning these two.
local function wake(task, value, err)
  task.status, task.value, task.err = "ready", value, err
  last_ready = last_ready + 1
  ready[last_ready] = task
end

--- Waits in this task until it is woken.  `stop` undoes the wait when it is cancelled.
local function wait(task, stop)
  task.status, task.stop = "waiting", stop
  return yield(WAIT)
end

--- What a cancelled task waits for: nothing, but others run meanwhile, lest one that does not listen stops them all.
local function refuse(task)
  wake(task, nil, CANCELLED)
  return yield(WAIT)
end

--- Ends the wait of a task from outside.
local function break_off(task, value, err)
  if task.status ~= "waiting" then return end
  if task.stop then task:stop() end
  wake(task, value, err)
end

local function finish(task, ok, ...)
  if ok and coroutine.status(task.co) ~= "dead" then
    if (...) ~= WAIT then wake(task) end -- a yield of the task's own: let others run, then go on
    return
  end
  tasks[task.co] = nil -- LuaJIT would keep both: a weak key does not go while its value leads to it
  task.status, task.co = "done", nil
  alive = alive - 1
  task.results = ok and pack(...) or { n = 2, nil, "raised: " .. tostring((...)) }
  if not ok then task.raised = (...) end
  for i = 1, #task.waiters do wake(task.waiters[i], true) end
  task.waiters = {}
end

local function run(task, ...)
  task.status, task.stop = "running", nil
  finish(task, resume(task.co, ...))
end

-- --- tasks ---

--- Starts a task: fn(...) will run at the next turn, in a coroutine of its own.
---@param fn fun(...): ...
---@return fpcache.Task? task
---@return string? err "memory: ..." when there is no descriptor left for the first one of a Lua state
function scheduler.spawn(fn, ...)
  if type(fn) ~= "function" then error(("bad fn (function expected, got %s)"):format(type(fn)), 2) end
  local answers, err = completions()
  if not answers then return nil, err end
  local task, arguments = setmetatable({ co = nil, waiters = {} }, Task), pack(...)
  task.co = coroutine.create(function() return fn(unpack(arguments, 1, arguments.n)) end)
  tasks[task.co] = task
  alive = alive + 1
  wake(task)
  if not scheduler.in_turn then answers:wake() end -- for who waits for the descriptor
  return task
end

local function stop_sleep(task) clock:cancel(task.timer) end

--- Lets `seconds` pass; other tasks run meanwhile.
---@param seconds number
---@return boolean? true
---@return string? err when the task was cancelled, or the program is to end
function scheduler.sleep(seconds)
  if type(seconds) ~= "number" then error(("bad seconds (number expected, got %s)"):format(type(seconds)), 2) end
  local task = scheduler.current()
  if not task then return scheduler.pass(seconds) end
  if task.cancelled then return refuse(task) end
  task.timer = clock:add(now() + seconds, task)
  return wait(task, stop_sleep)
end

--- Ends the sleep of a task early, as if its time had come; one that does not sleep is left alone.
---@param task fpcache.Task
function scheduler.rouse(task)
  if task.stop == stop_sleep then break_off(task, true) end
end

local function stop_await(task)
  local waiters = task.awaited.waiters
  if task.timer then clock:cancel(task.timer) end
  for i = #waiters, 1, -1 do
    if waiters[i] == task then table.remove(waiters, i) end
  end
end

local function check_task(task, level)
  if getmetatable(task) ~= Task then
    error(("bad task (what fpcache.spawn returned is expected, got %s)"):format(type(task)), level + 1)
  end
end

local function await_in_task(self, task, timeout)
  if self == task then return nil, "invalid: a task cannot wait for itself" end
  if self.cancelled then return refuse(self) end
  self.awaited = task
  task.waiters[#task.waiters + 1] = self
  self.timer = timeout and clock:add(now() + timeout, self)
  local ok, err = wait(self, stop_await)
  if self.timer then clock:cancel(self.timer) end
  if task.status == "done" then return true end
  stop_await(self)
  return nil, ok and TOO_LATE or err
end

--- Waits until a task is done.  Inside a task others run meanwhile; outside this drives all of them.
---@param task fpcache.Task
---@param timeout number? seconds; none: as long as it takes
---@return any ... what its function returned; nil, "raised: ..." when it raised; nil, "timeout: ..."
function scheduler.await(task, timeout)
  check_task(task, 2)
  local self, ok, err = scheduler.current(), task.status == "done", nil
  if not ok and self then
    ok, err = await_in_task(self, task, timeout)
  elseif not ok then
    ok, err = scheduler.drive(function() return task.status == "done" end, timeout)
  end
  if not ok then return nil, err end
  return unpack(task.results, 1, task.results.n)
end

--- Ends what a task waits for, now and later: its calls return nil, "interrupted: ...".  A write under way may happen.
function scheduler.cancel(task)
  check_task(task, 2)
  if task.status == "done" then return end
  task.cancelled = true
  break_off(task, nil, CANCELLED)
end

-- --- requests ---

local function stop_request(task) queue:abandon(task.request) requests[task.request] = nil end

local function stop_room(task)
  if task.timer then clock:cancel(task.timer) end
  task.wants_room = false
end

--- Waits until something that was on its way is answered.
local function wait_for_room(task, deadline)
  last_room = last_room + 1
  room[last_room] = task
  task.wants_room = true
  task.timer = clock:add(deadline, task)
  local _, err = wait(task, stop_room)
  stop_room(task)
  return err
end

local function give_room()
  while first_room <= last_room do
    local task = room[first_room]
    room[first_room], first_room = nil, first_room + 1
    if task.wants_room then
      stop_room(task)
      return wake(task, true)
    end
  end
end

local function kick()
  for pool in next, to_kick do
    pool:kick()
    to_kick[pool] = nil
  end
  submitted = 0
end

--- Sends a statement and waits for its answer, which is to be taken at once from the queue that this returns.
---@param task fpcache.Task the current one
---@param pool userdata
---@param timeout number seconds
---@return userdata? queue
---@return string? err
function scheduler.request(task, pool, statement, timeout, ...)
  if task.cancelled then return refuse(task) end
  local deadline
  while true do
    local id, err = pool:submit(queue, statement, timeout, ...)
    if id then
      requests[id], task.request = task, id
      break
    end
    deadline = deadline or now() + timeout
    timeout = deadline - now()
    if not err:find("^busy:") or timeout <= 0 or (last_room < first_room and queue:outstanding() == 0) then
      return nil, err
    end
    err = wait_for_room(task, deadline)
    if err then return nil, err end
  end
  to_kick[pool] = true
  submitted = submitted + 1
  if submitted >= KICK_EVERY then kick() end
  local ok, err = wait(task, stop_request)
  return ok and queue, err
end

-- --- turns ---

local function break_off_all(err)
  for _, task in next, tasks do break_off(task, nil, err) end
end

--- What the parent process asked for is answered to the parent.
local function check_fork()
  local current = core.fork_generation()
  if current == generation then return end
  generation = current
  for id, task in next, requests do
    requests[id] = nil
    wake(task, nil, FORKED)
  end
end

--- Resumes whose answer has come.
local function resume_answered()
  local next_id = queue.next
  while true do
    local id = next_id(queue)
    if not id then return end
    local task = requests[id]
    requests[id] = nil
    if first_room <= last_room then give_room() end
    run(task, true)
  end
end

local function resume_ready()
  for _ = first_ready, last_ready do -- not those that become ready meanwhile: answers come first
    local task = ready[first_ready]
    ready[first_ready], first_ready = nil, first_ready + 1
    if first_ready > last_ready then first_ready, last_ready = 1, 0 end
    local value, err = task.value, task.err
    task.value, task.err = nil, nil
    run(task, value, err)
  end
end

local function wake_due()
  if clock.count == 0 then return end
  local at = now()
  while true do
    local task = clock:due(at)
    if not task then return end
    task.timer = nil
    if task.status == "waiting" then wake(task, true) end
  end
end

--- One turn.
---@return number pause seconds until somebody can go on without an answer: 0 now, math.huge never
local function turn()
  local was_in_turn = scheduler.in_turn
  check_fork()
  if core.interrupted() then break_off_all(INTERRUPTED) end
  scheduler.in_turn = true
  wake_due()
  resume_answered()
  resume_ready()
  kick()
  scheduler.in_turn = was_in_turn
  if first_ready <= last_ready then return 0 end
  local at = clock:next()
  return at and math.max(at - now(), 0) or math.huge
end

--- Sleeps until an answer comes, at most so many seconds.
---@return string? err when the program is to end: then all waits have been ended
local function doze(seconds)
  local ok, err = queue:wait(seconds)
  if ok or not err:find("^interrupted:") then return nil end
  break_off_all(err)
  return err
end

--- One turn: resumes the tasks that can go on, then, if none can, waits for at most `timeout` seconds for one that can.
-- Another event loop calls it with 0 when scheduler.fd() is readable, and after the seconds that it returned.
---@param timeout number? default 0
---@return number? seconds until it has to be called again in any case: 0 when tasks can go on, math.huge when only the
-- descriptor tells, nil when there are no tasks
---@return string? err "interrupted: ..." when the program is to end: then all waits have been ended
function scheduler.step(timeout)
  if not queue then return nil end
  local pause, err = turn(), nil
  if timeout and timeout > 0 and pause > 0 and alive > 0 then
    err = doze(math.min(pause, timeout))
    pause = turn()
  end
  return alive > 0 and pause or nil, err
end

--- Takes turns until `is_done()`.
---@param is_done fun(): boolean
---@param timeout number? seconds
---@return boolean? true
---@return string? err
function scheduler.drive(is_done, timeout)
  local deadline = timeout and now() + timeout
  local failure
  while not is_done() do
    local pause = turn()
    if is_done() then break end
    if failure then return nil, failure end
    local left = deadline and deadline - now() or math.huge
    if left <= 0 then return nil, TOO_LATE end
    if pause == math.huge and next(requests) == nil then return nil, STUCK end
    if pause > 0 then failure = doze(math.min(pause, left)) end
  end
  return true
end

--- sleep() outside a task: the others run meanwhile.
function scheduler.pass(seconds)
  local deadline = now() + seconds
  while alive > 0 do
    local left = deadline - now()
    if left <= 0 then return true end
    local _, err = scheduler.step(left)
    if err then return nil, err end
  end
  local answers, err = completions()
  err = answers and doze(deadline - now()) or err
  return not err or nil, err
end

--- Runs all tasks to their end.
---@return boolean? true, string? err
function scheduler.run() return scheduler.drive(function() return alive == 0 end) end

--- The descriptor that is readable while answers may be there, for poll(2) in other event loops: not to be read, always the same.
---@return integer? fd
---@return string? err "memory: ..." when there is no descriptor left
function scheduler.fd()
  local answers, err = completions()
  return answers and answers:fd(), err
end

return scheduler

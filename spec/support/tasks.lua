-- tasks.lua -- a small scheduler of coroutines for the specs of policies, on the real clock or on one that the spec moves.
--
--   local tasks = require("support.tasks").new()        -- or .new{ fake = true, moved = function(seconds) end }
--   tasks:spawn(function() waiting.sleep(1) end)
--   tasks:run()                                         -- until all have ended; raises what one of them raised
local core = require "fpcache.core"
local waiting = require "fpcache.waiting"

local Tasks = {}
Tasks.__index = Tasks

local tasks = {}

--- Plugs itself into fpcache.waiting; :close() takes it out again.
function tasks.new(opts)
  opts = opts or {}
  local self = setmetatable({ fake = opts.fake, moved = opts.moved, time = 1000, ready = {}, running = nil }, Tasks)
  local scheduler = {
    is_task = function() return self.running ~= nil end,
    sleep = function(seconds) coroutine.yield(self:now() + seconds) end,
    spawn = function(fn) self:spawn(fn) end,
  }
  if self.fake then scheduler.now = function() return self.time end end
  self.before = waiting.plug(scheduler)
  return self
end

function Tasks:now() return self.fake and self.time or core.system.now() end

function Tasks:spawn(fn)
  self.ready[#self.ready + 1] = { thread = coroutine.create(fn), at = 0 }
end

--- The one that wakes first.
local function take(self)
  local first
  for i, task in ipairs(self.ready) do
    if not first or task.at < self.ready[first].at then first = i end
  end
  return first and table.remove(self.ready, first)
end

function Tasks:run()
  while true do
    local task = take(self)
    if not task then return end
    local pause = task.at - self:now()
    if pause > 0 then
      if not self.fake then core.system.sleep(pause) else self.time = task.at end
      if self.moved then self.moved(pause) end
    end
    self.running = task
    local ok, at = coroutine.resume(task.thread)
    self.running = nil
    if not ok then error(debug.traceback(task.thread, tostring(at)), 0) end
    if coroutine.status(task.thread) ~= "dead" then
      task.at = at
      self.ready[#self.ready + 1] = task
    end
  end
end

--- Runs one function as a task, with all that it starts, and gives its results.
function Tasks:call(fn)
  local results
  self:spawn(function() results = { fn() } end)
  self:run()
  return (table.unpack or unpack)(results, 1, 4) -- luacheck: ignore 143
end

function Tasks:close() waiting.plug(self.before) end

return tasks

--- How a worker learns that answers are there.
--
-- The pipeline's thread cannot resume a coroutine of nginx, and nginx's Lua cannot watch a descriptor.  So a light thread
-- reads from a unix socket of this process, on which the completion queue rings (include/fpcache/bell.h); it runs as long as
-- the worker, in a timer's handler.  A second one, the kicker, runs after everything that is ready in a turn of nginx's
-- loop, and has what was submitted meanwhile sent at once.
--
-- A timer far in the future is fired by nginx when the worker is to exit: then both end once nothing is on its way.
local core = require("fpcache.core")
local semaphore = require("ngx.semaphore")

local HOUR = 3600
local DAYS = 86400 * 10         -- between two signs of life of the channel
local LONGEST_READ = 2147483000 -- ms; the channel is woken long before
local RETRY = 0.002             -- seconds between two looks for answers while there is no channel
local RECONNECT_EVERY = 0.5     -- seconds

---@class fpcache.nginx.Channel
---@field is_open boolean answers are handed out by the light thread: who waits may sleep until then
---@field is_exiting boolean
local Channel = {}
Channel.__index = Channel

local channel = {}

---@param opts { queue: userdata, drain: fun(), kick: fun(), in_flight: fun(): integer, dirs: string[] }
---@return fpcache.nginx.Channel
function channel.new(opts)
  return setmetatable({
    queue = opts.queue, drain = opts.drain, kick = opts.kick, in_flight = opts.in_flight, dirs = opts.dirs,
    is_open = false, is_exiting = false, has_kicker = false, kicks = nil, is_kick_due = false, lost = 0,
  }, Channel)
end

--- Connects to ourselves in one of the folders.
---@return table? socket, string? err
local function connect(self)
  local failures = {}
  for _, dir in ipairs(self.dirs) do
    local bell, err = core.bell(dir)
    if bell then
      local socket = ngx.socket.tcp()
      socket:settimeouts(1000, 1000, LONGEST_READ)
      local ok
      ok, err = socket:connect("unix:" .. bell:path())
      if ok then ok, err = bell:attach(self.queue) end
      bell:close()
      if ok then return socket end
    end
    failures[#failures + 1] = tostring(err)
  end
  return nil, table.concat(failures, "; ")
end

local function is_over(self) return self.is_exiting and self.in_flight() == 0 end

--- Hands out answers as the bell rings.
local function read(self, socket)
  local drain = self.drain
  drain() -- what came before the bell was attached
  while not is_over(self) do
    local bytes, err = socket:receiveany(64)
    drain()
    if not bytes and err ~= "timeout" then return end
  end
end

local function run_kicker(self)
  local kicks = self.kicks
  while not self.is_exiting do
    kicks:wait(HOUR)
    self.is_kick_due = false
    self.kick()
  end
  self.has_kicker = false
  self.kick()
end

--- The light threads, until the worker exits.
local function run(_, self)
  self.kicks, self.has_kicker = semaphore.new(0), true
  ngx.thread.spawn(run_kicker, self)
  self.is_open = true
  while not is_over(self) do
    local socket, err = connect(self)
    if socket then
      read(self, socket)
      self.queue:silence()
      socket:close()
    elseif not self.warned then
      self.warned = true
      ngx.log(ngx.WARN, "fpcache: no folder to make a socket in, so answers are looked for every ", RETRY * 1000,
        " ms (see docs/nginx.md, wake_dir): ", err)
    end
    if not is_over(self) then self.lost = self.lost + 1 end
    local until_time = core.system.now() + RECONNECT_EVERY
    while not is_over(self) and core.system.now() < until_time do
      ngx.sleep(RETRY)
      self.drain()
    end
  end
  self.is_open = false
end

--- Ends the light threads at the worker's exit; else shows that the channel lives.
local function watch_for_exit(premature, self)
  if premature or ngx.worker.exiting() then
    self.is_exiting = true
    if self.has_kicker then self.kicks:post(1) end
  else
    ngx.timer.at(DAYS, watch_for_exit, self)
  end
  self.queue:wake()
end

--- Starts it, from any phase that may start timers.
---@return boolean? true, string? err
function Channel:start()
  local ok, err = ngx.timer.at(0, run, self)
  if not ok then return nil, err end
  ok, err = ngx.timer.at(DAYS, watch_for_exit, self)
  if not ok then -- the worker is exiting already
    self.is_exiting = true
    return nil, err
  end
  return true
end

--- Has what was submitted sent at the end of this turn; false when there is nobody who does.
---@return boolean
function Channel:kick_later()
  if not self.has_kicker then return false end
  if not self.is_kick_due then
    self.is_kick_due = true
    self.kicks:post(1)
  end
  return true
end

return channel

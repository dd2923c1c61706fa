--- A private PostgreSQL: made, started and stopped by whoever needs it.
--
-- The server is a daemon: it outlives the program that started it.  Whether it runs is not asked
-- of process numbers, which are reused, but of the lock file DIR/alive: the server inherits it and
-- the kernel lets go of it when the last of the server's processes is gone.  Starting, stopping
-- and removing exclude each other by DIR/lock.  See local_server/folder.lua for the folder.
local core = require "fpcache.core"
local cluster = require "fpcache.local_server.cluster"
local folder = require "fpcache.local_server.folder"
local programs = require "fpcache.local_server.programs"
local system = core.system

local START_TIMEOUT = 60  -- seconds; a first start runs initdb
local STOP_TIMEOUT = 30   -- seconds for a fast stop, then it is an immediate one
local KILL_TIMEOUT = 10   -- seconds for an immediate stop
local POLL = 0.01         -- seconds between two looks at a starting or stopping server
local TAIL_LINES = 8      -- of each of the server's logs, in an error
local FILE_CLOCK = 0.02   -- seconds by which a file's time may lag behind the clock
local SIGINT, SIGQUIT = 2, 3 -- PostgreSQL's fast and immediate shutdown

local OPTIONS = {
  dir = "string", log = "function", on_start = "function", timeout = "number",
  settings = "table", hba = "string", sync = "boolean",
}

---@alias fpcache.OnStart fun(url: string): boolean?, string?

---@class fpcache.LocalServer
---@field dir string
local Server = {}
Server.__index = Server

local local_server = { default_dir = folder.default_dir }

local function add_tail(lines, path)
  local all = {}
  for line in (folder.read(path) or ""):gmatch("[^\n]+") do all[#all + 1] = line end
  for i = math.max(1, #all - TAIL_LINES + 1), #all do lines[#lines + 1] = "\n  " .. all[i] end
end

-- `err` and what the server wrote since `since`: first to its stderr, then to its log.
local function with_tail(self, err, since)
  local lines = {}
  add_tail(lines, self.dir .. "/log/startup.log")
  for _, name in ipairs(system.readdir(self.dir .. "/log") or {}) do
    local there = name:match("^server%-") and system.lstat(self.dir .. "/log/" .. name)
    if there and there.type == "file" and there.modified >= since - FILE_CLOCK then
      add_tail(lines, self.dir .. "/log/" .. name)
    end
  end
  if #lines == 0 then return err end
  return err .. "; the server's log ends with:" .. table.concat(lines)
end

-- The first lines of postmaster.pid: process number and "starting", "ready" or "stopping".
local function read_pid(self)
  local lines = {}
  for line in (folder.read(self.data .. "/postmaster.pid") or ""):gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  return tonumber(lines[1]), (lines[8] or ""):match("^%a*")
end

-- Whether process `pid` is a server of our cluster that somebody started by hand.
local function is_postmaster(self, pid)
  local words = pid and pid > 0 and folder.read(("/proc/%d/cmdline"):format(pid))
  return words and ("\0" .. words):find("\0" .. self.data .. "\0", 1, true) ~= nil
end

local function is_alive(self)
  if not folder.is_ours(self.dir) then return false end
  local probe, err = core.lock(self.dir .. "/alive", 0, true)
  if not probe then
    if err:match("^busy:") then return true end
    return nil, err
  end
  probe:close()
  return is_postmaster(self, (read_pid(self))) or false
end

local function is_ready(self)
  local _, state = read_pid(self)
  return state == "ready" and folder.socket_answers(folder.socket_dir(self.dir, self.account))
end

local function await_ready(self, deadline, since)
  while not is_ready(self) do
    if not is_alive(self) then
      return nil, with_tail(self, "connect: the private server ended while it started", since)
    end
    if core.interrupted() then return nil, "interrupted: the private server was starting" end
    if system.now() > deadline then
      return nil, with_tail(self, ("timeout: the private server is not ready after %g s"):format(self.timeout), since)
    end
    system.sleep(POLL)
  end
  return true
end

local function await_end(self, seconds)
  local deadline = system.now() + seconds
  while is_alive(self) do
    if system.now() > deadline or core.interrupted() then return false end
    system.sleep(POLL)
  end
  return true
end

-- The lock is held from here on, down to start().

local function stop_locked(self, mode)
  local alive, err = is_alive(self)
  if alive == nil then return nil, err end
  if not alive then return true end
  local pid = read_pid(self)
  local asked = mode ~= "immediate" and pid and system.kill(pid, SIGINT)
  if asked and await_end(self, self.stop_timeout) then return true end
  if asked and core.interrupted() then return nil, "interrupted: the private server is still stopping" end
  pid = read_pid(self)
  if pid then system.kill(pid, SIGQUIT) end
  if await_end(self, KILL_TIMEOUT) then return true end
  return nil, ("timeout: process %s of the private server in %s does not end"):format(pid or "?", self.dir)
end

local function launch(self, server, alive)
  -- We hold `alive`: no process of ours uses the data.  Lock files of PostgreSQL can only be left
  -- over from a crash or a reboot.  Their process number may be anybody's now, or a dead process
  -- that nobody has waited for, which would both stop the start.
  local pid = read_pid(self)
  if pid and not is_postmaster(self, math.abs(pid)) then
    self.log("removing the lock files of a server that did not stop cleanly")
    local ok, err = system.unlink(self.data .. "/postmaster.pid")
    if not ok then return nil, err end
    folder.remove_socket(folder.socket_dir(self.dir, self.account))
  end
  local ok, err = cluster.make_database(self, server, alive)
  if not ok then return nil, err end
  return cluster.spawn(self, server, alive)
end

local function cold_start(self, deadline)
  local version = folder.read(self.data .. "/PG_VERSION")
  local server, err = programs.find(version and tonumber(version:match("^%d+")))
  if not server then return nil, err end
  if self.account then
    self.log(("PostgreSQL refuses to run as root: the server runs as %s, in %s"):format(self.account.name, self.dir))
  end
  local ok
  if not version then
    self.log(("making a private PostgreSQL %d in %s"):format(server.major, self.dir))
    ok, err = cluster.make(self, server)
    if not ok then return nil, err end
  end
  ok, err = cluster.configure(self, server)
  if ok then ok, err = folder.write(self.dir .. "/setup-pending", "") end
  if not ok then return nil, err end

  local alive
  alive, err = core.lock(self.dir .. "/alive", KILL_TIMEOUT)
  if not alive then
    return nil, err:match("^busy:") and "busy: processes of a former server still run in " .. self.dir or err
  end
  local since = system.wall()
  ok, err = launch(self, server, alive)
  alive:close()
  if not ok then return nil, err end
  ok, err = await_ready(self, deadline, since)
  if not ok then
    stop_locked(self, "immediate")
    return nil, err
  end
  return true
end

local function start_locked(self, deadline)
  local ok, err = folder.furnish(self.dir, self.account)
  if not ok then return nil, err end
  local alive
  alive, err = is_alive(self)
  if alive == nil then return nil, err end
  if alive then
    -- Whoever started it may have died before it was ready.  It may also be unreachable for good:
    -- the postmaster was killed and its last children are still ending, or a cleaner of /tmp
    -- swept the socket away.
    local _, state = read_pid(self)
    if state == "ready" and not is_ready(self) then
      self.log("the server does not answer on its socket: starting it again")
      ok, err = stop_locked(self, "fast")
      if not ok then return nil, err end
      alive = false
    end
  end
  if alive then ok, err = await_ready(self, deadline, system.wall()) else ok, err = cold_start(self, deadline) end
  if not ok then return nil, err end

  local pending = self.dir .. "/setup-pending"
  if self.on_start and system.lstat(pending) then
    ok, err = self.on_start(self:url())
    if not ok then return nil, err or "server: the setup of the private server failed" end
    ok, err = system.unlink(pending)
    if not ok then return nil, err end
  end
  return self:url()
end

-- Calls `act` with the lock held; the lock is let go of even when it raises.
local function with_lock(self, act, ...)
  local lock, err = core.lock(self.dir .. "/lock", self.timeout)
  if not lock then
    if not err:match("^busy:") then return nil, err end
    return nil, ("timeout: another process has been starting or stopping the server in %s for %g s")
      :format(self.dir, self.timeout)
  end
  self.lock = lock
  local done, result, why = pcall(act, self, ...)
  self.lock = nil
  lock:close()
  if not done then error(result, 0) end
  return result, why
end

--- Starts the server if it does not run, making it first if it is not there, and waits until it
--- takes connections.  Several processes may start the same one at once.
---@return string? url
---@return string? err "connect: ..." (no programs, or it ended; with the tail of its log), "timeout: ...", ...
function Server:start()
  local pending = self.on_start and system.lstat(self.dir .. "/setup-pending")
  if not pending and is_alive(self) and is_ready(self) then return self:url() end
  local deadline = system.now() + self.timeout
  local url, err
  for _ = 1, 2 do -- the folder may be destroyed between the two steps; then once more
    local ok, why = folder.make(self.dir)
    if not ok then return nil, why end
    url, err = with_lock(self, start_locked, deadline)
    if url then return url end
    if system.stat(self.dir) then break end
  end
  return nil, err
end

--- Stops the server: connections are cut and all is written to disk.  When that takes too long, or
--- in mode "immediate", it just ends, which empties UNLOGGED tables.
---@param mode "fast"|"immediate"|nil default "fast"
---@return boolean? ok true also if it did not run
---@return string? err
function Server:stop(mode)
  if mode ~= nil and mode ~= "fast" and mode ~= "immediate" then
    error("mode: \"fast\" or \"immediate\" expected, got " .. tostring(mode), 2)
  end
  if not folder.is_ours(self.dir) then return true end
  return with_lock(self, stop_locked, mode or "fast")
end

--- What there is; starts nothing.
---@return {state: "running"|"stopped"|"absent", dir: string, pid: integer?, url: string?, version: integer?}? status
---@return string? err
function Server:status()
  local version = folder.read(self.data .. "/PG_VERSION")
  local alive, err = is_alive(self)
  if alive == nil then return nil, err end
  local status = { dir = self.dir, state = alive and "running" or "stopped" }
  if not alive and not system.lstat(self.data) then status.state = "absent" end
  if alive then status.pid = read_pid(self) end
  if status.state ~= "absent" then status.url = self:url() end
  status.version = version and tonumber(version:match("^%d+"))
  return status
end

--- The server's URL: where it is, or will be after a start.
---@return string
function Server:url()
  local host = folder.socket_dir(self.dir, self.account)
  host = host:gsub("[^%w%-._~]", function(byte) return ("%%%02X"):format(byte:byte()) end)
  -- With the port, so that PGPORT cannot lead elsewhere.
  return ("postgresql:///%s?host=%s&port=5432&user=%s"):format(cluster.DATABASE, host, cluster.USER)
end

--- Stops the server and removes its folder with all that is in it.  Refuses a folder that is not ours.
---@return boolean? ok true also if there was nothing
---@return string? err
function Server:destroy()
  if not system.stat(self.dir) then return true end
  if not folder.is_ours(self.dir) then
    return nil, ("invalid: %s is no private server of fpcache; nothing was removed"):format(self.dir)
  end
  return with_lock(self, function()
    local ok, err = stop_locked(self, "immediate")
    if not ok then return nil, err end
    return folder.remove(self.dir, self.account)
  end)
end

--- A private server; nothing happens before start().
---@param options? {dir: string?, timeout: number?, log: fun(line: string)?, on_start: fpcache.OnStart?}
--- dir: its folder (default default_dir()); timeout: seconds for a start, default 60; log: gets a line
--- for everything unusual; on_start: called with the URL when the server was started anew, before
--- others see it, and again at the next start if it failed.
--- For tests also: settings (name to value as in the file), hba (access rules), sync (false: no fsync before the server runs).
---@return fpcache.LocalServer? server
---@return string? err
function local_server.new(options)
  options = options or {}
  for name, value in pairs(options) do
    if not OPTIONS[name] then error("options." .. tostring(name) .. ": unknown option", 2) end
    if type(value) ~= OPTIONS[name] then
      error(("options.%s: %s expected, got %s"):format(name, OPTIONS[name], type(value)), 2)
    end
  end
  local dir, err = options.dir, nil
  if dir == "" or dir and dir:find("[%c]") then
    return nil, "invalid: the folder's name is empty or has control characters"
  end
  if not dir then dir, err = folder.default_dir() end
  if not dir then return nil, err end
  local timeout = options.timeout or START_TIMEOUT
  if not (timeout > 0 and timeout < math.huge) then
    return nil, "invalid: timeout must be a number of seconds above 0"
  end
  local account, problem = folder.account()
  if problem then return nil, problem end
  local self = setmetatable({
    dir = folder.absolute(dir), account = account, timeout = timeout, stop_timeout = STOP_TIMEOUT,
    log = options.log or function() end, on_start = options.on_start,
    settings = options.settings, hba = options.hba, sync = options.sync ~= false,
  }, Server)
  self.data = self.dir .. "/data"
  return self
end

return local_server

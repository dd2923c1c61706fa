-- nginx.lua -- a real nginx with the module under test, not as root, on a free port, gone when the process is gone.
--
--   local server = nginx.start {
--     cache = { connection_string = db:url_of() },     -- options of init_worker; false: none
--     server = [[ location = /x { content_by_lua_block { ... } } ]],
--   }
--   local answer = server:get("/x")                    -- { status, headers, body }
--   local going = server:open("/x"); ...; going:read() -- several at once
--   local load = server:load { path = "/x", connections = 16, seconds = 2 }   -- by wrk
--   server:signal("HUP"); server:workers(); server:log(); server:stop()
--
-- nginx's Lua is LuaJIT, so specs that use this run with LuaJIT's only: `if not nginx.is_testable then return end`.
local core = require "fpcache.core"
local database = require "support.database"
local files = require "support.files"
local postgres = require "support.server"
local socket = rawget(_G, "jit") and require "socket"

local system = core.system
local BUILD = os.getenv("FPC_BUILD_DIR") or "build"

local Server = {}
Server.__index = Server

local nginx = { is_testable = rawget(_G, "jit") ~= nil }

local CONF = [[
load_module %(modules)s/ndk_http_module.so;
load_module %(modules)s/ngx_http_lua_module.so;
worker_processes %(workers)d;
daemon on;
pid %(dir)s/pid;
error_log %(dir)s/error.log %(log_level)s;
worker_shutdown_timeout 20s;
%(main)s
events { worker_connections 4096; }
http {
  access_log off;
  lua_socket_log_errors on;
  client_body_temp_path %(dir)s/body;
  proxy_temp_path %(dir)s/proxy;
  fastcgi_temp_path %(dir)s/fastcgi;
  uwsgi_temp_path %(dir)s/uwsgi;
  scgi_temp_path %(dir)s/scgi;
  lua_package_path "%(dir)s/lua/?.lua;%(dir)s/lua/?/init.lua;;";
  lua_package_cpath "%(dir)s/?.so;;";
  %(init_worker)s
  %(http)s
  server {
    listen 127.0.0.1:%(port)d backlog=4096%(listen)s;
    keepalive_requests 1000000;
    location = /alive { content_by_lua_block { ngx.print(ngx.worker.pid()) } }
    location = /of-all-workers { stub_status; }
    %(server)s
  }
}
]]

local function run(...)
  local result = assert(core.run { argv = { ... } })
  assert(result.status == 0, result.output)
end

local function free_port()
  local listener = assert(socket.bind("127.0.0.1", 0))
  local _, port = listener:getsockname()
  listener:close()
  return tonumber(port)
end

--- A Lua constructor of a table of strings, numbers, booleans and such tables.
local function constructor(value)
  if type(value) ~= "table" then return type(value) == "string" and ("%q"):format(value) or tostring(value) end
  local parts = {}
  for name, field in pairs(value) do parts[#parts + 1] = ("[%s] = %s"):format(constructor(name), constructor(field)) end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function modules_folder()
  for _, dir in ipairs { "/usr/lib/nginx/modules", "/usr/lib64/nginx/modules" } do
    if system.stat(dir .. "/ngx_http_lua_module.so") then return dir end
  end
  error("nginx's Lua module is not installed (Debian: libnginx-mod-http-lua)")
end

--- Removes nginx and its folder when this process is gone, however it ends.
local function watch(dir)
  return assert(io.popen(("exec setsid sh -c 'trap \"\" HUP INT QUIT TERM; cat >/dev/null; pid=$(cat %s/pid) && " ..
    "tr \"\\0\" \" \" </proc/$pid/cmdline | grep -qF %s && kill -TERM $pid; rm -rf %s' >/dev/null 2>&1"):format(dir, dir, dir),
    "w"))
end

local function fill(template, values)
  return (template:gsub("%%%((%w+_?%w*)%)([sd])", function(name, kind) return ("%" .. kind):format(values[name]) end))
end

--- Writes nginx.conf; for a reload with another one.
function Server:configure(opts)
  local init_worker = opts.init_worker
  if opts.cache then
    local call = ('require("fpcache.nginx").init_worker %s'):format(constructor(opts.cache))
    init_worker = init_worker and call .. "\n" .. init_worker or call
  end
  local text = fill(CONF, {
    modules = modules_folder(), dir = self.dir, port = self.port, workers = opts.workers or 1, main = opts.main or "",
    http = opts.http or "", server = opts.server or "", log_level = opts.log_level or "notice",
    listen = opts.shares_out and " reuseport" or "",
    init_worker = init_worker and ("init_worker_by_lua_block {\n%s\n}"):format(init_worker) or "",
  })
  files.write(self.dir .. "/nginx.conf", text)
end

--- Runs nginx's program as the user of the test server, whose socket is for him alone; nil: as ourselves, who are not root.
local function user()
  return system.getuid() == 0 and assert(system.stat(postgres.start().host)).uid or nil
end

function Server:command(...)
  local uid = user()
  return assert(core.run { argv = { "/usr/sbin/nginx", "-p", self.dir, "-c", self.dir .. "/nginx.conf",
    "-e", self.dir .. "/error.log", ... }, uid = uid, timeout = 30 })
end

-- A location for `server` that runs the Lua it is sent, with `cache` and `fpcache`; see Server:run().
nginx.RUN = [[
  location = /run { lua_check_client_abort on; content_by_lua_block {
    ngx.req.read_body()
    local run = assert(loadstring(ngx.req.get_body_data()))
    setfenv(run, setmetatable({ cache = require("fpcache.nginx").cache(), fpcache = require("fpcache") }, { __index = _G }))
    local function say(...)
      local words = { ... }
      for i = 1, select("#", ...) do words[i] = tostring(words[i]) end
      ngx.print(table.concat(words, " "))
    end
    say(pcall(run))
  } }
]]

--- Starts one; raises when it does not answer.
-- shares_out: connections are dealt out to all workers evenly, which is not for reloads: they lose those that wait then.
---@param opts table { cache, workers, server, http, main, init_worker, log_level, shares_out }
---@return table server
function nginx.start(opts)
  local dir = assert(system.mkdtemp("/tmp/fpcache-spec-nginx-"))
  local self = setmetatable({ dir = dir, watchdog = watch(dir) }, Server)
  run("cp", "-r", "lua", dir .. "/lua")
  run("mkdir", dir .. "/fpcache")
  run("cp", BUILD .. "/lua5.1/fpcache/core.so", dir .. "/fpcache/core.so")
  local result
  for _ = 1, 5 do -- somebody else may take the port before nginx does
    self.port = free_port()
    self:configure(opts)
    run("chmod", "-R", "a+rX", dir)
    if user() then run("chown", "-R", ("%d"):format(user()), dir) end
    result = self:command()
    if result.status == 0 or not result.output:find("Address already in use", 1, true) then break end
  end
  if result.status ~= 0 then error("nginx: " .. result.output, 2) end
  if not database.eventually(function() return pcall(self.get, self, "/alive") end) then
    error("nginx does not answer:\n" .. self:log(), 2)
  end
  return self
end

--- One that somebody else started at that port: for its requests.
function nginx.at(port) return setmetatable({ port = port }, Server) end

--- A port at which nothing listens, nor at the ones after it.
---@param count integer? how many, default 2
function nginx.free_ports(count)
  while true do
    local first, taken = free_port(), {}
    for port = first + 1, math.min(first + (count or 2) - 1, 65535) do taken[#taken + 1] = socket.bind("127.0.0.1", port) end
    for _, listener in ipairs(taken) do listener:close() end
    if #taken == (count or 2) - 1 then return first end
  end
end

function Server:log()
  local file = self.dir and io.open(self.dir .. "/error.log")
  if not file then return "" end
  local text = file:read("*a")
  file:close()
  return text
end

function Server:pid()
  local file = io.open(self.dir .. "/pid")
  if not file then return nil end
  local pid = tonumber(file:read("*l"))
  file:close()
  return pid
end

--- The process numbers of the master's living children, the workers.
function Server:workers()
  local pids = {}
  local children = io.open(("/proc/%d/task/%d/children"):format(self:pid(), self:pid()))
  if children then
    for pid in (children:read("*a") or ""):gmatch("%d+") do pids[#pids + 1] = tonumber(pid) end
    children:close()
  end
  return pids
end

local SIGNALS = { HUP = 1, QUIT = 3, KILL = 9, USR1 = 10, USR2 = 12, TERM = 15, CONT = 18, STOP = 19, WINCH = 28 }

--- Sends the master (or another process) a signal.
function Server:signal(name, pid)
  assert(system.kill(pid or self:pid(), SIGNALS[name]))
end

--- Reloads, and waits until the old workers are gone; returns how long they took.
---@param seconds number? at most, default 20
---@return number? seconds
function Server:reload(seconds)
  local old, began = self:workers(), system.now()
  self:signal("HUP")
  local gone = database.eventually(function()
    for _, pid in ipairs(old) do
      for _, now in ipairs(self:workers()) do
        if pid == now then return false end
      end
    end
    return true
  end, seconds)
  return gone and system.now() - began
end

-- --- requests ---

local Going = {}
Going.__index = Going

--- Sends a request and does not wait for the answer.
---@param path string
---@param opts table? { method, headers = { name = value }, body, timeout = 20 }
function Server:open(path, opts)
  opts = opts or {}
  local connection = assert(socket.tcp())
  connection:settimeout(opts.timeout or 20)
  assert(connection:connect("127.0.0.1", self.port))
  local lines = { ("%s %s HTTP/1.1"):format(opts.method or "GET", path) }
  local headers = { Host = "localhost", Connection = "close" }
  if opts.body then headers["Content-Length"] = tostring(#opts.body) end
  for name, value in pairs(opts.headers or {}) do headers[name] = value end
  for name, value in pairs(headers) do lines[#lines + 1] = name .. ": " .. value end
  assert(connection:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. (opts.body or "")))
  return setmetatable({ connection = connection, is_head = opts.method == "HEAD" }, Going)
end

--- Whether some of the answer is there; does not wait.
function Going:has_answer()
  return #(socket.select({ self.connection }, nil, 0)) > 0
end

--- Hangs up.
function Going:abort() self.connection:close() end

local function read_chunks(connection)
  local parts = {}
  while true do
    local size = tonumber(assert(connection:receive("*l")):match("^%x+"), 16)
    if size > 0 then parts[#parts + 1] = assert(connection:receive(size)) end
    assert(connection:receive("*l"))
    if size == 0 then return table.concat(parts) end
  end
end

--- Waits for the answer: status, headers (names in small letters, several of a name joined by ", "), body.
function Going:read()
  local connection = self.connection
  local status = tonumber((assert(connection:receive("*l")):match("^HTTP/%d%.%d (%d+)")))
  local headers = {}
  while true do
    local line = assert(connection:receive("*l"))
    if line == "" then break end
    local name, value = line:match("^([^:]+):%s*(.*)$")
    name = name:lower()
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
  local body = ""
  if headers["transfer-encoding"] == "chunked" then
    body = read_chunks(connection)
  elseif not self.is_head and status ~= 204 and status ~= 304 then
    local length = tonumber(headers["content-length"])
    if length ~= 0 then body = assert(connection:receive(length or "*a")) end
  end
  connection:close()
  return { status = status, headers = headers, body = body }
end

--- A request and its answer.
---@return {status: integer, headers: table<string, string>, body: string}
function Server:get(path, opts)
  return self:open(path, opts):read()
end

--- The body of an answer with status 200; raises otherwise.
function Server:body(path, opts)
  local answer = self:get(path, opts)
  if answer.status ~= 200 then
    error(("%s: status %d: %s\n%s"):format(path, answer.status, answer.body, self:log():sub(-3000)), 2)
  end
  return answer.body
end

--- Runs Lua at nginx.RUN: "true" and what it returned, or "false" and what it raised, as words.
function Server:run(code) return self:body("/run", { method = "POST", body = code }) end

-- --- load ---

local Load = {}
Load.__index = Load

--- How many requests all workers have had.
function Server:requests()
  return tonumber(self:body("/of-all-workers"):match("requests%s+%d+ %d+ (%d+)"))
end

--- Starts wrk, and goes on when requests of it are there: what comes next comes under load.
---@param opts { path: string, connections: integer, seconds: number, script: string? }
function Server:start_load(opts)
  local script = ""
  if opts.script then
    files.write(self.dir .. "/wrk.lua", opts.script)
    script = "-s " .. self.dir .. "/wrk.lua"
  end
  local command = ("exec wrk -t1 -c%d -d%gs --timeout 20s --latency %s 'http://127.0.0.1:%d%s' 2>&1"):format(
    opts.connections, opts.seconds, script, self.port, opts.path)
  local enough = self:requests() + 10
  local load = setmetatable({ pipe = assert(io.popen(command)) }, Load)
  assert(database.eventually(function()
    enough = enough + 1 -- the asking is a request too
    return self:requests() >= enough
  end), "wrk asks nothing")
  return load
end

local UNITS = { us = 1e-6, ms = 1e-3, s = 1, m = 60 }

local function seconds_of(text)
  local number, unit = (text or ""):match("^([%d.]+)(%a+)$")
  return number and tonumber(number) * UNITS[unit]
end

--- Waits for its end: requests, per_second, p50 and p99 (seconds), not_2xx, socket errors { connect, read, write, timeout }.
function Load:read()
  local text = self.pipe:read("*a")
  self.pipe:close()
  local connect, read, written, timeout = text:match("connect (%d+), read (%d+), write (%d+), timeout (%d+)")
  return {
    text = text, requests = tonumber(text:match("(%d+) requests in")),
    per_second = tonumber(text:match("Requests/sec:%s+([%d.]+)")),
    p50 = seconds_of(text:match("\n%s+50%%%s+(%S+)")), p99 = seconds_of(text:match("\n%s+99%%%s+(%S+)")),
    not_2xx = tonumber(text:match("Non%-2xx or 3xx responses: (%d+)") or 0),
    connect = tonumber(connect or 0), read = tonumber(read or 0), write = tonumber(written or 0),
    timeout = tonumber(timeout or 0),
  }
end

function Server:load(opts) return self:start_load(opts):read() end

--- Ends it, gracefully unless told otherwise, and removes its folder.
---@param signal string? default "QUIT"
---@return boolean ended within 10 s
function Server:stop(signal)
  local pid = self:pid()
  local ended = true
  if pid and system.kill(pid, 0) then
    self:signal(signal or "QUIT", pid)
    ended = database.eventually(function() return self:pid() == nil end, 10)
  end
  self.watchdog:close()
  return ended and true or false
end

return nginx

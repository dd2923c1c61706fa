-- interpreter.lua -- runs build/fpcache as a user does, in an environment of its own.
--
--   local fpcache = interpreter.new{ FPCACHE_URL = url }
--   local answer = fpcache{ "get", "k" }            -- { code, out, err }
--   local job = fpcache:start{ "script.lua" }       -- job.pid; job:kill(15) -> code
--   local theirs = interpreter.of_nobody(env)       -- as a user without rights, when we are root
local core = require "fpcache.core"
local database = require "support.database"
local files = require "support.files"

local system = core.system
local BUILD = require "support.build"

local Interpreter = {}
Interpreter.__index = Interpreter

local interpreter = { path = BUILD .. "/fpcache" }

--- Nothing of our own environment but PATH and what is said here; LUA_PATH above all is not set.
---@param env table<string, string>?
function interpreter.new(env)
  local self = setmetatable({ env = { "PATH=" .. os.getenv("PATH"), "LC_ALL=C.UTF-8" } }, Interpreter)
  self.dir = assert(system.mkdtemp("/tmp/fpcache-cli-"))
  env = env or {}
  env.HOME = env.HOME or self.dir
  for name, value in pairs(env) do self.env[#self.env + 1] = name .. "=" .. value end
  return self
end

--- One that is run as nobody if we are root, whose private server is one for the whole machine.  Its folder is its HOME.
---@param env table<string, string>?
function interpreter.of_nobody(env)
  local self = interpreter.new(env)
  if system.geteuid() ~= 0 then return self end
  self.account = system.user("nobody")
  self.program = self.dir .. "/fpcache" -- a copy: the build tree may be closed to others
  assert(core.run { argv = { "cp", interpreter.path, self.program } }.status == 0)
  assert(system.chmod(self.program, tonumber("755", 8)))
  assert(system.chown(self.dir, self.account.uid, self.account.gid))
  return self
end

--- Writes a file into the folder of this interpreter; returns its path.
function Interpreter:file(name, text)
  return files.write(self.dir .. "/" .. name, text)
end

--- Runs it to its end.
---@param words string[] `program` instead of fpcache, `input` for its standard input, `timeout` in seconds (60)
---@return {code: integer, out: string, err: string}
function Interpreter:__call(words)
  local argv = { "/bin/sh", "-c", 'exec "$0" "$@" 2>"$ERR"', words.program or self.program or interpreter.path }
  for _, word in ipairs(words) do argv[#argv + 1] = word end
  local env = { "ERR=" .. self.dir .. "/stderr" }
  for _, line in ipairs(self.env) do env[#env + 1] = line end
  local result = assert(core.run { argv = argv, env = env, clear_env = true, input = words.input or "",
    timeout = words.timeout or 60, dir = self.dir, max_output = 1024 * 1024, uid = self.account and self.account.uid,
    gid = self.account and self.account.gid })
  return { code = result.status or 128 + result.signal, out = result.output, err = assert(files.read(self.dir .. "/stderr")) }
end

--- Runs it on a terminal, on which `typed` is typed.
function Interpreter:on_terminal(words, typed)
  local quoted = { interpreter.path }
  for i, word in ipairs(words) do quoted[i + 1] = "'" .. word:gsub("'", "'\\''") .. "'" end
  return self { program = "script", "-qec", table.concat(quoted, " "), "/dev/null", input = typed }
end

local Job = {}
Job.__index = Job

--- Starts it (or `words.program`) and goes on.
function Interpreter:start(words)
  local code = self.dir .. "/code"
  os.remove(code)
  local argv = { "/bin/sh", "-c",
    '"$0" "$@" >"$OUT" 2>&1 & echo $! >"$PID"; mv "$PID" "$PID.done"; wait $!; echo $? >"$CODE.new"; '
    .. 'mv "$CODE.new" "$CODE"', words.program or interpreter.path }
  for _, word in ipairs(words) do argv[#argv + 1] = word end
  local env = { "OUT=" .. self.dir .. "/out", "PID=" .. self.dir .. "/pid", "CODE=" .. code }
  for _, line in ipairs(self.env) do env[#env + 1] = line end
  os.remove(self.dir .. "/pid.done")
  assert(core.spawn { argv = argv, env = env, clear_env = true, dir = self.dir, log = self.dir .. "/log" })
  assert(database.eventually(function() return system.stat(self.dir .. "/pid.done") end))
  return setmetatable({ pid = tonumber(assert(files.read(self.dir .. "/pid.done"))), dir = self.dir }, Job)
end

--- What it has written so far; the shell may not have made the file yet.
function Job:output() return files.read(self.dir .. "/out") or "" end

--- Sends a signal and waits for the end; the exit code as a shell tells it, or nil when it did not end.
function Job:kill(signal)
  assert(system.kill(self.pid, signal))
  return self:wait()
end

function Job:wait()
  if not database.eventually(function() return system.stat(self.dir .. "/code") end) then
    system.kill(self.pid, 9)
    return nil
  end
  return tonumber(assert(files.read(self.dir .. "/code")))
end

--- A program that was killed may make a file yet.
function Interpreter:remove()
  assert(database.eventually(function() return system.remove_tree(self.dir) end), self.dir .. " could not be removed")
end

return interpreter

--- What the words after `fpcache` mean.  Returns a function of the argument table that returns the exit code.
--
-- 0 success; 1 a failure, told on stderr; 2 a wrong command line.  A signal's code is the interpreter's matter.
local USAGE = [[
fpcache: a shared cache on PostgreSQL

  fpcache shell                a prompt; on a terminal also without this word
  fpcache SCRIPT.lua [ARGS…]   run a Lua script; require "fpcache" and "cjson" are built in
  fpcache -e CODE [ARGS…]      run a piece of Lua
  fpcache - [ARGS…]            run Lua from standard input
  fpcache get|set|del|ttl|keys|count|stats …   look into the cache
  fpcache warm FILE… --key TEMPLATE …  fill the cache from JSON Lines, JSON, CSV, TSV or a query
  fpcache admin setup|status|upgrade|drop …    manage the database's schema
  fpcache admin watch|unwatch|watches …        tables whose writes delete cached keys
  fpcache admin quota|sweep …                  limits, and who keeps to them
  fpcache doctor               what is wrong with a cache and what to do
  fpcache top                  what a cache does, live; --once and --json for scripts
  fpcache slowlog|monitor      slow calls or statements · changes by anybody, as they come
  fpcache record FILE -- PROGRAM …     record the calls of a program's caches
  fpcache replay TRACE…        play traces against sizes and policies: hit ratios, load saved, server cost
  fpcache bench                measure calls on your own server
  fpcache report FILE… --html PAGE     charts of what bench, top and replay printed as JSON
  fpcache token show|test …                    the source of passwords: what it gives, whether the server takes it
  fpcache local start|stop|status|url|destroy  the private PostgreSQL that is used when no server is named
  fpcache --version [--json]   versions of what is built in
  fpcache COMMAND --help       more about a command

The server is FPCACHE_URL, such as postgresql://user@host/database; without it the private one.
]]

-- command = module with run(words, {command, on_start}) -> exit code
local COMMANDS = {
  get = "fpcache.cli.kv", set = "fpcache.cli.kv", del = "fpcache.cli.kv", ttl = "fpcache.cli.kv",
  keys = "fpcache.cli.kv", count = "fpcache.cli.kv", stats = "fpcache.cli.kv",
  admin = "fpcache.cli.admin",
  ["local"] = "fpcache.cli.local", token = "fpcache.cli.token",
  shell = "fpcache.shell", warm = "fpcache.cli.warm",
  doctor = "fpcache.cli.doctor",
  top = "fpcache.cli.top", slowlog = "fpcache.cli.top", monitor = "fpcache.cli.monitor",
  bench = "fpcache.cli.report", report = "fpcache.cli.report",
  record = "fpcache.cli.replay", replay = "fpcache.cli.replay",
}

local function complain(message)
  io.stderr:write("fpcache: ", tostring(message), "\n")
end

local function traceback(message)
  if type(message) ~= "string" and not (getmetatable(message) or {}).__tostring then return message end
  return debug.traceback(tostring(message), 2)
end

--- Runs a chunk as a script: its words in `arg` and `...`.
local function run_chunk(chunk, err, name, words)
  if not chunk then
    complain(err)
    return 1
  end
  words[0] = name
  _G.arg = words
  require("fpcache.cli.default_server").install()
  local ok, message = xpcall(chunk, traceback, table.unpack(words))
  if ok then return 0 end
  if not require("fpcache.core").interrupted() then complain(message) end
  return 1
end

-- In the order in which they are shown.
local PARTS = { "lua", "libpq", "openssl", "libcurl", "jansson", "xxhash", "zstd", "libedit", "cjson", "argparse" }
local SHOWN = { jansson = "jansson %s", xxhash = "xxHash %s", zstd = "zstd %s", cjson = "lua-cjson %s" }

--- The versions of the program and of everything in it.
local function version(words)
  local core = require("fpcache.core")
  local of = core.versions()
  of.libedit = require("fpcache.terminal").libedit_version
  of.cjson = require("cjson")._VERSION
  of.argparse = require("argparse").version
  if words[1] == "--json" then
    of.fpcache = core.version
    print(assert(require("fpcache.codec").json.encode(of)))
    return 0
  elseif words[1] then
    complain(("--version takes --json alone, not %s"):format(words[1]))
    return 2
  end
  local line = {}
  for i, part in ipairs(PARTS) do
    local format = SHOWN[part] or (of[part]:find("^%a") and "%s" or part .. " %s")
    line[i] = format:format(of[part])
  end
  print(("fpcache %s\n%s"):format(core.version, table.concat(line, ", ")))
  return 0
end

return function(arguments)
  local name = (arguments[0] or ""):match("[^/]*$")
  local words = { table.unpack(arguments, 1) }
  if name == "fpcache-admin" then return require("fpcache.cli.admin").run_as_python_tool(words) end
  local first = table.remove(words, 1)
  local system = require("fpcache.core").system
  if first == nil and system.isatty(0) and system.isatty(1) then first = "shell" end
  if first == nil then
    io.stderr:write(USAGE)
    return 2
  elseif first == "--help" or first == "-h" or first == "help" then
    io.write(USAGE)
    return 0
  elseif first == "--version" or first == "-v" then
    return version(words)
  elseif COMMANDS[first] then
    local default_server = require("fpcache.cli.default_server")
    default_server.install()
    return require(COMMANDS[first]).run(words, { command = first, on_start = default_server.set_up })
  elseif first == "-e" then
    local code = table.remove(words, 1)
    if not code then
      complain("-e needs a piece of Lua; see fpcache --help")
      return 2
    end
    local chunk, err = load(code, "=(command line)")
    return run_chunk(chunk, err, "-e", words)
  elseif first == "-" then
    local chunk, err = load(function() return io.read(8192) end, "=stdin")
    return run_chunk(chunk, err, "-", words)
  elseif first:sub(1, 1) == "-" then
    complain(("unknown option %s; see fpcache --help"):format(first))
    return 2
  end
  local chunk, err = loadfile(first)
  return run_chunk(chunk, err, first, words)
end

-- cli/local.lua -- `fpcache local ...`: steers the private PostgreSQL.
local local_server = require "fpcache.local_server"
local system = require("fpcache.core").system

local USAGE = [[
usage: fpcache local COMMAND [--dir DIR]

The private PostgreSQL that fpcache uses when no URL is given.

  start     start it, making it first if it is not there; prints where it is and its URL
  stop      stop it; the cached rows stay
  status    what there is; exit code 0: running, 3: not running
  url       start it if needed; prints its URL and nothing else
  destroy   stop it and remove its folder with all that is in it; asks first

  --dir DIR   its folder (default: %s)
  --force     destroy without asking
  --help      this text
]]
local EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 3

local cli = {}

local function complain(text)
  io.stderr:write("fpcache local: ", text, "\n")
end

local commands = {}

function commands.start(server)
  local url, err = server:start()
  if not url then return nil, err end
  local status
  status, err = server:status()
  if not status then return nil, err end
  io.write(("PostgreSQL %s runs in %s (process %s)\n%s\n"):format(status.version, status.dir, status.pid, url))
  return 0
end

function commands.stop(server)
  local ok, err = server:stop()
  if not ok then return nil, err end
  io.write(("the private server in %s is stopped\n"):format(server.dir))
  return 0
end

function commands.status(server)
  local status, err = server:status()
  if not status then return nil, err end
  io.write(("state: %s\ndir: %s\n"):format(status.state, status.dir))
  for _, name in ipairs { "version", "pid", "url" } do
    if status[name] then io.write(("%s: %s\n"):format(name, status[name])) end
  end
  return status.state == "running" and 0 or EXIT_STOPPED
end

function commands.url(server)
  local url, err = server:start()
  if not url then return nil, err end
  io.write(url, "\n")
  return 0
end

function commands.destroy(server, force)
  local status, err = server:status()
  if not status then return nil, err end
  if status.state ~= "absent" and not force then
    if not system.isatty(0) then
      return nil, "invalid: without a terminal to ask on, destroy needs --force"
    end
    io.stderr:write(("Remove the private server in %s and all it has cached? [y/N] "):format(server.dir))
    local answer = io.read("*l")
    if not answer or not answer:lower():match("^%s*y") then
      complain("nothing was removed")
      return EXIT_FAILED
    end
  end
  local ok
  ok, err = server:destroy()
  if not ok then return nil, err end
  io.write(("there is no private server in %s any more\n"):format(server.dir))
  return 0
end

-- The words of the command line as {command, dir, force, help}, or nil and what is wrong.
local function parse(args)
  local words, i = {}, 1
  while i <= #args do
    local arg = args[i]
    if arg == "--help" or arg == "-h" then
      words.help = true
    elseif arg == "--force" then
      words.force = true
    elseif arg == "--dir" then
      i = i + 1
      if not args[i] then return nil, "--dir needs a folder" end
      words.dir = args[i]
    elseif arg:match("^%-%-dir=") then
      words.dir = arg:sub(7)
    elseif arg:sub(1, 1) == "-" then
      return nil, "unknown option " .. arg
    elseif words.command then
      return nil, "one command only, not also " .. arg
    else
      words.command = arg
    end
    i = i + 1
  end
  if words.help then return words end
  if not words.command then return nil, "a command is missing" end
  if not commands[words.command] then return nil, "unknown command " .. words.command end
  if words.force and words.command ~= "destroy" then return nil, "--force belongs to destroy" end
  return words
end

--- Runs `fpcache local ARGS...`; writes to stdout, and to stderr what is not the answer.
---@param args string[] the words after "local"
---@param options {on_start: fpcache.OnStart?}? what the private server runs when it was started anew
---@return integer exit_code 0 done, 1 failed, 2 wrong words, 3 (status) not running
function cli.run(args, options)
  local words, problem = parse(args)
  if words and words.help then
    io.write(USAGE:format(local_server.default_dir() or "none: this user has no home folder"))
    return 0
  end
  if not words then
    complain(problem .. " (fpcache local --help)")
    return EXIT_USAGE
  end
  local server, err = local_server.new {
    dir = words.dir, log = complain, on_start = options and options.on_start,
  }
  if not server then
    complain(err)
    return EXIT_FAILED
  end
  local code
  code, err = commands[words.command](server, words.force)
  if code then return code end
  complain(err)
  return EXIT_FAILED
end

return cli

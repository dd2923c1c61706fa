--- `fpcache` on a terminal: a prompt where every line is Lua, with `cache` connected.
local argparse = require("argparse")
local complete = require("fpcache.shell.complete")
local connection_flags = require("fpcache.cli.connection_flags")
local core = require("fpcache.core")
local evaluate = require("fpcache.shell.evaluate")
local fpcache = require("fpcache")
local help = require("fpcache.shell.help")
local show = require("fpcache.shell.show")
local terminal = require("fpcache.terminal")

local system = core.system

local shell = {}

local CLASSES = { Cache = require("fpcache.client"), fpcache = fpcache, CuckooFilter = fpcache.CuckooFilter }

--- $XDG_STATE_HOME/fpcache/history, made for its owner alone; nil when there is no home.
local function history_path()
  local state = system.getenv("XDG_STATE_HOME")
  if not state or state:sub(1, 1) ~= "/" then
    local home = system.getenv("HOME")
    if not home or home == "" then return nil end
    state = home .. "/.local/state"
  end
  local path = state .. "/fpcache"
  local made = ""
  for part in path:gmatch("/[^/]+") do
    made = made .. part
    if not system.stat(made) then system.mkdir(made, 448) end -- 0700
  end
  return path .. "/history"
end

local function say(text)
  io.stdout:write(text, "\n")
end

--- Connects anew; the old connection stays when the new one fails.
local function connector(env, defaults)
  return function(opts)
    local all = {}
    for name, value in pairs(defaults) do all[name] = value end
    for name, value in pairs(opts or {}) do all[name] = value end
    local cache, err = fpcache.new(all)
    if not cache then return nil, err end
    if env.cache then env.cache:close() end
    env.cache = cache
    return cache
  end
end

local function environment(defaults)
  local env = setmetatable({ fpcache = fpcache, cjson = require("cjson") }, { __index = _G })
  env._G = env
  env.connect = connector(env, defaults)
  env.help = function(what) say(help.text(what, CLASSES)) end
  env.exit = function(code) env.leaving = math.tointeger(code) or 0 end
  return env
end

--- The part of a traceback that is the user's; "" when the line itself raised.
local function own_trace(trace)
  local own = trace:match("^stack traceback:(.-)\n%s*%(shell%):%d+: in main chunk") or ""
  own = own:gsub("^\n%s*%[C%]: in function 'error'", "")
  return own
end

--- Says why a call ended without an answer.
---@param answer table terminal.call's
local function say_failure(answer)
  if answer[4] then return say("interrupted") end
  say(tostring(answer[2]) .. own_trace(answer[3] or ""))
end

--- Runs one line; its first value is `_` afterwards.
local function run(env, chunk)
  local begun = core.system.now()
  local answer = table.pack(terminal.call(chunk))
  local took = core.system.now() - begun
  io.stdout:flush()
  if not answer[1] then return say_failure(answer) end
  local values = table.move(answer, 2, answer.n, 1, {})
  if answer.n > 1 then env._ = values[1] end
  local text = table.pack(terminal.call(show.results, answer.n - 1, values)) -- a __tostring may fail, or not end
  if not text[1] then return say_failure(text) end
  if text[2] then say(text[2]) end
  say(("-- %.2f ms"):format(took * 1000))
end

local function prompts(env)
  local cache = env.cache
  local name = cache and cache.space ~= "" and cache.space or "fpcache"
  return name .. "> ", (" "):rep(math.max(#name - 1, 0)) .. ">> "
end

local function loop(env, editor)
  while not env.leaving do
    local first, more = prompts(env)
    local text, chunk, err = evaluate.read(function(is_first)
      return editor:read(is_first and first or more)
    end, env)
    if text then
      editor:remember(text)
      if chunk then run(env, chunk) else say(err) end
    elseif chunk ~= "interrupted" then
      say("")
      break
    end
  end
  return env.leaving or 0
end

local function make_parser()
  local parser = argparse("fpcache shell", "A prompt where every line is Lua, and `cache` is connected.")
  connection_flags.add(parser)
  parser:option("--namespace", "Namespace within the user's keys.", ""):argname("NAME")
  return parser
end

---@param words string[]
---@return integer exit_code
function shell.run(words)
  local flags, code = connection_flags.parse(make_parser(), words)
  if not flags then return code end
  if not (system.isatty(0) and system.isatty(1)) then
    io.stderr:write("fpcache: the shell needs a terminal; `fpcache -` runs Lua from standard input\n")
    return 2
  end
  local defaults = connection_flags.read(flags)
  defaults.namespace = flags.namespace
  local env = environment(defaults)
  say(("fpcache %s, %s.  help() lists the calls; Tab completes; Ctrl-D leaves."):format(core.version, _VERSION))
  local cache, err = connection_flags.call(env.connect)
  if not cache then say("not connected: " .. tostring(err) .. "\nconnect{ connection_string = … } tries again") end
  local editor = terminal.editor({
    history = history_path(),
    complete = function(before) return complete.at(before, env) end,
  })
  code = loop(env, editor)
  editor:close()
  if env.cache then env.cache:close() end
  return code
end

return shell

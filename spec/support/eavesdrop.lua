-- eavesdrop.lua -- keeps what the specs of this process make the product say, and every token that it fetches, for the search
-- at the end (secrets.lua): the output of programs, the error texts that a spec looks at, what sources answer.
--
-- busted loads modules anew for each file, so the core is met where it is loaded, and not in the specs.
local secrets = require "support.secrets"

local eavesdrop = {}

-- What a failure of fpcache begins with.
local CODES = {}
for code in ("connect auth timeout busy schema denied invalid closed conflict unknown server nomem interrupted full")
  :gmatch("%a+") do CODES[code] = true end

local TOOLS = { openssl = true } -- they say signatures, for the specs to compare

local logs = {} -- of programs that may still run: the files are read when a spec file ends, though they may be gone by then

local function is_ours(options)
  if type(options) ~= "table" or type(options.argv) ~= "table" or TOOLS[options.argv[1]] then return false end
  for _, word in ipairs(options.argv) do
    if word == "--reveal" then return false end -- that is what was asked for
  end
  return true
end

local function name_of(options)
  return "program-" .. (tostring(options.argv[1]):match("[^/]*$"))
end

local function wrap_programs(core)
  local run, spawn = core.run, core.spawn
  function core.run(...)
    local result, err, output = run(...)
    if is_ours(...) then
      if type(result) == "table" then output = result.output end
      secrets.heard(name_of(...), output or "")
    end
    return result, err, output
  end

  function core.spawn(...)
    local pid, err = spawn(...)
    local options = ...
    local log = pid and is_ours(options) and io.open(options.log, "rb")
    if log then logs[#logs + 1] = { name = name_of(options), file = log } end
    return pid, err
  end
end

-- A method of a type of the core; `see` gets what it returned.
local function wrap_method(object, name, see)
  local methods = debug.getmetatable(object).__index
  local method = methods[name]
  methods[name] = function(...)
    local a, b, c = method(...)
    see(a, b)
    return a, b, c
  end
end

local function wrap_tokens(core)
  local wrapped = {}
  local function see(password, err)
    if type(password) == "table" then password = password.password end
    if type(password) == "string" then secrets.note(password) end
    if not password and err then secrets.heard("errors", err) end
  end
  for constructor, methods in pairs { token_source = { "fetch" }, token_keeper = { "get", "wait", "refresh" } } do
    local make = core[constructor]
    core[constructor] = function(...)
      local object, err = make(...)
      see(nil, err)
      if object and not wrapped[constructor] then
        wrapped[constructor] = true
        for _, method in ipairs(methods) do wrap_method(object, method, see) end
      end
      return object, err
    end
  end
end

local function wrap_assertions()
  local util = require "luassert.util"
  local make_arglist = util.make_arglist
  function util.make_arglist(...)
    for i = 1, select("#", ...) do
      local text = select(i, ...)
      local code = type(text) == "string" and text:match("^(%l+): ")
      if code and CODES[code] then secrets.heard("errors", text) end
    end
    return make_arglist(...)
  end
end

--- Listens from now on; called before busted runs.
function eavesdrop.start()
  if not os.getenv("FPC_TEST_HEARD") then return end
  wrap_assertions()
  package.preload["fpcache.core"] = function(name)
    local path = assert(package.searchpath(name, package.cpath))
    local core = assert(package.loadlib(path, "luaopen_fpcache_core"))(name, path)
    wrap_programs(core)
    wrap_tokens(core)
    return core
  end
end

--- Reads the logs; called when a spec file ends.
function eavesdrop.collect()
  for _, log in ipairs(logs) do
    secrets.heard(log.name, log.file:read("*a") or "")
    log.file:close()
  end
  logs = {}
end

return eavesdrop

-- child.lua -- runs Lua code in a process of its own, with the Lua and the modules under test, also
-- as a user who may not enter the source tree: everything is copied to a folder open to all.
local core = require "fpcache.core"
local system = core.system

local child = {}

local folder -- the copy; made at the first use

local function run(...)
  local result = assert(core.run { argv = { ... } })
  assert(result.status == 0, result.output)
end

local function copy()
  if folder then return folder end
  folder = assert(system.mkdtemp("/tmp/fpcache-child-"))
  assert(system.chmod(folder, tonumber("755", 8)))
  assert(system.mkdir(folder .. "/fpcache", tonumber("755", 8)))
  run("cp", assert(package.searchpath("fpcache.core", package.cpath)), folder .. "/fpcache/core.so")
  run("cp", "-r", "lua", folder .. "/lua")
  run("cp", assert(system.exe()), folder .. "/host")
  run("chmod", "-R", "a+rX", folder)
  return folder
end

--- The program, its arguments and its environment for core.run() or core.spawn(): the code gets
--- `args` as its `...`.
---@param code string
---@param args string[]?
---@return table what with argv and env
function child.command(code, args)
  local dir = copy()
  local name = ("%s/code%d.lua"):format(dir, #(system.readdir(dir)))
  local file = assert(io.open(name, "w"))
  file:write(code)
  file:close()
  assert(system.chmod(name, tonumber("644", 8)))
  local argv = { dir .. "/host", name }
  for _, arg in ipairs(args or {}) do argv[#argv + 1] = arg end
  local env = { "LUA_PATH=" .. dir .. "/lua/?.lua;" .. package.path, "LUA_CPATH=" .. dir .. "/?.so" }
  -- LeakSanitizer can trip over a thread that ends together with its process; leaks show in the specs' own process.
  if os.getenv("ASAN_OPTIONS") then env[#env + 1] = "ASAN_OPTIONS=detect_leaks=0" end
  return { argv = argv, env = env }
end

--- Runs `code` and returns the result of core.run(); `more` adds to what is run (uid, env, ...).
---@param code string
---@param args string[]?
---@param more table?
---@return {status: integer?, signal: integer?, output: string} result
function child.run(code, args, more)
  local what = child.command(code, args)
  for name, value in pairs(more or {}) do
    if name == "env" then
      for _, variable in ipairs(value) do what.env[#what.env + 1] = variable end
    else
      what[name] = value
    end
  end
  return assert(core.run(what))
end

--- Removes the copy; to be called when a spec file ends.
function child.clean()
  if folder then assert(system.remove_tree(folder)) end
  folder = nil
end

return child

-- The examples for other event loops run as they are, each on the Lua that Debian has its package for.
local core = require "fpcache.core"
local database = require "support.database"

local BUILD = os.getenv("FPC_BUILD_DIR") or "build"
local HOSTS = {
  ["lua5.4"] = { program = "lua5.4", abi = "lua5.4" },
  luajit = { program = BUILD .. "/luajit-host", abi = "lua5.1" },
}

describe("examples/loops", function()
  local db

  setup(function() db = database.new() end)

  local function run(host, name)
    local about = HOSTS[host]
    return assert(core.run {
      argv = { about.program, "examples/loops/" .. name .. ".lua" },
      env = {
        "FPCACHE_URL=" .. db:url_of(), "PATH=" .. os.getenv("PATH"), "LUA_PATH=lua/?.lua;lua/?/init.lua;;",
        ("LUA_CPATH=%s/%s/?.so;;"):format(BUILD, about.abi),
      },
      timeout = 60,
    })
  end

  for _, case in ipairs {
    { "luajit", "copas", "the sum is 5050, 3 echoes\n" },
    { "lua5.4", "cqueues", "the sum is 5050, 5 ticks\n" },
    { "luajit", "cqueues", "the sum is 5050, 5 ticks\n" },
    { "lua5.4", "luv", "the sum is 5050, 5 ticks\n" },
    { "luajit", "luv", "the sum is 5050, 5 ticks\n" },
  } do
    it(case[2] .. " on " .. case[1], function()
      local result = run(case[1], case[2])
      assert.equal(case[3], result.output)
      assert.equal(0, result.status)
    end)
  end
end)

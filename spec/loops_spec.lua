-- The examples for other event loops run as they are, each on the Lua that Debian has its package for.
local core = require "fpcache.core"
local database = require "support.database"

local BUILD = require "support.build"
local HOST = _VERSION == "Lua 5.4" and "lua5.4" or "luajit" -- the other one's examples run with the other one's specs
local ABI = HOST == "luajit" and "lua5.1" or "lua5.4"

describe("examples/loops", function()
  local db

  setup(function() db = database.new() end)

  local function run(name)
    return assert(core.run {
      argv = { assert(core.system.exe()), "examples/loops/" .. name .. ".lua" },
      env = {
        "FPCACHE_URL=" .. db:url_of(), "PATH=" .. os.getenv("PATH"), "LUA_PATH=lua/?.lua;lua/?/init.lua;;",
        ("LUA_CPATH=%s/%s/?.so;;"):format(BUILD, ABI), "ASAN_OPTIONS=detect_leaks=0", -- others' leaks are not ours
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
    if case[1] == HOST then
      it(case[2], function()
        local result = run(case[2])
        assert.equal(case[3], result.output)
        assert.equal(0, result.status)
      end)
    end
  end
end)

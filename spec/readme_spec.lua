-- The README's words work as pasted, and what an example is said to print it prints.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local files = require "support.files"
local server = require "support.server"

local BUILD = require "support.build"

describe("README.md", function()
  local text, url = assert(files.read("README.md")), nil

  setup(function()
    url = server.start():fresh_database()
    assert(admin.setup { connection_string = url })
  end)

  local function run(argv)
    return assert(core.run { argv = argv, env = { "FPCACHE_URL=" .. url, "PATH=" .. os.getenv("PATH") }, timeout = 60 })
  end

  it("has an example that prints what it says", function()
    local code = assert(text:match("```lua\n(.-)```"))
    local result = run { BUILD .. "/fpcache", "-e", code }
    assert.equal(0, result.status, result.output)
    local expected = {}
    for words in code:gmatch("%-%-> (%S+)") do expected[#expected + 1] = words end
    assert.is_true(#expected >= 5)
    assert.equal(table.concat(expected, "\n") .. "\n", result.output)
  end)

  it("has shell words that work", function()
    for command in ("set greeting hello --ttl 60|get greeting|local --help"):gmatch("[^|]+") do
      assert.is_truthy(command == "local --help" or text:find("fpcache " .. command, 1, true), command)
      local argv = { BUILD .. "/fpcache" }
      for word in command:gmatch("%S+") do argv[#argv + 1] = word end
      local result = run(argv)
      assert.equal(0, result.status, result.output)
      if command == "get greeting" then assert.equal("hello\n", result.output) end
    end
  end)

  it("names every option of fpcache.new, and none that is not there", function()
    local table_text = assert(text:match("## `fpcache.new%(options%)`(.-)\n## "))
    local named = {}
    for cell in table_text:gmatch("\n| ([^|]+) |") do
      for option in cell:gmatch("`([%w_]+)`") do named[option] = true end
    end
    local fpcache = require "fpcache"
    local _, err = pcall(fpcache.new, { no_such_option = 1 })
    assert.matches("unknown option", err)
    for option in pairs(fpcache.OPTIONS) do assert.is_true(named[option], option .. " is not in the README") end
    for option in pairs(named) do assert.is_truthy(fpcache.OPTIONS[option], option .. " is no option") end
  end)
end)

describe("examples/warmup.lua", function()
  it("warms real data and finds it again", function()
    local url = server.start():fresh_database()
    assert(admin.setup { connection_string = url })
    local result = assert(core.run {
      argv = { BUILD .. "/fpcache", "examples/warmup.lua" },
      env = { "FPCACHE_URL=" .. url, "PATH=" .. os.getenv("PATH") }, timeout = 120,
    })
    assert.equal(0, result.status, result.output)
    assert.matches("ISO lists%s+13%d%d%d records", result.output)
    assert.matches("samples, all equal", result.output)
    assert.matches("UNLOGGED yes", result.output)
  end)
end)

describe("examples/product_page.lua", function()
  it("makes again exactly the pages whose rows changed", function()
    local url = server.start():fresh_database()
    assert(admin.setup { connection_string = url })
    local result = assert(core.run {
      argv = { BUILD .. "/fpcache", "examples/product_page.lua" },
      env = { "FPCACHE_URL=" .. url, "PATH=" .. os.getenv("PATH") }, timeout = 120,
    })
    assert.equal(0, result.status, result.output)
    assert.matches("2000 views of 100 pages: 100 made", result.output)
    assert.matches("<h1>Product 7</h1><p>9.99 at Market</p>\n<h1>Product 3</h1><p>3 at Old market</p>", result.output)
    assert.matches("after one price and one shop's name: 51 made again", result.output)
    assert.same({}, admin.watches { connection_string = url })
  end)
end)

describe("examples", function()
  -- what each prints, as a pattern
  local PRINTED = {
    rate_limiter = "let through %d, refused %d",
    api_proxy = "50 requests while the API was down: 0 errors, %d+ reached it",
  }
  for name, pattern in pairs(PRINTED) do
    it(name .. ".lua runs as it is", function()
      local url = server.start():fresh_database()
      assert(admin.setup { connection_string = url })
      local result = assert(core.run {
        argv = { BUILD .. "/fpcache", "examples/" .. name .. ".lua" },
        env = { "FPCACHE_URL=" .. url, "PATH=" .. os.getenv("PATH") }, timeout = 60,
      })
      assert.equal(0, result.status, result.output)
      assert.matches(pattern, result.output)
    end)
  end

  it("are all run by a spec", function()
    local known = { warmup = true, product_page = true }
    for name in pairs(PRINTED) do known[name] = true end
    for _, file in ipairs(core.system.readdir("examples")) do
      local name = file:match("^(.*)%.lua$")
      assert.is_true(name == nil or known[name], file)
    end
  end)
end)

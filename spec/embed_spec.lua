-- embed_spec.lua -- libfpcache.so: what it shows of itself, and the example server with real clients.
local core = require "fpcache.core"
local database = require "support.database"
local files = require "support.files"
local interpreter = require "support.interpreter"

local BUILD = require "support.build"
local LIBRARY = BUILD .. "/libfpcache.so"

local function output_of(argv)
  local result = assert(core.run { argv = argv, max_output = 1024 * 1024 })
  assert.equal(0, result.status, result.output)
  return result.output
end

local function sorted(list)
  table.sort(list)
  return list
end

describe("libfpcache.so", function()
  it("shows the symbols of its list, which are the functions of its header, and no others", function()
    local listed, declared, shown = {}, {}, {}
    for name in assert(files.read("src/embed/abi.map")):gsub("/%*.-%*/", ""):match("global:(.-)local:"):gmatch("[%w_]+") do
      listed[#listed + 1] = name
    end
    local header = assert(files.read("include/fpcache/fpcache.h")):gsub("#define[^\n]*", "")
    for name in header:gmatch("FPC_API[^;(]-([%w_]+)%(") do declared[#declared + 1] = name end
    for line in output_of { "nm", "-D", "--defined-only", LIBRARY }:gmatch("[^\n]+") do
      local kind, name = line:match("%x+ (%a) ([%w_]+)")
      -- A is the name of the version; sanitizers add their own
      if kind ~= "A" and not name:find("^_") then shown[#shown + 1] = name end
    end
    assert.same(sorted(listed), sorted(declared))
    assert.same(listed, sorted(shown))
    assert.is_true(#listed > 10)
  end)

  it("has a name for the loader, and stays mapped", function()
    local dynamic = output_of { "readelf", "-d", LIBRARY }
    assert.matches("SONAME.*%[libfpcache%.so%.0%]", dynamic)
    assert.matches("NODELETE", dynamic)
  end)
end)

describe("the example server", function()
  local db, tool, job, port

  setup(function() db = database.new() end)
  teardown(function() db:close_all() end)
  before_each(function()
    tool = interpreter.new { FPCACHE_URL = db:url_of() }
    tool.program = BUILD .. "/examples/embed_server"
    job = tool:start { program = tool.program, core.system.realpath("examples/embed/handlers.lua"), "6" }
    assert.is_truthy(database.eventually(function() return job:output():find("port %d+\n") end, 20), job:output())
    port = job:output():match("^6 threads, 1 pool, port (%d+)\n$")
  end)
  after_each(function() tool:remove() end)

  --- Has `clients` clients at once say these lines; what each was answered.
  local function talk(clients, ...)
    local script = tool:file("client.lua", [[
      local socket = require "socket"
      local port, clients, lines = arg[1], tonumber(arg[2]), { table.unpack(arg, 3) }
      local open = {}
      for i = 1, clients do
        open[i] = assert(socket.connect("127.0.0.1", port))
        open[i]:settimeout(20)
      end
      for i = 1, clients do open[i]:send((table.concat(lines, "\n"):gsub("%%c", tostring(i))) .. "\n") end
      for i = 1, clients do
        for _ = 1, #lines do print((assert(open[i]:receive("*l")))) end
        open[i]:close()
      end]])
    local answers = {}
    for line in output_of({ "lua5.4", script, port, tostring(clients), ... }):gmatch("[^\n]+") do
      answers[#answers + 1] = line
    end
    return answers
  end

  it("serves many clients from one pool, and tells errors as answers", function()
    local answers = talk(5, "set k%c value %c", "get k%c", "count all", "get none", "boom", "what")
    assert.equal(30, #answers)
    for i = 1, 5 do
      local at = (i - 1) * 6
      assert.same({ "ok", "value " .. i }, { answers[at + 1], answers[at + 2] })
      assert.matches("^%d$", answers[at + 3])
      assert.equal("none", answers[at + 4])
      assert.matches("^error invalid: .*handlers.lua:%d+: boom$", answers[at + 5])
      assert.equal("what is what?", answers[at + 6])
    end
    assert.equal("5", db:sql("SELECT convert_from(value, 'UTF8') FROM cache WHERE key = 'all'"))
    assert.equal("value 3", (db:open():get("k3")))
    db:close_all()
    assert.is_true(db:connections() <= 10, "one pool of 8, one feed")
    assert.equal(0, job:kill(15))
    assert.is_truthy(database.eventually(function() return db:connections() == 0 end))
  end)

  it("stops a script that computes for too long, and goes on", function()
    local answers = talk(1, "spin", "ok")
    assert.matches("^error timeout: .*the call takes more than 1.0 seconds$", answers[1])
    assert.equal("what is ok?", answers[2])
    assert.equal(0, job:kill(2))
  end)
end)

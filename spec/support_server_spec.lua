-- The server that the specs share.
local child = require "support.child"
local core = require "fpcache.core"
local server = require "support.server"
local system = core.system

describe("the server of the specs", function()
  local sql
  setup(function() sql = server.start() end)
  teardown(function() child.clean() end)

  it("is gone when a spec process is killed", function()
    local what = child.command([[
      package.path = arg[1] .. "/?.lua;" .. package.path
      local srv = require("support.server").start()
      io.write(srv.dir, "\n")
      io.stdout:flush()
      local system = require("fpcache.core").system
      system.kill(system.pid(), 9)]], { system.realpath("spec") })
    local result = assert(core.run(what))
    assert.equal(9, result.signal, result.output)
    local dir = result.output:match("(/tmp/fpcache%-spec%-%w+)\n")
    local deadline = system.now() + 30
    while system.lstat(dir) do
      assert(system.now() < deadline, dir .. " is still there")
      system.sleep(0.02)
    end
  end)

  it("asks members of need_password for their password", function()
    local url = sql:create_user("local_spec", "right")
    assert.equal("local_spec", sql:sql("SELECT current_user", url))
    assert.has_error(function() sql:sql("SELECT 1", sql:url_for("local_spec", "wrong")) end)
    assert.matches("^postgresql:///spec%d+_%d+%?", (sql:fresh_database()))
  end)
end)

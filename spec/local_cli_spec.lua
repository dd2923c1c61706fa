-- `fpcache local`, its words and exit codes.
local child = require "support.child"
local core = require "fpcache.core"
local files = require "support.files"
local local_server = require "fpcache.local_server"
local system = core.system

local unpack = table.unpack or unpack

describe("fpcache local", function()
  local dir

  -- The command line in a process of its own.
  local function run(...)
    local what = child.command([[
      local args = { ... }
      local on_start = function() io.stderr:write("setup\n") return true end
      os.exit(require("fpcache.cli.local").run(args, { on_start = on_start }))]], { ... })
    what.argv = { "sh", "-c", '"$@" 2>"$ERRORS"', "sh", unpack(what.argv) }
    what.env[#what.env + 1] = "ERRORS=" .. dir .. ".errors"
    local result = assert(core.run(what))
    return result.status, result.output, files.read(dir .. ".errors")
  end

  setup(function()
    dir = assert(system.mkdtemp("/tmp/fpcache-spec-"))
    assert(system.unlink(dir))
  end)
  teardown(function()
    assert(assert(local_server.new { dir = dir }):destroy())
    system.unlink(dir .. ".errors")
    child.clean()
  end)

  it("steers the server", function()
    local s = assert(local_server.new { dir = dir })
    assert.same({ 3, ("state: absent\ndir: %s\n"):format(dir), "" }, { run("status", "--dir", dir) })
    local code, out, err = run("url", "--dir", dir)
    assert.same({ 0, s:url() .. "\n" }, { code, out })
    assert.matches("making a private PostgreSQL %d+ in ", err)
    assert.matches("setup\n$", err)
    local pid = s:status().pid
    local version = s:status().version
    assert.same({ 0, ("PostgreSQL %d runs in %s (process %d)\n%s\n"):format(version, dir, pid, s:url()), "" },
      { run("start", "--dir=" .. dir) })
    assert.same({ 0, ("state: running\ndir: %s\nversion: %d\npid: %d\nurl: %s\n")
      :format(dir, version, pid, s:url()), "" }, { run("status", "--dir", dir) })
    assert.same({ 0, ("the private server in %s is stopped\n"):format(dir), "" }, { run("stop", "--dir", dir) })
    assert.equal(3, (run("status", "--dir", dir)))

    assert.same({ 1, "", "fpcache local: invalid: without a terminal to ask on, destroy needs --force\n" },
      { run("destroy", "--dir", dir) })
    assert.equal("stopped", s:status().state)
    assert.same({ 0, ("there is no private server in %s any more\n"):format(dir), "" },
      { run("destroy", "--force", "--dir", dir) })
    assert.equal("absent", s:status().state)
  end)

  it("asks before it destroys, on a terminal", function()
    local s = assert(local_server.new { dir = dir, sync = false })
    assert(s:start())
    local what = child.command([[os.exit(require("fpcache.cli.local").run({ "destroy", "--dir", ... }))]], { dir })
    local function answer(text)
      return assert(core.run { argv = { "script", "-qec", ("'%s' '%s' '%s'"):format(what.argv[1], what.argv[2], dir),
        "/dev/null" }, env = what.env, input = text }).output
    end
    assert.matches("%[y/N%].*nothing was removed", answer("n\n"))
    assert.equal("running", s:status().state)
    assert.matches("%[y/N%].*any more", answer("y\n"))
    assert.equal("absent", s:status().state)
  end)

  it("explains itself and refuses what it does not know", function()
    local code, out, err = run("--help")
    assert.same({ 0, "" }, { code, err })
    assert.matches("^usage: fpcache local COMMAND", out)
    for words, problem in pairs {
      [""] = "a command is missing", ["begin"] = "unknown command begin", ["start --drt"] = "unknown option --drt",
      ["start stop"] = "one command only, not also stop", ["start --dir"] = "--dir needs a folder",
      ["start --force"] = "--force belongs to destroy",
    } do
      local args = {}
      for word in words:gmatch("%S+") do args[#args + 1] = word end
      assert.same({ 2, "", "fpcache local: " .. problem .. " (fpcache local --help)\n" },
        { run(unpack(args)) })
    end
    assert.same({ 1, "", "fpcache local: invalid: the folder's name is empty or has control characters\n" },
      { run("start", "--dir", "") })
  end)
end)

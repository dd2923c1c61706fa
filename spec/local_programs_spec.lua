-- Where the private server's programs come from.
local local_server = require "fpcache.local_server"
local programs = require "fpcache.local_server.programs"
local server = require "support.server"
local system = require("fpcache.core").system

describe("finding the programs of the private server", function()
  local sql, dir

  setup(function()
    sql = server.start()
    dir = assert(system.mkdtemp("/tmp/fpcache-spec-"))
  end)
  teardown(function() assert(system.remove_tree(dir)) end)

  local path, forced, debian = system.getenv("PATH"), system.getenv("FPCACHE_PG_BINDIR"), programs.debian
  before_each(function() system.setenv("FPCACHE_PG_BINDIR") end)
  after_each(function()
    system.setenv("PATH", path)
    system.setenv("FPCACHE_PG_BINDIR", forced)
    programs.debian = debian
  end)

  it("says where it looked when there are none", function()
    programs.debian = "/nosuch"
    system.setenv("PATH", "/nowhere")
    assert.same({ n = 2, nil, "connect: no PostgreSQL server programs found (looked in PATH, /nosuch/*/bin); "
      .. "install postgresql-15 (Debian: apt-get install postgresql) or set FPCACHE_PG_BINDIR" },
      { n = 2, assert(local_server.new { dir = dir }):start() })
  end)

  it("obeys FPCACHE_PG_BINDIR or refuses it", function()
    system.setenv("FPCACHE_PG_BINDIR", "/nosuch")
    assert.same({ n = 2, nil, "connect: FPCACHE_PG_BINDIR is /nosuch, but there is no postgres and initdb in it" },
      { n = 2, assert(local_server.new { dir = dir }):start() })
    system.setenv("FPCACHE_PG_BINDIR", sql.bindir)
    assert.equal(sql.bindir, programs.find().bindir)
  end)

  it("finds a server in PATH, too", function()
    programs.debian = "/nosuch"
    system.setenv("PATH", sql.bindir)
    assert.equal(sql.bindir, programs.find().bindir)
  end)
end)

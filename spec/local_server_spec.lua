-- local_server_spec.lua -- the private PostgreSQL: real clusters in temporary folders.
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"
local files = require "support.files"
local local_server = require "fpcache.local_server"
local server = require "support.server"
local system = core.system

local unpack = table.unpack or unpack
local IS_ROOT = system.geteuid() == 0

describe("local_server", function()
  local base, made, sql

  local UNSAFE = { fsync = "off" } -- what a spec makes need not survive a power cut

  -- A private server in `dir` (default: a new folder), removed after the test.
  local function new(options)
    options = options or {}
    options.dir = options.dir or base .. "/" .. #made
    options.sync, options.settings = false, options.settings or UNSAFE
    local object = assert(local_server.new(options))
    made[#made + 1] = object
    return object
  end

  local shared_dir -- of a cluster for the tests that need no new one

  local function shared(options)
    options = options or {}
    options.dir, options.sync, options.settings = shared_dir, false, options.settings or UNSAFE
    local object = assert(local_server.new(options))
    assert(object:stop())
    return object
  end

  setup(function()
    sql = server.start()
    shared_dir = assert(system.mkdtemp("/tmp/fpcache-spec-"))
    assert(assert(local_server.new { dir = shared_dir, sync = false, settings = UNSAFE }):start())
  end)
  teardown(function()
    child.clean()
    assert(shared():destroy())
  end)

  before_each(function()
    made = {}
    base = assert(system.mkdtemp("/tmp/fpcache-spec-"))
    assert(system.chmod(base, tonumber("755", 8))) -- the server's account must get through
  end)

  after_each(function()
    for _, object in ipairs(made) do object:destroy() end
    assert(system.remove_tree(base))
    collectgarbage()
    collectgarbage()
    assert.equal(0, core.open_objects())
  end)

  local function query(object, text)
    return sql:sql(text, object:url())
  end

  it("makes a server, starts it, says what there is, and stops it", function()
    local urls = {}
    local s = new { on_start = function(url) urls[#urls + 1] = url return true end }
    assert.same({ state = "absent", dir = s.dir }, s:status())
    local url = assert(s:start())
    assert.equal("postgresql:///fpcache?host=" .. (s.dir .. "/run"):gsub("/", "%%2F") .. "&port=5432&user=fpcache", url)
    assert.equal("fpcache|fpcache|on",
      query(s, "SELECT current_user, current_database(), current_setting('is_superuser')"))
    local status = s:status()
    assert.equal("running", status.state)
    assert.equal(url, status.url)
    assert.equal(query(s, "SELECT current_setting('server_version_num')::int / 10000"), tostring(status.version))
    assert.truthy(system.kill(status.pid, 0))

    assert.equal(url, s:start()) -- nothing to do
    assert.same({ url }, urls)
    assert.is_true(s:stop())
    assert.is_true(s:stop())
    assert.equal("stopped", s:status().state)
    assert.is_nil(s:status().pid)
    assert.equal(url, s:start())
    assert.same({ url, url }, urls)
  end)

  it("is fit for a cache, and shut to the network", function()
    local s = shared { settings = {} }
    s:start()
    local settings = { listen_addresses = "", synchronous_commit = "off", wal_level = "minimal",
      fsync = "on", server_encoding = "UTF8", autovacuum = "on", logging_collector = "on", max_connections = "100",
      shared_buffers = "128MB", unix_socket_directories = s.dir .. "/run" }
    if s:status().version >= 11 then settings.jit = "off" end
    for name, value in pairs(settings) do
      assert.equal(value, (query(s, "SHOW " .. name):gsub('^"(.*)"$', "%1")), name)
    end
    assert.equal("C", query(s, "SELECT datcollate FROM pg_database WHERE datname = 'fpcache'"))
    assert.equal(tonumber("700", 8), system.stat(s.dir .. "/data").mode)
    assert.equal(tonumber("700", 8), system.stat(s.dir .. "/run").mode)
  end)

  it("keeps UNLOGGED rows over a fast stop", function()
    local s = shared()
    s:start()
    query(s, "CREATE UNLOGGED TABLE t AS SELECT 7 AS n")
    s:stop()
    s:start()
    assert.equal("7", query(s, "TABLE t"))
    s:stop("immediate")
    s:start()
    assert.equal("", query(s, "TABLE t"))
    assert.has_error(function() s:stop("slow") end, 'mode: "fast" or "immediate" expected, got slow')
  end)

  it("outlives the process that started it", function()
    local s = shared()
    local result = child.run([[
      local s = assert(require("fpcache.local_server").new { dir = ..., sync = false, settings = { fsync = "off" } })
      io.write(assert(s:start()))]], { s.dir })
    assert.equal(0, result.status, result.output)
    assert.equal("running", s:status().state)
    assert.equal(result.output, s:start())
    assert.equal("1", query(s, "SELECT 1"))
  end)

  it("is started once by processes that start at once", function()
    local what = child.command([[
      local dir = ...
      local settings = { fsync = "off" }
      local s = assert(require("fpcache.local_server").new { dir = dir, sync = false, settings = settings, on_start = function()
        local file = assert(io.open(dir .. "/started", "a"))
        file:write("once\n")
        file:close()
        return true
      end })
      io.write(assert(s:start()), "\n")]], { base .. "/race" })
    local result = assert(core.run {
      argv = { "sh", "-c", 'for i in 1 2 3 4 5; do "$@" & done; wait', "sh", unpack(what.argv) },
      env = what.env,
    })
    local s = new { dir = base .. "/race" }
    assert.equal((s:url() .. "\n"):rep(5), result.output)
    assert.equal("once\n", files.read(s.dir .. "/started"))
  end)

  it("takes a folder in which another process is about to put its marker", function()
    local folder = require "fpcache.local_server.folder"
    local dir = base .. "/half"
    assert(folder.make(dir))
    assert(folder.write(dir .. "/fpcache-local-server.new.new", "")) -- what is not our own name is foreign
    assert.is_nil(folder.make(dir))
    assert(system.unlink(dir .. "/fpcache-local-server.new.new"))
    assert(folder.write(dir .. "/fpcache-local-server.new", ""))
    assert.is_true(folder.make(dir))
  end)

  it("runs a failed setup again, and lets go of its lock when the setup raises", function()
    local answer
    local s = shared { timeout = 20, on_start = function() return answer() end }
    answer = function() return nil, "schema: not today" end
    assert.same({ n = 2, nil, "schema: not today" }, { n = 2, s:start() })
    answer = function() error("broken setup", 0) end
    assert.has_error(function() s:start() end, "broken setup")
    local calls = 0
    answer = function() calls = calls + 1 return true end
    assert.truthy(s:start())
    assert.truthy(s:start())
    assert.equal(1, calls)
  end)

  it("makes the database again if it was dropped", function()
    local s = shared()
    s:start()
    sql:sql("DROP DATABASE fpcache", (s:url():gsub("///fpcache", "///postgres")))
    s:stop()
    s:start()
    assert.equal("fpcache", query(s, "SELECT current_database()"))
  end)

  it("starts after a crash, whoever has the old process number now", function()
    local lines = {}
    local s = shared { log = function(line) lines[#lines + 1] = line end }
    s:start()
    local pid = s:status().pid
    assert(system.kill(pid, 9))
    assert.is_truthy(database.eventually(function() return s:status().state ~= "running" end)) -- its children end by themselves
    -- As after a reboot: the number is that of a living process, ours.
    local file = s.dir .. "/data/postmaster.pid"
    files.write(file, (files.read(file):gsub("^%d+", tostring(system.pid()))))
    assert.equal("stopped", s:status().state)
    assert.is_true(s:stop()) -- must not hit us
    assert.truthy(s:start())
    assert.equal("1", query(s, "SELECT 1"))
    assert.equal("removing the lock files of a server that did not stop cleanly", lines[#lines])
  end)

  it("starts again when its socket was swept away", function()
    local s = shared()
    s:start()
    assert(system.unlink(s.dir .. "/run/.s.PGSQL.5432"))
    assert.truthy(s:start())
    assert.equal("1", query(s, "SELECT 1"))
  end)

  it("tells the end of the log when the server does not start, and leaves nothing running", function()
    local s = shared()
    s:start()
    s:stop()
    files.write(s.dir .. "/custom.conf", "max_connections = 'many'\n")
    assert(system.chmod(s.dir .. "/custom.conf", tonumber("644", 8)))
    local url, err = s:start()
    assert.is_nil(url)
    assert.matches("^connect: the private server ended while it started; the server's log ends with:\n", err)
    assert.truthy(err:find('invalid value for parameter "max_connections": "many"', 1, true), err)
    assert.is_nil(err:find("received fast shutdown request", 1, true), "the end of an older log")
    assert.equal("stopped", s:status().state)
    assert(system.unlink(s.dir .. "/custom.conf"))
    assert.truthy(s:start())
  end)

  it("works in a folder with any name", function()
    local s = new { dir = base .. [[/a "b" 'c' $(touch x) `d`, é\n %s]] }
    assert.truthy(s:start())
    assert.equal("1", query(s, "SELECT 1"))
    local object, err = local_server.new { dir = "/tmp/a\nb" }
    assert.is_nil(object)
    assert.equal("invalid: the folder's name is empty or has control characters", err)
  end)

  it("puts the socket elsewhere if the path would be too long", function()
    local s = new { dir = base .. "/" .. ("long"):rep(25) }
    local url = assert(s:start())
    assert.equal("1", query(s, "SELECT 1"))
    local short = files.read(s.dir .. "/socket-dir"):gsub("\n", "")
    assert.truthy(url:find("host=" .. short:gsub("/", "%%2F") .. "&", 1, true))
    assert.equal(tonumber("700", 8), system.stat(short).mode)
    s:stop()
    assert(system.remove_tree(short)) -- as a cleaner of /tmp does
    assert.truthy(s:start())
    assert.equal("1", query(s, "SELECT 1"))
    short = files.read(s.dir .. "/socket-dir"):gsub("\n", "")
    assert.is_true(s:destroy())
    assert.is_nil(system.lstat(short))
    assert.is_nil(system.lstat(s.dir))
  end)

  it("touches no folder that is not its own", function()
    local dir = base .. "/foreign"
    assert(system.mkdir(dir))
    files.write(dir .. "/thesis.txt", "ten years of work")
    local s = new { dir = dir }
    local words = ("invalid: %s is not empty and is no private server of fpcache; choose another folder"):format(dir)
    assert.same({ n = 2, nil, words }, { n = 2, s:start() })
    assert.same({ n = 2, nil, ("invalid: %s is no private server of fpcache; nothing was removed"):format(dir) },
      { n = 2, s:destroy() })
    assert.equal("absent", s:status().state)
    assert.is_true(s:stop())
    assert.same({ "thesis.txt" }, system.readdir(dir))
    s = new { dir = dir .. "/thesis.txt" }
    assert.same({ n = 2, nil, ("invalid: %s is not a folder"):format(s.dir) }, { n = 2, s:start() })
  end)

  it("removes all of its own, also while running, and nothing twice", function()
    local s = new()
    assert.is_true(s:destroy())
    s:start()
    local pid = s:status().pid
    assert.is_true(s:destroy())
    assert.is_nil(system.lstat(s.dir))
    assert.equal("absent", s:status().state)
    assert.equal("", files.read(("/proc/%d/cmdline"):format(pid)) or "") -- gone, or dead and not yet waited for
    assert.is_true(s:destroy())
  end)

  it("waits for another process no longer than its timeout", function()
    local s = shared()
    s:start()
    s:stop()
    local lock = assert(core.lock(s.dir .. "/lock"))
    local impatient = assert(local_server.new { dir = s.dir, timeout = 0.1 })
    assert.same({ n = 2, nil, ("timeout: another process has been starting or stopping the server in %s for 0.1 s")
      :format(s.dir) }, { n = 2, impatient:start() })
    lock:close()
  end)

  it("gives the server nothing of our environment", function()
    system.setenv("FPCACHE_SPEC_SECRET", "hunter2")
    system.setenv("PGPORT", "7777")
    system.setenv("PGOPTIONS", "-c nonsense=1")
    local s = shared()
    local url, err = s:start()
    for _, name in ipairs { "FPCACHE_SPEC_SECRET", "PGPORT", "PGOPTIONS" } do system.setenv(name) end
    assert.equal(s:url(), url, err)
    local environ = query(s, "CREATE TEMP TABLE e(line text); COPY e FROM PROGRAM 'env'; TABLE e")
    assert.truthy(environ:find("HOME=/\n", 1, true))
    assert.is_nil(environ:find("hunter2", 1, true))
  end)

  it("refuses wrong options by name", function()
    assert.has_error(function() local_server.new { direction = "x" } end, "options.direction: unknown option")
    assert.has_error(function() local_server.new { dir = 5 } end, "options.dir: string expected, got number")
    for _, timeout in ipairs { 0, -1, 0 / 0, math.huge } do
      assert.same({ n = 2, nil, "invalid: timeout must be a number of seconds above 0" },
        { n = 2, local_server.new { timeout = timeout } })
    end
  end)

  it("runs a cluster only with the version that made it", function()
    local s = shared()
    s:start()
    s:stop()
    assert(system.rename(s.dir .. "/data/PG_VERSION", s.dir .. "/true-version"))
    files.write(s.dir .. "/data/PG_VERSION", "7\n")
    local url, err = s:start()
    assert(system.rename(s.dir .. "/true-version", s.dir .. "/data/PG_VERSION"))
    assert.is_nil(url)
    assert.matches("^connect: the cluster was made by PostgreSQL 7, whose programs are not installed", err)
  end)

  describe("as another user", function()
    if not IS_ROOT then return end
    local nobody = system.user("nobody")

    it("root's server runs under an account of its own, which owns only what it needs", function()
      local lines = {}
      local s = shared { log = function(line) lines[#lines + 1] = line end }
      s:start()
      local account = system.user("postgres") or nobody
      assert.equal(("PostgreSQL refuses to run as root: the server runs as %s, in %s"):format(account.name, s.dir),
        lines[1])
      assert.equal(0, system.stat(s.dir).uid)
      assert.equal(tonumber("711", 8), system.stat(s.dir).mode)
      for _, name in ipairs { "data", "run", "log" } do
        assert.equal(account.uid, system.stat(s.dir .. "/" .. name).uid, name)
      end
      assert.equal(account.name, query(s, "CREATE TEMP TABLE w(n text); COPY w FROM PROGRAM 'id -un'; TABLE w"))
    end)

    it("an unprivileged user has a whole server of its own", function()
      local home = base .. "/home"
      assert(system.mkdir(home, tonumber("700", 8)))
      assert(system.chown(home, nobody.uid, nobody.gid))
      local result = child.run([[
        local local_server = require "fpcache.local_server"
        local system = require("fpcache.core").system
        local s = assert(local_server.new { sync = false, settings = { fsync = "off" }, log = print })
        assert(s.dir == os.getenv("HOME") .. "/.local/state/fpcache", s.dir)
        assert(s:start() == s:url())
        local status = assert(s:status())
        assert(status.state == "running")
        assert(system.stat(s.dir).mode == tonumber("700", 8))
        assert(system.stat(s.dir .. "/data").uid == system.geteuid())
        assert(s:stop())
        assert(s:start())
        assert(s:destroy())
        assert(not system.lstat(s.dir))
        print(local_server.default_dir())]], nil,
        { uid = nobody.uid, gid = nobody.gid, env = { "HOME=" .. home, "XDG_STATE_HOME=relative" } })
      assert.equal(0, result.status, result.output)
      assert.truthy(result.output:find(home .. "/.local/state/fpcache\n", 1, true))
      result = child.run([[io.write((require("fpcache.local_server").default_dir()))]], nil,
        { uid = nobody.uid, gid = nobody.gid, env = { "XDG_STATE_HOME=/x/state" } })
      assert.equal("/x/state/fpcache", result.output)
      assert.equal("/var/lib/fpcache", (local_server.default_dir()))
    end)

    it("another user's folder is refused", function()
      local s = shared()
      s:start()
      local result = child.run([[
        local s = assert(require("fpcache.local_server").new { dir = ... })
        print(select(2, s:start()))]], { s.dir }, { uid = nobody.uid, gid = nobody.gid })
      assert.matches("^denied: ", result.output)
      assert.equal("running", s:status().state)
    end)

    it("a closed folder on the way is named", function()
      assert(system.chmod(base, tonumber("700", 8)))
      local url, err = new():start()
      assert.is_nil(url)
      local account = system.user("postgres") or nobody
      assert.truthy(err:find(("; the account %s cannot enter %s: choose another folder with --dir")
        :format(account.name, base), 1, true), err)
    end)
  end)

end)

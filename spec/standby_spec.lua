-- standby_spec.lua -- a hot standby: what a cache does there, and when it takes over.
-- The same SQL and C on LuaJIT; and a sanitizer sees these paths where a server fails (faults_spec.lua).
if rawget(_G, "jit") or os.getenv("ASAN_OPTIONS") then return end

local admin = require "fpcache.admin"
local core = require "fpcache.core"
local database = require "support.database"
local doctor = require "fpcache.doctor"
local folder = require "fpcache.local_server.folder"
local fpcache = require "fpcache"
local server = require "support.server"

local system = core.system
local eventually = database.eventually

local HBA = [[
local all all trust
local replication all trust
]]
local IS_STANDBY = "; either this server is a standby, and unlogged tables live on the primary only "
  .. "(connect with target_session_attrs=read-write), or the role or database has default_transaction_read_only on "

describe("a hot standby", function()
  local primary, host, opened
  local account = folder.account()

  --- A program of PostgreSQL, as the account that its servers run as.
  local function command(argv, more)
    local what = { argv = argv, timeout = 60, uid = account and account.uid, gid = account and account.gid }
    for name, value in pairs(more or {}) do what[name] = value end
    return what
  end

  local function run(argv)
    local result = assert(core.run(command(argv)))
    assert.equal(0, result.status, result.output)
  end

  local function url_at(where) return ("postgresql:///fpcache?user=fpcache&host=%s"):format(where) end

  --- A new cache; closed at the end.
  local function open(opts)
    opts.max_staleness, opts.feed_interval = 0.5, 0.02
    local cache = assert(fpcache.new(opts))
    opened[#opened + 1] = cache
    return cache
  end

  setup(function()
    opened = {}
    primary = server.new({ wal_level = "replica", max_wal_senders = "3", hot_standby = "on" }, HBA)
    host = primary.dir .. "/standby"
    assert(system.mkdir(host, tonumber("700", 8)))
    if account then assert(system.chown(host, account.uid, account.gid)) end
    assert(admin.setup { connection_string = primary.url })
    assert(admin.setup { connection_string = primary.url, schema = "kept", logged = true })
    run { primary.bindir .. "/pg_basebackup", "-d", primary.url, "-D", host .. "/data", "-R", "-c", "fast", "--no-sync" }
    assert(core.spawn(command({ primary.bindir .. "/postgres", "-D", host .. "/data", "-c", "config_file=" .. primary.dir
      .. "/server.conf", "-k", host, "-c", "logging_collector=off" }, { log = primary.dir .. "/log/standby.log" })))
    assert(eventually(function()
      return core.run(command { primary.bindir .. "/pg_isready", "-q", "-d", url_at(host) }).status == 0
    end))
  end)

  teardown(function()
    for _, cache in ipairs(opened) do cache:close() end
    core.run(command { primary.bindir .. "/pg_ctl", "-D", host .. "/data", "-m", "immediate", "stop" })
    primary:destroy()
    database.assert_nothing_open()
  end)

  it("has no unlogged cache, and opening one says why", function()
    local cache, err = fpcache.new { connection_string = url_at(host) }
    assert.is_true(cache == nil)
    assert.equal("server: cannot access temporary or unlogged relations during recovery" .. IS_STANDBY .. "(SQLSTATE 0A000)", err)
    local findings, levels = assert(doctor.examine { connection_string = url_at(host) }), {}
    for _, finding in ipairs(findings) do levels[finding.name] = finding.level end
    assert.equal("bad", levels.server)
  end)

  it("answers from a logged cache, but nothing without being asked; and takes over", function()
    local writer = open { connection_string = primary.url, schema = "kept", feed = false }
    local reader = open { connection_string = url_at(host), schema = "kept" }
    local both = open { connection_string = url_at(primary.host .. "," .. host) .. "&target_session_attrs=read-write" }
    assert(writer:set("k", 1))
    assert(eventually(function() return reader:get("k") end))
    -- What is committed at the primary while another transaction is open is seen here as if both were: a change could be
    -- overlooked for ever.
    for _ = 1, 3 do assert.equal("db", (select(3, reader:get("k")))) end
    assert.equal("db", (select(3, reader:get("absent"))))
    local ok, err = reader:wait_ready(5)
    assert.is_nil(ok)
    assert.equal("invalid: the change feed is switched off for this schema (`fpcache admin feed on`), or this server is a "
      .. "standby, where it cannot be followed", err)
    assert.equal("off", reader:stats().feed.state)
    err = select(2, reader:set("k", 2))
    assert.equal("server: cannot execute INSERT in a read-only transaction" .. IS_STANDBY .. "(SQLSTATE 25006)", err)
    for _, finding in ipairs(assert(doctor.examine { connection_string = url_at(host), schema = "kept" })) do
      if finding.name == "server" then assert.matches("near cache and filter do not answer", finding.seen, 1, true) end
    end

    assert(both:set("gone", 1))
    assert(both:wait_ready(20))
    assert(eventually(function() return (select(3, both:get("gone"))) == "near" end))
    primary:stop("immediate")
    run { primary.bindir .. "/pg_ctl", "-D", host .. "/data", "-w", "promote" }
    assert(eventually(function() return both:set("new", 1) end))
    assert(both:wait_ready(20))
    assert.is_nil((both:get("gone")))
    assert.equal(1, (both:get("new")))
    assert.is_true(both:stats().feed.incarnation_changes > 0)

    assert(eventually(function() return reader:wait_ready(1) end)) -- it may have been asking a server that was closing
    assert(reader:set("k", 3))
    assert(eventually(function() return (select(3, reader:get("k"))) == "near" end))
    assert.equal(3, (reader:get("k")))
    assert.equal("filter", (select(3, reader:get("absent"))))
  end)
end)

-- faults_spec.lua -- servers and connections that fail, and what a caller sees of it.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local interpreter = require "support.interpreter"

local system = core.system
local SIGSTOP, SIGCONT = 19, 18

describe("a fault", function()
  local db, srv

  setup(function()
    db = database.new()
    srv = db.srv
  end)
  before_each(function() db:sql("TRUNCATE cache") end)
  after_each(function() db:close_all() end)

  local function refused(opts)
    local cache, err = fpcache.new(opts)
    assert.is_nil(cache)
    database.assert_nothing_open()
    return err
  end

  -- Runs SQL as the superuser in a process of its own, once `condition` holds on the server.
  local function in_background(condition, sql)
    local log = os.tmpname()
    assert(core.spawn { argv = { srv.psql, "-XAtq", "-d", db.url, "-c", ([[DO $do$ BEGIN
      FOR i IN 1 .. 4000 LOOP
        PERFORM pg_stat_clear_snapshot();
        EXIT WHEN %s;
        PERFORM pg_sleep(0.005);
      END LOOP;
      %s;
    END $do$]]):format(condition, sql) }, log = log })
    return log
  end

  it("by too few file descriptors says so, wherever they end", function()
    if os.getenv("ASAN_OPTIONS") then return end -- a sanitizer needs some itself
    local shell = interpreter.new()
    local script = shell:file("few.lua", [[
      local fpcache = require "fpcache"
      local cache, err = fpcache.new { connection_string = ... }
      local ok = cache
      if cache then ok, err = cache:set("few", 1) end
      if ok then ok, err = cache:transaction(function(tx) return tx:get("few") end) end
      print(ok and "done" or err)]])
    local seen = {}
    for limit = 5, 24 do
      local answer = shell { "-c", ('ulimit -n %d; exec "$0" "$@"'):format(limit), interpreter.path, script, db:url_of(),
        program = "/bin/sh" }
      local said = answer.code == 0 and answer.out or answer.err
      assert.is_true(said == "done\n" or said:find("Too many open files", 1, true) ~= nil
        or said:find("error while loading shared libraries", 1, true) ~= nil
        or said:find("no memory or no descriptors (ulimit -n)", 1, true) ~= nil, limit .. ": " .. said)
      seen[said] = limit
      if said == "done\n" then break end
    end
    assert.is_truthy(seen["memory: could not start the feed: no memory or no descriptors (ulimit -n)\n"])
    assert.is_truthy(seen["done\n"])
    shell:remove()
  end)

  it("by no file descriptor left is an error of what needs a task, and no more when there is one", function()
    if os.getenv("ASAN_OPTIONS") then return end
    local shell = interpreter.new()
    local script = shell:file("none.lua", [[
      local fpcache = require "fpcache"
      local function nothing() return "ran" end
      local files = {}
      repeat files[#files + 1] = io.open("/dev/null") until #files > 100 or not io.open("/dev/null")
      collectgarbage()
      repeat files[#files + 1] = io.open("/dev/null") until not io.open("/dev/null") -- its own was collected
      print(fpcache.spawn(nothing))
      print(fpcache.parallel { each = { 1, 2 }, run = nothing })
      print(fpcache.completions_fd())
      print(fpcache.sleep(0.01))
      print(fpcache.step(0.01))
      print(fpcache.run())
      files[1]:close()
      print(fpcache.await(fpcache.spawn(nothing)))]])
    local answer = shell { "-c", 'ulimit -n 24; exec "$0" "$@"', interpreter.path, script, program = "/bin/sh" }
    local none = "nil\tmemory: could not make an eventfd: Too many open files\n"
    assert.equal("", answer.err)
    assert.equal(none:rep(4) .. "nil\ntrue\nran\n", answer.out)
    shell:remove()
  end)

  describe("at the login", function()
    it("by a wrong password is auth, and tells no password", function()
      db:url_of("guarded", "right word")
      assert.is_true(db:open { connection_string = srv:url_for("guarded", "right word", db.name) }:ping())
      db:close_all()
      local err = refused { connection_string = srv:url_for("guarded", "wrong word", db.name) }
      assert.equal('auth: password authentication failed for user "guarded" (SQLSTATE 28P01)', err)
      err = refused { host = srv.host, port = srv.port, database = db.name, user = "guarded", password = "wrong word" }
      assert.equal('auth: password authentication failed for user "guarded" (SQLSTATE 28P01)', err)
      err = refused { connection_string = srv:url_for("guarded", nil, db.name), libpq = { passfile = "/nowhere" } }
      assert.matches("^auth: .*no password supplied", err)
    end)

    it("by an unknown role is auth", function()
      assert.equal('auth: role "nobody" does not exist (SQLSTATE 28000)',
        refused { connection_string = srv:url_for("nobody", nil, db.name) })
    end)

    it("by an unknown database is connect", function()
      assert.equal('connect: database "none" does not exist (SQLSTATE 3D000)',
        refused { connection_string = srv:url_for("app", nil, "none") })
    end)

    it("by no server is connect", function()
      assert.matches("^connect: .*No such file or directory", refused { host = "/nowhere", port = 5432 })
      assert.matches("^connect: .*[Cc]onnection refused", refused { host = "127.0.0.1", port = 1 })
      assert.matches("^connect: ", refused { connection_string = "postgresql://no.such.host.invalid/x",
        connect_timeout = 2 })
    end)

    it("by a server that does not answer ends within connect_timeout", function()
      local pid = assert(srv.server:status()).pid
      local before = system.now()
      assert(system.kill(pid, SIGSTOP))
      local called, err = pcall(refused, { connection_string = srv:url_for("app", nil, db.name), connect_timeout = 0.3 })
      assert(system.kill(pid, SIGCONT))
      assert(called, err)
      assert.matches("^connect: no answer from .* port 5432 in time %(connect_timeout%)$", err)
      assert.is_true(system.now() - before < 4.5) -- it would be 5 s without being told
    end)

    it("by too many connections is connect", function()
      db:url_of("limited")
      db:sql("ALTER ROLE limited CONNECTION LIMIT 1")
      local cache = db:open { as = "limited", timeout = 0.2 } -- so long it waits for its own one
      cache:transaction(function()
        local value, err = cache:get("k")
        assert.is_nil(value)
        assert.equal('connect: too many connections for role "limited" (SQLSTATE 53300)', err)
      end)
      assert.is_true(cache:ping())
    end)
  end)

  describe("of the schema", function()
    it("that is not there is schema, with what to do", function()
      assert.equal('schema: relation "none.fpcache_schema" does not exist; run `fpcache admin setup` on this database '
        .. "(SQLSTATE 42P01)", refused { connection_string = db.url, schema = "none" })
      local _, empty = srv:fresh_database()
      assert.equal('schema: relation "public.fpcache_schema" does not exist; run `fpcache admin setup` on this '
        .. "database (SQLSTATE 42P01)", refused { connection_string = srv:url_for("app", nil, empty) })
    end)

    it("of another version is schema, with what to do", function()
      assert(admin.setup { connection_string = db.url, schema = "later" })
      db:sql("INSERT INTO later.fpcache_schema (version, name) VALUES (77, 'x')")
      assert.matches("^schema: the database has version 77 and this fpcache needs %d+; install a newer fpcache$",
        refused { connection_string = db.url, schema = "later" })
      db:sql("DELETE FROM later.fpcache_schema")
      assert.equal("schema: the tables are not set up; run `fpcache admin setup` on this database",
        refused { connection_string = db.url, schema = "later" })
    end)

    it("without rights is denied, with what to do", function()
      assert(admin.setup { connection_string = db.url, schema = "closed" })
      local words = "; the owner grants it with `fpcache admin setup --grant ROLE` (SQLSTATE 42501)"
      assert.equal("denied: permission denied for schema closed" .. words,
        refused { connection_string = db:url_of(), schema = "closed" })
      db:sql("GRANT USAGE ON SCHEMA closed TO app; GRANT SELECT ON closed.fpcache_schema TO app")
      local cache = assert(fpcache.new { connection_string = db:url_of(), schema = "closed" })
      for name, args in pairs { get = { "k" }, set = { "k", 1 }, set_many = { { k = 1 } }, keys = {} } do
        assert.equal("denied: permission denied for table cache" .. words,
          select(2, cache[name](cache, (table.unpack or unpack)(args))))
      end
      cache:close()
    end)

    it("that vanishes while it is used is schema", function()
      assert(admin.setup { connection_string = db.url, schema = "going", grant = "public" })
      local cache = assert(fpcache.new { connection_string = db:url_of(), schema = "going" })
      assert(cache:set("k", 1))
      assert(admin.drop { connection_string = db.url, schema = "going" })
      assert.matches('^schema: relation "going.fpcache_entries" does not exist; run `fpcache admin setup`',
        select(2, cache:get("k")))
      cache:close()
    end)
  end)

  describe("of a connection", function()
    it("that was ended while idle is not seen", function()
      local cache = db:open { as = "ended", minconn = 3, feed = false }
      assert(cache:set("k", 1))
      assert.equal("3", db:sql("SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        .. "WHERE usename = 'ended'"))
      assert.equal(1, cache:get("k"))
      assert.is_true((cache:set("k", 2)))
      assert.equal(3, cache:stats().pool.closed_broken)
    end)

    it("that the server ends in the middle is tried once more: nothing had happened", function()
      local cache = db:open { as = "victim" }
      assert(cache:set("n", 1))
      local holder = db:open { connection_string = db.url }
      holder:transaction(function(tx)
        assert(tx:query("LOCK TABLE cache"))
        in_background("EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'victim' AND wait_event_type = 'Lock')",
          "PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'victim'; "
          .. "PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'fpcache' "
          .. "AND datname = current_database() AND pid <> pg_backend_pid()")
        assert.equal(2, cache:incr("n"))
      end)
      assert.equal(2, cache:get("n"))
      assert.equal(2, cache:stats().pool.opened)
    end)

    it("that is old or was idle for long is replaced", function()
      local cache = db:open { max_lifetime = 1e-6 }
      for _ = 1, 3 do assert.is_true(cache:ping()) end
      assert.is_true(cache:stats().pool.closed_old >= 3)
      cache = db:open { idle_timeout = 1e-6, minconn = 1 }
      cache:transaction(function() assert.is_true(cache:ping()) end)
      assert.is_true(cache:ping())
      assert.equal(1, cache:stats().pool.closed_idle)
      assert.equal(1, cache:stats().pool.idle)
    end)
  end)

  describe("of time", function()
    local function locked(run)
      db:open { connection_string = db.url }:transaction(function(tx)
        assert(tx:query("LOCK TABLE cache"))
        run()
      end)
    end

    it("by a lock of somebody else is timeout within the deadline", function()
      local cache, patient = db:open { timeout = 0.2, bulk_timeout = 0.2 }, db:open()
      assert(patient:set("k", 1))
      locked(function()
        for name, args in pairs { get = { "k" }, set = { "k", 2 }, set_many = { { k = 2 } }, keys = {},
          incr = { "k" } } do
          local before = system.now()
          local value, err = cache[name](cache, (table.unpack or unpack)(args))
          assert.is_nil(value)
          assert.matches("^timeout: ", err, nil, name)
          assert.is_true(system.now() - before < 4.5, name) -- it would be 5 s or a minute without being told
        end
        local ok, err = cache:transaction(function(tx) return tx:set("k", 2) end)
        assert.is_nil(ok)
        assert.matches("^timeout: ", err)
      end)
      assert.equal(1, patient:get("k"))
      assert.equal(0, cache:stats().pool.lent)
    end)

    it("by a server that stopped to answer is timeout within the deadline", function()
      local cache = db:open { timeout = 1 }
      assert(cache:set("k", 1))
      local pid = cache:transaction(function(tx) return tx:query("SELECT pg_backend_pid() AS p")[1].p end)
      assert(system.kill(pid, SIGSTOP))
      local before = system.now()
      local value, err = cache:get("k")
      local waited = system.now() - before
      assert(system.kill(pid, SIGCONT))
      assert.is_nil(value)
      assert.equal("timeout: no answer from the server in time", err)
      assert.is_true(waited >= 0.99 and waited < 4.5)
      assert.equal(1, cache:get("k"), "on another connection")
      assert(system.kill(cache:transaction(function(tx) return tx:query("SELECT pg_backend_pid() AS p")[1].p end),
        SIGCONT))
    end)

    it("without session settings, as behind a pooler, says that a change may still happen", function()
      local cache = db:open { timeout = 1, prepared = false }
      locked(function()
        local ok, err = cache:set("k", 2)
        assert.is_nil(ok)
        assert.equal("timeout: no answer from the server in time: the change may still happen", err)
      end)
      assert.is_true(cache:ping())
    end)
  end)

  describe("of the server", function()
    it("that restarts is not seen by the next call", function()
      local cache = db:open { minconn = 2 }
      assert(cache:set("k", 1))
      srv:restart("fast")
      assert.equal(1, cache:get("k"))
      assert.is_true((cache:set("k", 2)))
    end)

    it("that crashes empties the table, and the cache lives on", function()
      local cache = db:open()
      assert(cache:set("k", 1))
      srv:restart("crash")
      local value, err = cache:get("k")
      assert.is_nil(value)
      assert.is_nil(err)
      assert.is_true((cache:set("k", 2)))
      assert.equal(2, cache:get("k"))
    end)

    it("that is away is connect for every call, until it is back", function()
      local cache = db:open { near_size = 0 }
      assert(cache:set("k", 1))
      srv:stop("fast")
      local ok, problem = pcall(function()
        for name, args in pairs { get = { "k" }, set = { "k", 2 }, set_many = { { k = 2 } }, keys = {}, ping = {},
          transaction = { print } } do
          local value, err = cache[name](cache, (table.unpack or unpack)(args))
          assert.is_nil(value)
          assert.matches("^connect: ", err, nil, name)
        end
        assert.matches("^connect: ", cache:stats().server_error)
      end)
      srv:start()
      assert(ok, problem)
      assert.equal(1, cache:get("k"))
    end)

    for _, mode in ipairs { "fast", "crash" } do
      it(("that stops in the middle of set_many leaves nothing half-written (%s)"):format(mode), function()
        local cache = db:open()
        local i = 0
        local count, err = cache:set_many(function()
          i = i + 1
          if i == 35 then
            if mode == "crash" then srv:crash() else srv:stop(mode) end
          end
          if i <= 100 then return "key" .. i, i end
        end, { batch = 10 })
        srv:start()
        assert.is_nil(count)
        assert.matches("^connect: ", err)
        assert.equal(0, cache:count(), "nothing half-written, and no new fpcache.new")
        assert.equal(100, cache:set_many((function()
          local n = 0
          return function()
            n = n + 1
            if n <= 100 then return "key" .. n, n end
          end
        end)(), { batch = 10 }))
        assert.equal(100, cache:count())
      end)
    end

    it("that stops in a transaction rolls it back, and says so", function()
      local cache = db:open()
      local ok, err = cache:transaction(function(tx)
        assert(tx:set("k", 1))
        srv:restart("fast")
        return true
      end)
      assert.is_nil(ok)
      assert.matches("^connect: ", err)
      assert.is_false(cache:exists("k"))
    end)
  end)
end)

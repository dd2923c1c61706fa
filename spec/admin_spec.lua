-- admin_spec.lua -- setting the schema up, upgrading, granting, dropping it.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local raises = require "support.raises"
local schema = require "fpcache.schema"

local function quoted(name) return '"' .. name:gsub('"', '""') .. '"' end

describe("admin", function()
  local db

  before_each(function() db = database.new(false) end)
  after_each(function()
    db:close_all()
    db:sql("") -- the connections are gone, so it can be dropped
    db.srv:sql(("DROP DATABASE %s WITH (FORCE)"):format(db.name))
  end)

  local function call(name, opts)
    local options = { connection_string = db.url }
    for key, value in pairs(opts or {}) do options[key] = value end
    local report, err = admin[name](options)
    database.assert_nothing_open()
    return report, err
  end

  local function refused(expected, name, opts)
    local report, err = call(name, opts)
    assert.is_nil(report)
    assert.equal(expected, err)
  end

  describe("setup", function()
    it("makes everything and tells what", function()
      local report = assert(call("setup"))
      assert.equal(schema.VERSION, report.version)
      assert.equal(0, report.version_before)
      assert.equal(#schema.MIGRATIONS, #report.applied)
      assert.same({}, report.granted)
      assert.is_true(report.unlogged and report.isolated and report.has_table)
      assert.equal("public", report.schema)
      assert.equal(db.name, report.database)
      assert.equal("fpcache", report.owner)
      -- the seed's verification query, for both names
      assert.equal("fpcache_entries|UNLOGGED", db:sql([[
        SELECT relname as table_name, CASE relpersistence WHEN 'u' THEN 'UNLOGGED' WHEN 'p' THEN 'PERMANENT'
          WHEN 't' THEN 'TEMPORARY' END as table_type FROM pg_class
        WHERE relname IN ('cache', 'fpcache_entries') AND relkind = 'r']]))
      assert.equal("1", db:sql("SELECT count(*) FROM pg_indexes WHERE tablename = 'cache'"))
    end)

    it("may be repeated and keeps the data", function()
      assert(call("setup"))
      local cache = db:open { connection_string = db.url }
      assert(cache:set("k", 1))
      local report = assert(admin.setup { connection_string = db.url })
      assert.same({}, report.applied)
      assert.equal(schema.VERSION, report.version_before)
      assert.equal(1, cache:get("k"))
    end)

    it("with force makes it anew, without data", function()
      assert(call("setup"))
      local cache = db:open { connection_string = db.url }
      assert(cache:set("k", 1))
      local report = assert(admin.setup { connection_string = db.url, force = true })
      assert.is_true(report.recreated)
      assert.equal(#schema.MIGRATIONS, #report.applied)
      assert.is_nil((cache:get("k")))
      assert.is_true((cache:set("k", 2)), "open caches go on with the new table")
    end)

    it("with force where nothing is", function()
      assert.is_false(assert(call("setup", { force = true })).recreated)
    end)

    it("with logged makes a table that survives a crash", function()
      assert.is_false(assert(call("setup", { logged = true })).unlogged)
      assert.equal("p", db:sql("SELECT relpersistence FROM pg_class WHERE oid = 'fpcache_entries'::regclass"))
      assert.is_false(assert(call("setup")).unlogged, "repeating changes nothing")
      assert.is_true(assert(call("setup", { force = true })).unlogged)
    end)

    it("grants to a role, to several, or to all, also later", function()
      db:url_of("reader")
      db:url_of('wei"rd role')
      assert(call("setup"))
      local opts = { connection_string = db:url_of("reader") }
      assert.matches("^denied: ", select(2, fpcache.new(opts)))
      assert.same({ "reader", 'wei"rd role' }, assert(call("setup", { grant = { "reader", 'wei"rd role' } })).granted)
      assert(db:open(opts):set("k", 1))
      assert.equal(1, db:open(opts):get("k"))
      assert.equal(0, db:open(opts):cleanup())
      assert.is_true(db:open { connection_string = db:url_of('wei"rd role') }:ping())
      assert.matches("^denied: ", select(2, fpcache.new { connection_string = db:url_of() }))
      db:close_all()
      assert.same({ "public" }, assert(call("setup", { grant = "public" })).granted)
      assert(db:open():set("k", 1))
    end)

    it("changes nothing when a grant fails", function()
      refused('server: role "nobody here" does not exist (SQLSTATE 42704)', "setup", { grant = "nobody here" })
      assert.equal("", db:sql("SELECT relname FROM pg_class WHERE relname LIKE '%cache%'"))
      assert.equal("invalid: an SQL name must not be empty", select(2, call("setup", { grant = "" })))
      assert.equal("", db:sql("SELECT relname FROM pg_class WHERE relname LIKE '%cache%'"))
      raises("options.grant: a role's name or a list of them is expected",
        function() admin.setup { connection_string = db.url, grant = { 5 } } end)
    end)

    it("refuses a table that is not ours, and keeps it", function()
      db:sql("CREATE TABLE cache (user_id text, key text, value text); INSERT INTO cache VALUES ('a', 'b', 'c')")
      local words = "schema: there is a table public.cache that fpcache did not make, perhaps by the Python library; "
        .. "choose another schema, or replace it with --force, which deletes what it holds"
      refused(words, "setup")
      refused(words, "upgrade")
      refused(words, "drop")
      assert.equal("a|b|c", db:sql("SELECT * FROM cache"))
      assert.is_true(assert(call("status")).is_foreign)
      assert.is_true(assert(call("setup", { force = true })).recreated)
      assert.is_true(db:open { connection_string = db.url }:ping())
    end)

    it("refuses a schema of a newer version, and keeps it", function()
      assert(call("setup"))
      db:sql("INSERT INTO fpcache_schema (version, name) VALUES (99, 'from the future')")
      local words = ("schema: the database has version 99 and this fpcache knows %d; install a newer fpcache"):format(
        schema.VERSION)
      refused(words, "setup")
      refused(words, "upgrade")
      assert.equal(99, assert(call("status")).version)
      assert.equal("99", db:sql("SELECT max(version) FROM fpcache_schema"))
    end)

    it("is one at a time: others wait for the lock and then find it done", function()
      local code = [[
        local report, err = require("fpcache.admin").setup { connection_string = ... }
        io.write(report and #report.applied or err)]]
      local system = core.system
      local log = assert(system.mkdtemp("/tmp/fpcache-admin-"))
      finally(function() system.remove_tree(log) end)
      local file = assert(io.open(log .. "/code.lua", "w"))
      file:write(code)
      file:close()
      local holder = db:open { connection_string = (function()
        assert(call("setup", { schema = "other" }))
        return db.url
      end)(), schema = "other" }
      assert(holder:transaction(function(tx)
        assert(tx:query("SELECT pg_advisory_xact_lock(7305808869229538304)"))
        for i = 1, 3 do
          assert(core.spawn { argv = { system.exe(), log .. "/code.lua", db.url }, log = log .. "/" .. i,
            env = { "LUA_PATH=" .. package.path, "LUA_CPATH=" .. package.cpath } })
        end
        assert.is_truthy(database.eventually(function()
          return db:sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == "3"
        end), "three wait")
        assert.equal("", db:sql("SELECT relname FROM pg_class WHERE oid = to_regclass('public.cache')"))
        return true
      end))
      local function said(i)
        local input = io.open(log .. "/" .. i)
        local text = input and input:read("*a") or ""
        if input then input:close() end
        return text
      end
      assert.is_truthy(database.eventually(function() return #said(1) > 0 and #said(2) > 0 and #said(3) > 0 end))
      local answers = { said(1), said(2), said(3) }
      table.sort(answers)
      assert.same({ "0", "0", tostring(#schema.MIGRATIONS) }, answers)
    end)

    it("needs the right to create tables", function()
      db:sql("REVOKE CREATE ON SCHEMA public FROM public")
      local report, err = admin.setup { connection_string = db:url_of() }
      assert.is_nil(report)
      assert.equal("denied: permission denied for schema public (SQLSTATE 42501); this needs the owner of the "
        .. "cache, or for a first setup a role that may create tables there", err)
      report, err = admin.setup { connection_string = db:url_of(), schema = "mine" }
      assert.is_nil(report)
      assert.matches("^denied: permission denied for database ", err)
    end)

    it("answers when there is no server, and wants good options", function()
      local report, err = admin.setup { host = "/nowhere", port = 5432 }
      assert.is_nil(report)
      assert.matches("^connect: ", err)
      raises("options.froce: unknown option (did you mean force?)", function() admin.setup { froce = true } end)
      raises("options.logged: boolean is expected, got string", function() admin.setup { logged = "yes" } end)
      raises("options.froce: unknown option (did you mean force?)", function() admin.status { froce = true } end)
      raises("options.froce: unknown option (did you mean force?)", function() admin.drop { froce = true } end)
      raises("options.froce: unknown option (did you mean force?)", function() admin.upgrade { froce = true } end)
      raises("options.froce: unknown option (did you mean force?)",
        function() fpcache.setup_cache { froce = true } end)
    end)
  end)

  describe("schema names", function()
    local NAMES = { 'a"; drop table x; --', "E'q'uote back\\slash", "{schema} $fpcache$ $1", "{table} $_fpcache$ $$",
      "UPPER Case", "日本語\n", "%s %d %%", "select", ("s"):rep(63) }

    it("may be anything that PostgreSQL can hold, for every call", function()
      db:sql("CREATE TABLE x (kept boolean); CREATE SCHEMA " .. quoted("UPPER Case"))
      for _, name in ipairs(NAMES) do
        local report, err = call("setup", { schema = name, grant = "public" })
        assert(report, name .. ": " .. tostring(err))
        assert.equal(name, report.schema)
        local cache = db:open { schema = name }
        assert(cache:set("k", name))
        assert.equal(name, cache:get("k"))
        assert.equal(2, cache:set_many { a = 1, b = 2 })
        assert.equal(1, cache:incr("n"))
        assert(cache:set("old", 1, { expires_at = 1 }))
        assert.equal(1, cache:cleanup())
        assert.equal(4, cache:count())
        assert.is_true(assert(cache:stats()).server.unlogged)
        assert.same({ { v = "1" } }, cache:transaction(function(tx)
          return tx:query(("SELECT %s.cache_get('app', 'a') AS v"):format(quoted(name)))
        end))
        assert(cache:set("old", 1, { expires_at = 1 }))
        assert.same({ { n = 1 } }, cache:transaction(function(tx)
          return tx:query(("SELECT %s.cache_cleanup() AS n"):format(quoted(name)))
        end))
        db:close_all()
        assert.equal(schema.VERSION, assert(call("status", { schema = name })).version)
      end
      for _, name in ipairs(NAMES) do
        assert.is_truthy(call("setup", { schema = name, force = true }))
        assert.is_truthy(call("drop", { schema = name }))
        assert.equal(0, assert(call("status", { schema = name })).version)
      end
      assert.equal("x", db:sql("SELECT relname FROM pg_class WHERE relname = 'x'"))
      assert.equal("", db:sql("SELECT proname FROM pg_proc WHERE proname LIKE 'cache!_%' ESCAPE '!' "
        .. "OR proname LIKE 'fpcache%'"))
    end)

    it("may hold backslashes where these escape in any literal", function()
      local name = "a\\x41'%s"
      db.srv:sql(("ALTER DATABASE %s SET standard_conforming_strings = off"):format(db.name))
      assert(call("setup", { schema = name, grant = "public" }))
      local cache = db:open { schema = name }
      assert(cache:set("k", 1, { tags = "t" }))
      assert.equal(1, cache:invalidate_tag("t"))
    end)

    it("that cannot be are refused", function()
      for _, name in ipairs { "setup", "upgrade", "status", "drop" } do
        refused("invalid: an SQL name must not be empty", name, { schema = "" })
        refused("invalid: an SQL name has at most 63 bytes (PostgreSQL would cut it), got 64", name,
          { schema = ("s"):rep(64) })
      end
      local report, err = call("setup", { schema = "pg_mine" })
      assert.is_nil(report)
      assert.matches('unacceptable schema name "pg_mine"', err)
    end)
  end)

  describe("upgrade", function()
    it("runs what is missing and keeps the data", function()
      local newest, all, grants = #schema.MIGRATIONS, {}, schema.GRANTS
      for i, migration in ipairs(schema.MIGRATIONS) do all[i] = migration end
      local function know(count)
        schema.VERSION = all[count].version
        for i = 1, newest do schema.MIGRATIONS[i] = i <= count and all[i] or nil end
      end
      know(1)
      finally(function()
        know(newest)
        schema.GRANTS = grants
      end)
      schema.GRANTS = [[
        GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.cache TO {role};
        GRANT SELECT ON {schema}.fpcache_schema TO {role}]] -- those of that time name no feed
      db:url_of("guest")
      assert.equal(1, assert(call("setup", { grant = "guest" })).version)
      schema.GRANTS = grants
      db:sql("INSERT INTO cache (key, value, format) VALUES ('old', 'row', 's')")
      know(newest)
      assert.matches("^schema: the database has version 1 and this fpcache needs %d+; run `fpcache admin upgrade`$",
        select(2, fpcache.new { connection_string = db.url }))
      local names = {}
      for i = 2, newest do names[i - 1] = all[i].name end
      assert.same(names, assert(call("upgrade")).applied)
      local cache = assert(fpcache.new { connection_string = db.url })
      assert.equal("fpcache", db:sql("SELECT user_id FROM cache WHERE key = 'old'"))
      assert.equal("row", (cache:get("old")))
      cache:close()
      local guest = assert(fpcache.new { connection_string = db:url_of("guest") })
      assert.is_true(guest:set("k", 1)) -- may write the feed too
      assert(guest:wait_ready(10))
      guest:close()
    end)

    it("creates nothing where nothing is", function()
      refused("schema: nothing to upgrade in schema public; run `fpcache admin setup`", "upgrade")
      refused("schema: nothing to upgrade in schema none; run `fpcache admin setup`", "upgrade", { schema = "none" })
      assert.equal("", db:sql("SELECT nspname FROM pg_namespace WHERE nspname = 'none'"))
    end)

    it("does what is missing, which may be nothing", function()
      assert(call("setup"))
      assert.same({}, assert(call("upgrade")).applied)
    end)
  end)

  describe("status", function()
    it("tells what is there and what is not", function()
      local report = assert(call("status"))
      assert.equal(0, report.version)
      assert.equal(schema.VERSION, report.latest)
      assert.is_false(report.has_table)
      assert.is_false(assert(call("status", { schema = "none" })).has_schema)
      assert(call("setup"))
      report = assert(call("status"))
      assert.equal(schema.VERSION, report.version)
      assert.equal(0, report.rows)
      assert.is_true(report.bytes > 0)
      assert.matches("^PostgreSQL %d+", report.server)
    end)

    it("sees that isolation was switched off", function()
      assert(call("setup"))
      db:sql("ALTER TABLE cache DISABLE ROW LEVEL SECURITY")
      assert.is_false(assert(call("status")).isolated)
    end)
  end)

  it("drop removes all, twice if need be", function()
    assert(call("setup"))
    db:sql("CREATE TABLE mine (a int)")
    assert.is_true(assert(call("drop")).has_table)
    assert.equal("mine", db:sql("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"))
    assert.equal("0", db:sql("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"))
    assert.is_false(assert(call("drop")).has_table)
    local cache, err = fpcache.new { connection_string = db.url }
    assert.is_nil(cache)
    assert.matches("^schema: .*run `fpcache admin setup` on this database", err)
  end)

  it("setup_cache is the same from the package", function()
    local report = assert(fpcache.setup_cache { connection_string = db.url, schema = "my_cache" })
    assert.equal("my_cache", report.schema)
    assert.is_true(db:open { connection_string = db.url, schema = "my_cache" }:ping())
  end)
end)

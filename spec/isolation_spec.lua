-- isolation_spec.lua -- rows belong to the role that logged in; the server sees to it.
local admin = require "fpcache.admin"
local database = require "support.database"

describe("isolation", function()
  local db, ann, bob

  setup(function()
    -- The owner is an ordinary role: forced row-level security holds for it too.
    db = database.new(false)
    db:url_of("keeper")
    db:sql(("GRANT CREATE ON DATABASE %s TO keeper"):format(db.name))
    assert(admin.setup { connection_string = db:url_of("keeper"), schema = "shared" })
    db:url_of("ann")
    db:url_of("bob")
    assert(admin.setup { connection_string = db:url_of("keeper"), schema = "shared", grant = { "ann", "bob" } })
    db.schema = "shared"
  end)
  before_each(function()
    db:sql("TRUNCATE shared.cache")
    ann, bob = db:open { as = "ann" }, db:open { as = "bob" }
  end)
  after_each(function() db:close_all() end)

  local function sql(cache, text, ...)
    local args, count = { ... }, select("#", ...)
    local failure
    local rows = cache:transaction(function(tx)
      local answer, err = tx:query(text, (table.unpack or unpack)(args, 1, count))
      failure = err
      return answer, err
    end)
    return rows, failure
  end

  it("serves who was given rights on the cache alone: the triggers tell for him", function()
    db:url_of("by_hand")
    db:sql([[GRANT USAGE ON SCHEMA shared TO by_hand; GRANT SELECT, INSERT, UPDATE, DELETE ON shared.cache TO by_hand;
      GRANT SELECT ON shared.fpcache_schema, shared.fpcache_namespaces TO by_hand]])
    local cache = db:open { as = "by_hand" }
    assert.is_false(cache.tells)
    local told = db:sql("SELECT count(*) FROM shared.fpcache_feed WHERE user_id = 'by_hand'")
    assert(cache:set("k", 1))
    assert(cache:set_many { k = 2, l = 2 })
    assert.same({ k = 2, l = 2 }, cache:get_many { "k", "l" })
    assert.is_true(cache:delete("k"))
    assert.equal(tonumber(told) + 4, -- the second write is of an old key and a new one
      tonumber(db:sql("SELECT count(*) FROM shared.fpcache_feed WHERE user_id = 'by_hand'")))
    assert.is_nil((db:open({ as = "ann" }):get("l")))
    assert.same({ { ok = true } }, sql(cache, "SELECT shared.cache_set('by_hand', 'p', 'v') AS ok"))
    assert.same({ { value = "v", ttl = -1 } },
      sql(cache, "SELECT shared.cache_get('by_hand', 'p') AS value, shared.cache_ttl('by_hand', 'p') AS ttl"))
    assert.same({ { ok = true } }, sql(cache, "SELECT shared.cache_delete('by_hand', 'p') AS ok"))
    local rows, err = sql(cache, "SELECT 1 FROM shared.fpcache_entries")
    assert.is_nil(rows)
    assert.matches("SQLSTATE 42501", err)
  end)

  it("is the same by either name of the table", function()
    local function by(name)
      return db:sql(([[SELECT string_agg(concat_ws(' ', polname, polcmd, polpermissive, polroles::text,
          pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)), chr(10) ORDER BY polname),
          (SELECT relowner || ' ' || relacl::text FROM pg_class WHERE oid = '%s'::regclass)
        FROM pg_policy WHERE polrelid = '%s'::regclass]]):format(name, name))
    end
    assert.matches("cache_expired_rows.*cache_own_rows", by "shared.cache")
    assert.equal(by("shared.fpcache_entries"), (by("shared.cache"):gsub(",by_hand=[^,}]*", "")))
  end)

  it("gives each role rows of its own, under the same keys", function()
    assert(ann:set("k", "ann's"))
    assert(bob:set("k", "bob's"))
    assert.equal("ann's", ann:get("k"))
    assert.equal("bob's", bob:get("k"))
    assert.same({ "k" }, ann:keys())
    assert.equal(1, ann:count { all = true })
    assert.is_true(ann:delete("k"))
    assert.equal("bob's", bob:get("k"))
    assert.equal(1, ann:set_many { a = 1 })
    assert.equal(0, bob:delete_many { "a" })
    assert.equal(1, ann:clear { all = true })
    assert.equal(1, bob:count())
  end)

  it("lets a role that only reads read, and says why it cannot write", function()
    db:url_of("reader_only")
    assert(admin.setup { connection_string = db:url_of("keeper"), schema = "shared", grant = "reader_only" })
    assert(db:open { as = "reader_only" }:set("k", "before"))
    db:sql("ALTER ROLE reader_only SET default_transaction_read_only = on")
    local reader = db:open { as = "reader_only" }
    assert.equal("before", reader:get("k"))
    local _, err = reader:set("k", 1)
    assert.equal("server: cannot execute INSERT in a read-only transaction; either this server is a standby, and unlogged "
      .. "tables live on the primary only (connect with target_session_attrs=read-write), or the role or database has "
      .. "default_transaction_read_only on (SQLSTATE 25006)", err)
    assert.equal("loaded", (reader:fetch("new", 5, function() return "loaded" end)))
  end)

  it("says why a role with row_security off can do nothing", function()
    local url = db:url_of("open_eyed")
    assert(admin.setup { connection_string = db:url_of("keeper"), schema = "shared", grant = "open_eyed" })
    db:sql("ALTER ROLE open_eyed SET row_security = off")
    local cache, err = require("fpcache").new { connection_string = url, schema = "shared", feed = false }
    assert.is_nil(cache)
    assert.matches("^denied: .*; the role or database has row_security off: ALTER ROLE ... RESET row_security "
      .. "%(SQLSTATE 42501%)$", err)
  end)

  it("hides the others' rows from any SQL", function()
    assert(ann:set("secret", "ann's"))
    assert.same({ { n = 0 } }, sql(bob, "SELECT count(*) AS n FROM shared.cache"))
    assert.same({}, sql(bob, "SELECT * FROM shared.cache WHERE user_id = 'ann'"))
    assert.same({}, sql(bob, "SELECT * FROM shared.valid_cache"))
    assert.equal(0, sql(bob, "UPDATE shared.cache SET value = 'x' WHERE user_id = 'ann'"))
    assert.equal(0, sql(bob, "DELETE FROM shared.cache WHERE user_id = 'ann'"))
    assert.equal("ann's", ann:get("secret"))
  end)

  it("refuses rows in another's name", function()
    local refusal = 'new row violates row%-level security policy for table "cache"'
    local _, err = sql(bob, "INSERT INTO shared.cache (user_id, key, value) VALUES ('ann', 'k', 'x')")
    assert.matches(refusal, err)
    assert(bob:set("mine", 1))
    _, err = sql(bob, "UPDATE shared.cache SET user_id = 'ann'")
    assert.matches(refusal, err)
    -- also over a row that is there, and one that has expired
    assert(ann:set("k", "ann's"))
    assert(ann:set("old", "ann's", { expires_at = 1 }))
    for _, key in ipairs { "k", "old" } do
      _, err = sql(bob, "INSERT INTO shared.cache (user_id, key, value) VALUES ('ann', $1::text::bytea, 'x') "
        .. "ON CONFLICT (user_id, namespace, key) DO UPDATE SET value = excluded.value", key)
      assert.matches(refusal, err)
    end
    assert.equal("ann's", ann:get("k"))
  end)

  it("holds for the Python library's functions", function()
    assert(ann:set("k", "ann's"))
    assert.same({ {} }, sql(bob, "SELECT shared.cache_get('ann', 'k') AS v"))
    assert.same({ { v = false } }, sql(bob, "SELECT shared.cache_exists('ann', 'k') AS v"))
    assert.same({ { v = false } }, sql(bob, "SELECT shared.cache_delete('ann', 'k') AS v"))
    assert.same({ { v = -2 } }, sql(bob, "SELECT shared.cache_ttl('ann', 'k') AS v"))
    local _, err = sql(bob, "SELECT shared.cache_set('ann', 'k', 'x')")
    assert.matches("violates row%-level security policy", err)
    assert.equal("ann's", ann:get("k"))
    assert.same({ { v = "ann's" } }, sql(ann, "SELECT shared.cache_get('ann', 'k') AS v"))
  end)

  it("follows the login, not SET ROLE", function()
    db:sql("GRANT ann TO bob")
    finally(function() db:sql("REVOKE ann FROM bob") end)
    assert(ann:set("k", "ann's"))
    bob:transaction(function(tx)
      assert(tx:query("SET LOCAL ROLE ann"))
      assert.is_nil((tx:get("k")))
      assert.same({}, tx:query("SELECT * FROM shared.cache"))
      assert(tx:set("mine", "bob's"))
      return true
    end)
    assert.equal("bob's", bob:get("mine"))
    assert.is_false(ann:exists("mine"))
  end)

  it("is not opened by the setting of the functions that keep the cache", function()
    assert(ann:set("secret", "ann's", { tags = "t" }))
    bob:transaction(function(tx)
      assert(tx:query("SET LOCAL fpcache.keeps = 'on'"))
      for _, name in ipairs { "cache", "valid_cache", "fpcache_tags" } do
        assert.same({}, tx:query("SELECT * FROM shared." .. name))
      end
      assert.equal(0, tx:query("DELETE FROM shared.cache"))
      assert.equal(0, tx:query("DELETE FROM shared.fpcache_tags"))
      assert.same({ { n = 0 } }, tx:query("SELECT shared.cache_cleanup() AS n"))
      return true
    end)
    local _, err = sql(bob, "SELECT shared.fpcache_forget(NULL, '', ARRAY['secret'::bytea], NULL)")
    assert.matches("SQLSTATE 42501", err)
    assert.equal("ann's", ann:get("secret"))
    -- the owner of the tables sees rows of his own only, too
    local keeper = db:open { as = "keeper" }
    assert.same({}, sql(keeper, "SELECT * FROM shared.cache"))
    assert.same({ { n = 1 } }, sql(keeper, "SELECT shared.fpcache_forget(NULL, '', NULL, ARRAY['t'::bytea]) AS n"))
    assert.is_nil((ann:get("secret")))
    assert.same({}, sql(keeper, "SELECT * FROM shared.fpcache_tags"))
  end)

  it("cannot be switched off by those who use it", function()
    for _, text in ipairs { "ALTER TABLE shared.cache DISABLE ROW LEVEL SECURITY",
      "DROP POLICY cache_own_rows ON shared.cache", "CREATE POLICY mine ON shared.cache USING (true)",
      "ALTER TABLE shared.cache ADD COLUMN x int", "DROP TABLE shared.cache", "TRUNCATE shared.cache",
      "SET SESSION AUTHORIZATION ann", "CREATE TRIGGER t BEFORE INSERT ON shared.cache EXECUTE FUNCTION "
      .. "suppress_redundant_updates_trigger()", "CREATE FUNCTION shared.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
      "INSERT INTO shared.fpcache_schema VALUES (99, 'x')" } do
      local rows, err = sql(bob, text)
      assert.is_nil(rows, text)
      assert.matches("SQLSTATE 42501", err, nil, text)
    end
    assert(ann:set("k", "ann's"))
    -- row_security = off is not a way around it, it is an error
    local _, err = bob:transaction(function(tx)
      assert(tx:query("SET LOCAL row_security = off"))
      return tx:query("SELECT * FROM shared.cache")
    end)
    assert.matches("would be affected by row%-level security", err)
  end)

  it("lets a role tell and hear of changes only in its own name", function()
    assert(ann:set("secret", 1))
    assert.same({ { n = 0 } }, sql(bob, "SELECT count(*) AS n FROM shared.fpcache_feed WHERE user_id <> 'bob'"))
    for _, text in ipairs { "INSERT INTO shared.fpcache_feed (user_id) VALUES ('ann')",
      "INSERT INTO shared.fpcache_feed (xid) VALUES (1)", "INSERT INTO shared.fpcache_feed (slot) VALUES (1)",
      "INSERT INTO shared.fpcache_feed_0 (namespace) VALUES ('')", "DELETE FROM shared.fpcache_feed",
      "UPDATE shared.fpcache_feed SET user_id = 'ann'", "TRUNCATE shared.fpcache_feed",
      "SELECT * FROM shared.fpcache_feed_0" } do
      local rows, err = sql(bob, text)
      assert.is_nil(rows, text)
      assert.matches("SQLSTATE 42501", err, nil, text)
    end
    -- Nor by the function that tells in the name of a row's owner, on a table of his own.
    local _, err = bob:transaction(function(tx)
      assert(tx:query("CREATE TEMPORARY TABLE bait (user_id text, namespace text, key bytea)"))
      return tx:query("CREATE TRIGGER t AFTER INSERT ON bait FOR EACH ROW EXECUTE PROCEDURE shared.fpcache_tell_rows()")
    end)
    assert.matches("permission denied for function .*fpcache_tell_rows", err)
    assert.same({ { user_id = "bob" } }, sql(bob, "INSERT INTO shared.fpcache_feed (namespace, keys) "
      .. "VALUES ('', '{}') RETURNING user_id"))
  end)

  describe("of what the cache keeps for itself", function()
    -- As ALTER DEFAULT PRIVILEGES and GRANT ... ON ALL TABLES leave it, where all of an application's tables are in one schema.
    local ALL = "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shared"
    local INNER = { "fpcache_feed_0", "fpcache_feed_1", "fpcache_feed_2", "fpcache_frozen", "fpcache_passes",
      "fpcache_evictions", "fpcache_watches" }
    local TO_BE_READ = { "fpcache_state", "fpcache_quotas", "fpcache_schema", "fpcache_evicted" }

    before_each(function() db:sql("CREATE ROLE app_owner; GRANT app_owner TO bob; GRANT " .. ALL .. " TO app_owner") end)
    after_each(function() db:sql("REVOKE " .. ALL .. " FROM app_owner; DROP ROLE app_owner") end)

    it("shows nothing to who was granted all tables", function()
      assert(ann:set("inner secret", 1))
      db:sql("INSERT INTO shared.fpcache_quotas VALUES ('ann', 5, NULL)")
      finally(function() db:sql("DELETE FROM shared.fpcache_quotas; DELETE FROM shared.fpcache_evictions") end)
      db:sql("INSERT INTO shared.fpcache_evictions VALUES ('ann', 9223372036854775807, 0)")
      for _, name in ipairs(INNER) do
        assert.same({ { n = 0 } }, sql(bob, ("SELECT count(*) AS n FROM shared.%s"):format(name)), name)
      end
      assert.equal("1", db:sql("SELECT count(*) FROM shared.fpcache_feed WHERE keys[1] = 'inner secret'"))
    end)

    it("is not changed by him either", function()
      db:sql("INSERT INTO shared.fpcache_quotas VALUES ('ann', 5, NULL)")
      finally(function() db:sql("DELETE FROM shared.fpcache_quotas; DELETE FROM shared.fpcache_evictions") end)
      assert(ann:set("k", 1))
      for _, text in ipairs { "UPDATE shared.fpcache_state SET marker = 0", "DELETE FROM shared.fpcache_state",
        "UPDATE shared.fpcache_quotas SET max_entries = 0",
        "UPDATE shared.fpcache_evicted SET total = 7", "DELETE FROM shared.fpcache_schema",
        "DELETE FROM shared.fpcache_feed_0", "DELETE FROM shared.fpcache_feed_1", "DELETE FROM shared.fpcache_feed_2",
        "UPDATE shared.fpcache_passes SET began = now()" } do
        assert.equal(0, sql(bob, text), text)
      end
      for _, text in ipairs { "fpcache_evictions VALUES ('ann', 9223372036854775807, 1000)", "fpcache_quotas VALUES ('', 0, 0)",
        "fpcache_state (single) VALUES (true)", "fpcache_schema (version, name) VALUES (99, 'x')",
        "fpcache_feed_0 (slot, user_id, namespace) VALUES (1, 'ann', '')",
        "fpcache_watches (relation, definition) VALUES ('pg_class', '{}')" } do
        local _, err = sql(bob, "INSERT INTO shared." .. text)
        assert.matches("violates row%-level security policy", err, nil, text)
      end
      assert.same({ { n = 0 } }, sql(bob, "SELECT shared.fpcache_evict(0, 1000) AS n"))
      assert.equal(1, ann:get("k"))
    end)

    it("is all of the tables there are", function()
      assert.equal("", db:sql("SELECT relname FROM pg_class WHERE relnamespace = 'shared'::regnamespace "
        .. "AND relkind IN ('r', 'p') AND NOT relrowsecurity"))
      for _, name in ipairs(TO_BE_READ) do
        assert.is_true(#sql(ann, ("SELECT * FROM shared.%s"):format(name)) >= (name == "fpcache_quotas" and 0 or 1), name)
      end
    end)

    it("is not rotated by a transaction that does not see what was told late", function()
      for _, level in ipairs { "REPEATABLE READ", "SERIALIZABLE" } do
        assert.same({ { done = "only in READ COMMITTED" } }, bob:transaction(function(tx)
          assert(tx:query("SET TRANSACTION ISOLATION LEVEL " .. level))
          return tx:query("SELECT shared.fpcache_rotate_feed() AS done")
        end))
      end
    end)
  end)

  describe("of the owner, who is no superuser", function()
    it("hides living rows from it, too", function()
      assert.equal("f", db:sql("SELECT rolsuper FROM pg_roles WHERE rolname = 'keeper'"))
      local keeper = db:open { as = "keeper" }
      assert(ann:set("k", "ann's"))
      assert.same({ { n = 0 } }, sql(keeper, "SELECT count(*) AS n FROM shared.cache"))
      assert.equal(0, sql(keeper, "UPDATE shared.cache SET value = 'x'"))
      assert.equal(0, sql(keeper, "DELETE FROM shared.cache"))
      local _, err = sql(keeper, "INSERT INTO shared.cache (user_id, key, value) VALUES ('ann', 'l', 'x')")
      assert.matches("violates row%-level security policy", err)
      assert.equal("ann's", ann:get("k"))
      assert(keeper:set("k", "keeper's"))
      assert.equal("keeper's", keeper:get("k"))
    end)

    it("cannot bring expired rows of others back to life", function()
      local keeper = db:open { as = "keeper" }
      assert(ann:set("old", "ann's", { expires_at = 1 }))
      local _, err = sql(keeper, "UPDATE shared.cache SET expires_at = 'infinity' WHERE user_id = 'ann'")
      assert.matches("violates row%-level security policy", err)
      assert.is_nil((ann:get("old")))
    end)
  end)

  describe("and the sweeper", function()
    local function fill()
      for name, cache in pairs { ann = ann, bob = bob, keeper = db:open { as = "keeper" } } do
        assert(cache:set("live", name))
        assert(cache:set("soon", name, 1000))
        for i = 1, 5 do assert(cache:set("old" .. i, name, { expires_at = 1 })) end
        assert(cache:namespace("n"):set("old", name, { expires_at = 1 }))
      end
    end

    for _, way in ipairs { "cleanup", "cache_cleanup" } do
      it(("which is everybody's, deletes everybody's expired rows and nothing else (%s)"):format(way), function()
        fill()
        if way == "cleanup" then
          assert.equal(18, bob:cleanup())
        else
          assert.same({ { n = 18 } }, sql(bob, "SELECT shared.cache_cleanup() AS n"))
        end
        assert.equal("ann|2\nbob|2\nkeeper|2",
          db:sql("SELECT user_id, count(*) FROM shared.cache GROUP BY 1 ORDER BY 1"))
        assert.equal("ann", ann:get("live"))
      end)
    end

    it("tells those who may not use it", function()
      db:url_of("stranger")
      db:sql("GRANT USAGE ON SCHEMA shared TO stranger; GRANT SELECT, INSERT, UPDATE, DELETE ON shared.cache TO "
        .. "stranger; GRANT SELECT ON shared.fpcache_schema TO stranger; "
        .. "GRANT SELECT, INSERT (namespace, keys) ON shared.fpcache_feed TO stranger")
      local stranger = db:open { as = "stranger" }
      assert(stranger:set("k", 1))
      local swept, err = stranger:cleanup()
      assert.is_nil(swept)
      assert.equal("denied: permission denied for function fpcache_sweep; the owner grants it with "
        .. "`fpcache admin setup --grant ROLE` (SQLSTATE 42501)", err)
    end)

    it("is not led astray by the caller's search_path", function()
      fill()
      db:sql("CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO public; CREATE FUNCTION evil.format(text, bigint) "
        .. "RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''called with the rights of %'', current_user; END'")
      assert.same({ { n = 18 } }, bob:transaction(function(tx)
        assert(tx:query("CREATE TEMP TABLE cache (LIKE shared.cache)"))
        assert(tx:query("SET LOCAL search_path = pg_temp, evil, pg_catalog, shared"))
        return tx:query("SELECT shared.fpcache_sweep(0, 1000) AS n")
      end))
    end)
  end)
end)

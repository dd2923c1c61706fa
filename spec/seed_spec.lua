-- seed_spec.lua -- the snippets of the Python library's README, in Lua: whoever comes from there finds everything.
--
-- Left out: what needs Databricks, and the filter alone.
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local interpreter = require "support.interpreter"

describe("the Python library's README", function()
  local db, srv, cache

  setup(function()
    db = database.new()
    srv = db.srv
  end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  describe("step 1, the admin's setup", function()
    it("by the command line", function()
      local run = interpreter.new()
      finally(function() run:remove() end)
      db:url_of("mine")
      db:sql("ALTER ROLE mine SUPERUSER PASSWORD 'mypass'")
      local function admin(...)
        return run { program = interpreter.path .. "-admin", "--host", srv.host, "--database", db.name, ... }
      end
      assert.equal(0, admin("--user", "mine", "--password", "mypass").code)
      assert.equal(0, admin("--user", "mine", "--password", "mypass", "--schema", "my_cache").code)
      assert.equal(0, admin("--user", "mine", "--password", "mypass", "--schema", "my_cache", "--force").code)
    end)

    it("by a program", function()
      assert(fpcache.setup_cache { host = srv.host, database = db.name, user = "fpcache", password = "mypassword" })
      local report = assert(fpcache.setup_cache { host = srv.host, database = db.name, user = "fpcache",
        password = "mypass", schema = "my_cache2" })
      assert.equal("my_cache2", report.schema)
    end)
  end)

  it("step 2, users connect and use", function()
    db:url_of("alice@company.com", "user-password")
    local alice = assert(fpcache.new { host = srv.host, database = db.name, user = "alice@company.com",
      password = "user-password" })
    assert.is_true((alice:set("session", { user = "Alice" }, 3600)))
    local user_data = alice:get("session")
    assert.equal("Alice", user_data.user)
    assert.is_nil((cache:get("session")), "isolated")
    alice:close()
  end)

  it("the usage example", function()
    -- 1. Set values with complex data
    assert.is_true((cache:set("test:key1", "value1", 3600)))
    assert(cache:set("test:key2", { name = "Alice", age = 30 }))
    assert(cache:set("test:key3", { 1, 2, 3, 4, 5 }))
    local test_data = { user = { id = 123, name = "Alice", tags = { "admin", "developer" },
      settings = { theme = "dark", notifications = true } } }
    assert(cache:set("json:complex", test_data))
    local test_list = { 1, 2, 3, { nested = "value" }, { 4, 5, 6 } }
    assert(cache:set("json:list", test_list))
    assert.same({ name = "Alice", age = 30 }, cache:get("test:key2"))
    assert.same({ 1, 2, 3, 4, 5 }, cache:get("test:key3"))
    assert.same(test_data, cache:get("json:complex"))
    assert.same(test_list, cache:get("json:list"))
    -- 2. Set values with TTL
    assert(cache:set("user:123", { name = "Alice", role = "admin" }, 3600))
    assert(cache:set("user:456", { name = "Bob", role = "user" }, 3600))
    assert(cache:set("session:abc", { user_id = 123, ip = "192.168.1.1" }, 1800))
    -- 3. Get values
    assert.same({ name = "Alice", role = "admin" }, cache:get("user:123"))
    assert.same({ user_id = 123, ip = "192.168.1.1" }, cache:get("session:abc"))
    -- 4. Check if key exists
    assert.is_true(cache:exists("user:123"))
    assert.is_false(cache:exists("user:999"))
    -- 5. Get TTL
    local ttl = cache:ttl("user:123")
    assert.is_true(ttl > 3500 and ttl <= 3600)
    -- 6. Store value without expiry
    assert(cache:set("config:app", { theme = "dark", language = "en" }))
    assert.equal(-1, cache:ttl("config:app"))
    -- Close the connection
    cache:close()
  end)

  it("the constructor with all its parameters", function()
    local all = assert(fpcache.new { connection_string = nil, host = srv.host, port = 5432, database = db.name,
      user = "app", password = "", schema = "public", minconn = 1, maxconn = 10, use_cuckoo_filter = true,
      cuckoo_capacity = 1000000, instance_name = nil, profile = nil })
    assert.is_true(all:ping())
    all:close()
  end)

  it("each method of the reference", function()
    assert.is_true((cache:set("user:123", { name = "Alice" }, 3600)))
    local items = { ["user:123"] = { name = "Alice" }, ["user:456"] = { name = "Bob" },
      ["user:789"] = { name = "Charlie" } }
    assert.equal(3, cache:set_many(items, 3600))
    assert.same({ name = "Alice" }, cache:get("user:123"))
    assert.equal('{"name":"Alice"}', cache:get("user:123", { parse_json = false }))
    assert.is_true(cache:delete("user:123"))
    assert.is_false(cache:delete("user:123"))
    assert.is_true(cache:exists("user:456"))
    assert.is_true(cache:ttl("user:456") > 3500)
    assert.equal(-2, cache:ttl("user:123"))
    assert.equal(0, cache:cleanup())
    cache:close()
  end)

  it("misses of 10,000 keys that do not exist", function()
    local with = db:open { use_cuckoo_filter = true }
    local without = db:open { use_cuckoo_filter = false }
    for i = 0, 9999 do
      assert(with:get("missing_key_" .. i) == nil)
      if i < 1000 then assert(without:get("missing_key_" .. i) == nil) end
    end
    assert.equal(10000, with:stats().misses)
    assert.equal(1000, without:stats().misses)
  end)

  it("batches against single calls", function()
    local items, singles = {}, {}
    for i = 0, 999 do items["key_" .. i] = "value_" .. i end
    local start = core.system.now()
    for i = 0, 999 do assert(cache:set("key_" .. i, "value_" .. i, 3600)) end
    singles.seconds = core.system.now() - start
    start = core.system.now()
    assert.equal(1000, cache:set_many(items, 3600))
    local seconds = core.system.now() - start
    assert.is_true(seconds < singles.seconds, "set_many is quicker than single sets")
    assert.equal("value_999", cache:get("key_999"))
    local users = { ["user:123"] = { name = "Alice", role = "admin" }, ["user:456"] = { name = "Bob", role = "user" },
      ["user:789"] = { name = "Charlie", role = "moderator" } }
    assert.equal(3, cache:set_many(users, 3600))
    assert.equal(3, cache:set_many { ["config:theme"] = "dark", ["config:lang"] = "en", ["config:tz"] = "UTC" })
    assert.equal("dark", cache:get("config:theme"))
  end)

  it("what persists: a closed cache, another program; and what does not: a crash, a forced setup", function()
    assert(cache:set("k", "v"))
    cache:close()
    local again = db:open()
    assert.equal("v", again:get("k"))
    srv:restart("fast")
    assert.equal("v", again:get("k"))
    srv:restart("crash")
    assert.is_nil((again:get("k")))
    assert(again:set("k", "v"))
    assert(fpcache.setup_cache { connection_string = db.url, force = true, grant = "public" })
    assert.is_nil((again:get("k")))
  end)

  it("verifying the UNLOGGED table", function()
    assert.equal("fpcache_entries|UNLOGGED", db:sql([[
      SELECT
          relname as table_name,
          CASE relpersistence
              WHEN 'u' THEN 'UNLOGGED'
              WHEN 'p' THEN 'PERMANENT'
              WHEN 't' THEN 'TEMPORARY'
          END as table_type
      FROM pg_class
      WHERE relname IN ('cache', 'fpcache_entries') AND relkind = 'r' AND relnamespace = 'public'::regnamespace]]))
  end)
end)

-- client_spec.lua -- calls on one key, on a real server.
local core = require "fpcache.core"
local database = require "support.database"
local exact = require "support.exact"
local fpcache = require "fpcache"
local raises = require "support.raises"

local PAST = 1 -- expires_at: the second after 1970 began

describe("a cache", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  -- A row that has expired but was not swept.
  local function set_expired(key, value)
    assert(cache:set(key, value or "old", { expires_at = PAST }))
    assert.equal("1", db:sql("SELECT count(*) FROM cache WHERE key = '" .. key .. "'"))
  end

  describe("set and get", function()
    it("gives back what was stored, from the server", function()
      local stored, err, version = cache:set("k", "v")
      assert.is_true(stored)
      assert.is_nil(err)
      assert.is_truthy(version)
      local value, no_err, source = cache:get("k")
      assert.equal("v", value)
      assert.is_nil(no_err)
      assert.equal("db", source)
    end)

    it("gives nil and no error for a key that is not there", function()
      local value, err, source = cache:get("k")
      assert.is_nil(value)
      assert.is_nil(err)
      assert.equal("db", source)
    end)

    it("keeps the types apart", function()
      for name, value in pairs { text = "123", int = 123, float = 0.5, yes = true, no = false, nothing = fpcache.null,
        empty = "", list = { 1, "2", { a = 3 } }, object = { a = { b = true } } } do
        assert(cache:set(name, value))
        assert.is_true(exact.same(value, (cache:get(name))), name)
      end
    end)

    it("keeps all 64 bits of an integer", function()
      for _, digits in ipairs { "9007199254740993", "-9007199254740993", "9223372036854775807", "-9223372036854775808",
        "1763870000123456" } do
        assert(cache:set("n", exact.int(digits)))
        assert.is_true(exact.same(exact.int(digits), (cache:get("n"))), digits)
        assert.equal(digits, db:sql("SELECT convert_from(value, 'UTF8') FROM cache"))
      end
    end)

    it("keeps every byte of strings and keys", function()
      local all = {}
      for byte = 0, 255 do all[#all + 1] = string.char(byte) end
      all = table.concat(all)
      assert(cache:set(all, all))
      assert.equal(all, cache:get(all))
      assert.equal(all, cache:keys()[1])
    end)

    it("a stored false and null are hits", function()
      assert(cache:set("no", false))
      assert(cache:set("null", fpcache.null))
      assert.is_false(cache:get("no"))
      assert.equal(fpcache.null, (cache:get("null")))
      assert.equal(2, cache:stats().hits)
      assert.equal(0, cache:stats().misses)
    end)

    it("an empty table is an object unless it is marked as an array", function()
      assert(cache:set("o", {}))
      assert(cache:set("a", setmetatable({}, fpcache.array_mt)))
      assert(cache:set("e", fpcache.empty_array))
      assert.equal("{}", cache:get("o", { parse_json = false }))
      assert.equal("[]", cache:get("a", { parse_json = false }))
      assert.equal("[]", cache:get("e", { parse_json = false }))
      assert.equal(fpcache.array_mt, getmetatable(cache:get("a")))
    end)

    it("set replaces value, type and expiry", function()
      assert(cache:set("k", 1, 100))
      assert(cache:set("k", "two"))
      assert.equal("two", cache:get("k"))
      assert.equal(-1, cache:ttl("k"))
    end)

    it("an expired row is not there, for any call", function()
      set_expired("k")
      assert.is_nil((cache:get("k")))
      assert.is_false(cache:exists("k"))
      assert.equal(-2, cache:ttl("k"))
      assert.is_nil(cache:entry("k"))
      assert.is_false(cache:expire("k", 10))
      assert.is_false(cache:touch("k", 10))
      assert.is_false(cache:persist("k"))
      assert.is_false(cache:replace("k", "new"))
      assert.same({}, cache:get_many { "k" })
      assert.same({}, cache:keys())
      assert.equal(0, cache:count())
      assert.equal("1", db:sql("SELECT count(*) FROM cache"), "reading must not delete")
      assert.is_false(cache:delete("k"))
      set_expired("k")
      assert.is_nil((cache:get_delete("k")))
      set_expired("k")
      assert.equal(0, cache:delete_many { "k" })
      assert.equal("0", db:sql("SELECT count(*) FROM cache"), "a delete takes what has expired too")
    end)

    it("an expired row is written over as if it were not there", function()
      set_expired("a")
      assert.is_true(cache:add("a", "new"))
      set_expired("b")
      assert.is_nil((cache:get_set("b", "new")))
      assert.equal("new", cache:get("b"))
      set_expired("c", 40)
      assert.equal(1, cache:incr("c"))
      assert.equal(-1, cache:ttl("c"))
      set_expired("d")
      assert.is_true(cache:set("d", "new", { keep_ttl = true }))
      assert.equal(-1, cache:ttl("d"))
    end)

    it("get refuses what is no option", function()
      raises("options.parse_jsn: unknown option (did you mean parse_json?)",
        function() cache:get("k", { parse_jsn = false }) end)
      raises("options: a table is expected, got number", function() cache:get("k", 5) end)
      raises("options.parse_json: boolean is expected, got string",
        function() cache:get("k", { parse_json = "no" }) end)
    end)
  end)

  describe("set with options", function()
    it("expires_at is a point of time", function()
      assert(cache:set("k", "v", { expires_at = core.system.wall() + 1000 }))
      local ttl = cache:ttl("k")
      assert.is_true(ttl > 900 and ttl <= 1001, ttl)
      assert.equal("2100-01-01 00:00:00.5+00", db:sql("SET timezone = 'UTC'; " ..
        "SELECT expires_at FROM cache") and (function()
          assert(cache:set("k", "v", { expires_at = 4102444800.5 }))
          return db:sql("SET timezone = 'UTC'; SELECT expires_at FROM cache")
        end)())
    end)

    it("keep_ttl leaves the expiry as it is", function()
      assert(cache:set("k", "v", 1000))
      assert(cache:set("k", "w", { keep_ttl = true }))
      assert.is_true(cache:ttl("k") > 900)
      assert(cache:set("k", "x", { keep_ttl = true, if_present = true }))
      assert.is_true(cache:ttl("k") > 900)
      assert.equal("x", cache:get("k"))
      assert.is_true(cache:set("new", "v", { keep_ttl = true }))
      assert.equal(-1, cache:ttl("new"))
      assert.is_true(cache:set("new2", "v", { keep_ttl = true, if_absent = true }))
    end)

    it("if_absent stores only a new key", function()
      assert.is_true((cache:set("k", 1, { if_absent = true, ttl = 50 })))
      assert.is_false((cache:set("k", 2, { if_absent = true })))
      assert.equal(1, cache:get("k"))
      assert.is_true(cache:ttl("k") > 0)
    end)

    it("if_present stores only over an old key", function()
      assert.is_false((cache:set("k", 1, { if_present = true })))
      assert.is_false(cache:exists("k"))
      assert(cache:set("k", 1))
      assert.is_true((cache:set("k", 2, { if_present = true, ttl = 50 })))
      assert.equal(2, cache:get("k"))
      assert.is_true(cache:ttl("k") > 0)
    end)

    it("if_version stores only over the version that was read", function()
      local _, _, version = cache:set("k", 1)
      local stored, _, newer = cache:set("k", 2, { if_version = version, ttl = 60 })
      assert.is_true(stored)
      assert.is_true(newer > version)
      assert.is_false((cache:set("k", 3, { if_version = version })))
      assert.is_true((cache:set("k", 4, { if_version = newer, keep_ttl = true })))
      assert.is_true(cache:ttl("k") > 0)
      assert.equal(4, cache:get("k"))
      assert.is_false((cache:set("none", 1, { if_version = version })))
    end)

    it("options that contradict each other are the caller's mistake", function()
      raises("options: ttl and expires_at exclude each other",
        function() cache:set("k", 1, { ttl = 1, expires_at = 5 }) end)
      raises("options: keep_ttl excludes ttl and expires_at",
        function() cache:set("k", 1, { ttl = 1, keep_ttl = true }) end)
      raises("options: keep_ttl excludes ttl and expires_at",
        function() cache:set("k", 1, { expires_at = 1, keep_ttl = true }) end)
      local ok, problem = pcall(cache.set, cache, "k", 1, { if_absent = true, if_present = true })
      assert.is_false(ok)
      assert.matches("if_%w+ and if_%w+ exclude each other", problem)
    end)

    it("an unknown option is named, with the one that was meant", function()
      raises("options.tll: unknown option (did you mean ttl?)", function() cache:set("k", 1, { tll = 1 }) end)
      raises("options.ttl: seconds or duration is expected, got table", function() cache:set("k", 1, { ttl = {} }) end)
    end)

    it("versions grow with every write, also when the clock stands still", function()
      local last = 0
      for i = 1, 20 do
        local _, _, version = cache:set("k", i)
        assert.is_true(version > last)
        last = version
      end
      local _ = cache:transaction(function(tx)
        for i = 1, 5 do
          local _, _, version = tx:set("k", i)
          assert.is_true(version > last)
          last = version
        end
      end)
    end)
  end)

  describe("add, replace, cas", function()
    it("add stores once", function()
      assert.is_true(cache:add("k", 1, 100))
      assert.is_false(cache:add("k", 2))
      assert.equal(1, cache:get("k"))
      assert.is_true(cache:ttl("k") > 90)
    end)

    it("replace stores only over something", function()
      assert.is_false(cache:replace("k", 1))
      assert(cache:set("k", 1, 100))
      assert.is_true(cache:replace("k", 2))
      assert.equal(2, cache:get("k"))
      assert.equal(-1, cache:ttl("k"))
      assert.is_true(cache:replace("k", 3, 100))
      assert.is_true(cache:ttl("k") > 90)
    end)

    it("cas gives the new version, and false when another was quicker", function()
      assert(cache:set("k", 1))
      local version = cache:entry("k").version
      local newer = assert(cache:cas("k", version, 2, 100))
      assert.equal(newer, cache:entry("k").version)
      assert.is_true(cache:ttl("k") > 90)
      assert.is_false((cache:cas("k", version, 3)))
      assert.is_truthy(cache:cas("k", newer, 4))
      assert.equal(4, cache:get("k"))
      assert.equal(-1, cache:ttl("k"))
      assert.is_false((cache:cas("none", version, 1)))
    end)

    it("a key that was deleted and came back has another version", function()
      local _, _, version = cache:set("k", 1)
      assert(cache:delete("k"))
      assert(cache:set("k", 1))
      assert.is_false((cache:cas("k", version, 2)))
    end)
  end)

  describe("entry", function()
    it("tells value, version, ttl, bytes and format", function()
      local _, _, version = cache:set("k", { a = 1 }, 100)
      local entry = cache:entry("k")
      assert.same({ a = 1 }, entry.value)
      assert.equal(version, entry.version)
      assert.is_true(entry.ttl > 90 and entry.ttl <= 100)
      assert.equal(7, entry.bytes)
      assert.equal("j", entry.format)
      assert(cache:persist("k"))
      assert.equal(-1, cache:entry("k").ttl)
    end)

    it("is nil without an error where there is no key", function()
      local entry, err = cache:entry("k")
      assert.is_nil(entry)
      assert.is_nil(err)
    end)
  end)

  describe("delete, exists", function()
    it("delete tells whether there was one", function()
      assert(cache:set("k", 1))
      assert.is_true(cache:exists("k"))
      assert.is_true(cache:delete("k"))
      assert.is_false(cache:exists("k"))
      assert.is_false(cache:delete("k"))
    end)
  end)

  describe("get_set, get_delete", function()
    it("get_set gives the old value and stores the new one", function()
      assert.is_nil((cache:get_set("k", 1, 100)))
      assert.is_true(cache:ttl("k") > 90)
      assert.equal(1, cache:get_set("k", false))
      assert.equal(-1, cache:ttl("k"))
      assert.is_false(cache:get_set("k", { 1 }))
      assert.same({ 1 }, cache:get_set("k", "x"))
    end)

    it("get_delete gives the last value", function()
      assert(cache:set("k", { 1 }))
      assert.same({ 1 }, cache:get_delete("k"))
      local value, err = cache:get_delete("k")
      assert.is_nil(value)
      assert.is_nil(err)
    end)
  end)

  describe("ping, stats, close", function()
    it("ping answers true", function() assert.is_true(cache:ping()) end)

    it("stats counts what this process did, and tells the table's size", function()
      assert(cache:set("a", 1))
      assert(cache:set_many { b = 1, c = 2 })
      cache:set("a", 2, { if_absent = true })
      cache:get("a")
      cache:get("none")
      cache:get_many { "a", "b", "none" }
      local stats = assert(cache:stats())
      assert.equal(3, stats.sets, "the add stored nothing")
      assert.equal(3, stats.hits)
      assert.equal(2, stats.misses)
      assert.is_true(stats.server.unlogged)
      assert.is_true(stats.server.bytes > 0)
      assert.equal("number", type(stats.server.rows))
      assert.equal(1, stats.pool.idle)
      assert.equal(0, stats.pool.lent)
      assert.equal(1, stats.pool.opened)
    end)

    it("every call on a closed cache answers closed", function()
      cache:close()
      cache:close()
      local calls = { set = { "k", 1 }, get = { "k" }, delete = { "k" }, exists = { "k" }, ttl = { "k" },
        expire = { "k", 1 }, touch = { "k", 1 }, persist = { "k" }, add = { "k", 1 }, replace = { "k", 1 },
        cas = { "k", 1, 1 }, incr = { "k" }, decr = { "k" }, get_set = { "k", 1 }, get_delete = { "k" },
        entry = { "k" }, set_many = { { k = 1 } }, get_many = { { "k" } }, delete_many = { { "k" } }, keys = {},
        count = {}, clear = {}, cleanup = {}, ping = {}, stats = {}, transaction = { function() end } }
      for name, args in pairs(calls) do
        local value, err = cache[name](cache, (table.unpack or unpack)(args))
        assert.is_nil(value, name)
        assert.equal("closed: the cache was closed", err, name)
      end
      local scan = assert(cache:scan())
      local key, err = scan:next()
      assert.is_nil(key)
      assert.equal("closed: the cache was closed", err)
    end)

    if not exact.is_luajit then
      it("is closed at the end of its scope", function()
        local url = db:url_of()
        local run = assert(load([[
          local fpcache, url = ...
          local cache <close> = assert(fpcache.new{ connection_string = url })
          assert(cache:ping())
          return cache]]))
        local _, err = run(fpcache, url):ping()
        assert.equal("closed: the cache was closed", err)
      end)
    end

    it("a cache that is forgotten is closed by the collector", function()
      assert(fpcache.new { connection_string = db:url_of() })
      collectgarbage()
      collectgarbage()
      assert.equal(1, core.open_objects()) -- the pool of `cache`
    end)
  end)
end)

-- bulk_spec.lua -- set_many, get_many, delete_many, clear.
local core = require "fpcache.core"
local database = require "support.database"
local exact = require "support.exact"
local fpcache = require "fpcache"
local raises = require "support.raises"

--- An iterator of `count` items, whose item `at` is made by `special`.
local function items(count, at, special)
  local i = 0
  return function()
    i = i + 1
    if i == at then return special() end
    if i <= count then return "key" .. i, i end
  end
end

describe("many keys", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function assert_no_transaction_left()
    assert.equal(0, cache:stats().pool.lent)
    assert.equal("0", db:sql(("SELECT count(*) FROM pg_stat_activity WHERE datname = '%s' AND usename = 'app' " ..
      "AND application_name = 'fpcache' AND state LIKE 'idle in transaction%%'"):format(db.name)))
  end

  describe("set_many", function()
    it("stores a map", function()
      local values = { a = 1, b = "two", c = { 3 }, d = false, e = fpcache.null, ["\0\255"] = "x" }
      assert.equal(6, cache:set_many(values))
      assert.is_true(exact.same(values, cache:get_many { "a", "b", "c", "d", "e", "\0\255" }))
      assert.equal(-1, cache:ttl("a"))
    end)

    it("of nothing stores nothing", function()
      assert.equal(0, cache:set_many {})
      assert.equal(0, cache:set_many(function() end))
      assert.equal(0, cache:count())
    end)

    it("takes a ttl for all, as a number or an option", function()
      assert.equal(2, cache:set_many({ a = 1, b = 2 }, 100))
      assert.is_true(cache:ttl("a") > 90 and cache:ttl("b") > 90)
      assert.equal(1, cache:set_many({ c = 1 }, { ttl = 1000 }))
      assert.is_true(cache:ttl("c") > 900)
    end)

    it("takes a ttl for each key; none for the others", function()
      assert.equal(3, cache:set_many({ a = 1, b = 2, c = 3 }, { ttl = { a = 100, b = 5000 } }))
      assert.is_true(cache:ttl("a") <= 100)
      assert.is_true(cache:ttl("b") > 4000)
      assert.equal(-1, cache:ttl("c"))
    end)

    it("takes key, value, ttl from an iterator; its own ttl goes before the common one", function()
      local list = { { "a", 1, 100 }, { "b", 2 }, { "c", 3, math.huge } }
      local i = 0
      assert.equal(3, cache:set_many(function()
        i = i + 1
        if list[i] then return list[i][1], list[i][2], list[i][3] end
      end, 5000))
      assert.is_true(cache:ttl("a") <= 100)
      assert.is_true(cache:ttl("b") > 4000)
      assert.equal(-1, cache:ttl("c"))
    end)

    it("takes what can be called: a coroutine, an object with __call, a scan", function()
      assert.equal(2, cache:set_many(coroutine.wrap(function()
        coroutine.yield("a", 1)
        coroutine.yield("b", 2)
      end)))
      assert.equal(3, cache:set_many(setmetatable({ next = items(3) },
        { __call = function(self) return self.next() end })))
      local other = cache:namespace("other")
      assert.equal(5, other:set_many(cache:scan { page = 2 }))
      assert.same(cache:keys(), other:keys())
      assert.equal(3, other:get("key3"))
    end)

    it("of keys that come twice keeps the last", function()
      local list, i = { "a", "b", "a", "a", "b" }, 0
      assert.equal(5, cache:set_many(function()
        i = i + 1
        if list[i] then return list[i], i end
      end))
      assert.same({ a = 4, b = 5 }, cache:get_many { "a", "b" })
      local long = ("x"):rep(2000)
      i = 0
      assert.equal(4, cache:set_many(function()
        i = i + 1
        if i <= 4 then return long, i end
      end, { batch = 2 }))
      assert.equal(4, cache:get(long))
    end)

    it("writes over, grows the version, and takes the old expiry off", function()
      assert(cache:set("a", 1, 100))
      local version = cache:entry("a").version
      assert(cache:set_many { a = 2 })
      assert.equal(-1, cache:ttl("a"))
      assert.is_true(cache:entry("a").version > version)
    end)

    it("works in batches, in one transaction", function()
      assert.equal(1000, cache:set_many(items(1000), { batch = 7 }))
      assert.equal(1000, cache:count())
      assert.equal("1", db:sql("SELECT count(DISTINCT xmin::text) FROM cache"))
      assert.equal(1000, cache:get("key1000"))
      assert_no_transaction_left()
    end)

    it("takes one batch exactly, and one row more", function()
      assert.equal(10, cache:set_many(items(10), { batch = 10 }))
      assert.equal(11, cache:set_many(items(11), { batch = 10 }))
      assert.equal(1, cache:set_many(items(1), { batch = 1 }))
      assert.equal(2, cache:set_many(items(2), { batch = 1 }))
      assert.equal(11, cache:count())
    end)

    it("takes more rows than a default batch", function()
      assert.equal(25000, cache:set_many(items(25000)))
      assert.equal(25000, cache:count())
    end)

    it("bounds the bytes of a batch", function()
      local value = ("x"):rep(3 * 1024 * 1024)
      local most, i = 0, 0
      assert.equal(8, cache:set_many(function()
        i = i + 1
        collectgarbage()
        most = math.max(most, core.open_objects())
        if i <= 8 then return "big" .. i, value end
      end))
      assert.equal(value, cache:get("big8"))
      assert.equal("1", db:sql("SELECT count(DISTINCT xmin::text) FROM cache"))
    end)

    it("counts the items in stats", function()
      assert(cache:set_many(items(30), { batch = 7 }))
      assert.equal(30, cache:stats().sets)
    end)

    -- What goes wrong must leave nothing: in the first batch, and after some were sent.
    for name, at in pairs { ["in the first batch"] = 3, ["in the second"] = 13, ["in a later one"] = 57 } do
      describe("with a bad item " .. name, function()
        local function fails(special, expected)
          local count, err = cache:set_many(items(100, at, special), { batch = 10 })
          assert.is_nil(count)
          assert.equal(expected:format(at), err)
          assert.equal(0, cache:count())
          assert.equal(0, cache:stats().sets)
          assert_no_transaction_left()
        end

        it("stores nothing where a key or value cannot be stored", function()
          fails(function() return "", 1 end, "invalid: a key must not be empty (item %d)")
          fails(function() return ("k"):rep(1024 * 1024 + 1), 1 end,
            "invalid: a key of 1048577 bytes exceeds max_key_bytes (1048576) (item %d)")
          fails(function() return "k", print end, "invalid: a function cannot be stored (item %d)")
          fails(function() return "k", 1, 0 end, "invalid: a ttl must be more than 0 and at most 1e+10 seconds, " ..
            "got 0 (leave it out for no expiry) (item %d)")
        end)

        it("stores nothing where the iterator raises; its error goes on", function()
          local mistake = {}
          local ok, problem = pcall(cache.set_many, cache, items(100, at, function() error(mistake) end),
            { batch = 10 })
          assert.is_false(ok)
          assert.equal(mistake, problem)
          assert.equal(0, cache:count())
          assert_no_transaction_left()
        end)

        it("blames the caller for a wrong type, and stores nothing", function()
          raises(("bad value of item %d (nil cannot be stored)"):format(at), function()
            cache:set_many(items(100, at, function() return "k" end), { batch = 10 })
          end)
          raises("bad key (string expected, got number)", function()
            cache:set_many(items(100, at, function() return 5, 5 end), { batch = 10 })
          end)
          raises("bad ttl (number of seconds or duration expected, got table)", function()
            cache:set_many(items(100, at, function() return "k", 1, {} end), { batch = 10 })
          end)
          assert.equal(0, cache:count())
          assert_no_transaction_left()
        end)

        it("leaves the caller's transaction usable where it asked for one", function()
          assert(cache:transaction(function(tx)
            assert(tx:set("mine", 1))
            raises(("bad value of item %d (nil cannot be stored)"):format(at), function()
              tx:set_many(items(100, at, function() return "k" end), { batch = 10 })
            end)
            assert.is_nil((tx:set_many(items(100, at, function() return "", 1 end), { batch = 10 })))
            assert.equal(1, tx:count(), "a failed set_many leaves nothing in a transaction either")
            return tx:set("also", 1)
          end))
          assert.same({ "also", "mine" }, cache:keys())
        end)
      end)
    end

    it("gives the connection back where the iterator yields and is left alone", function()
      local run = coroutine.wrap(function()
        cache:set_many(items(100, 15, function() coroutine.yield("waiting") end), { batch = 10 })
      end)
      assert.equal("waiting", run())
      assert.equal(1, cache:stats().pool.lent)
      run = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      assert.equal(0, cache:stats().pool.lent)
      assert.equal(0, cache:count())
    end)

    it("an iterator may use the cache itself", function()
      assert(cache:set("source", 7))
      assert.equal(30, cache:set_many(coroutine.wrap(function()
        for i = 1, 30 do coroutine.yield("copy" .. i, cache:get("source")) end
      end), { batch = 10 }))
      assert.equal(7, cache:get("copy30"))
    end)

    it("an iterator cannot use the transaction that it fills", function()
      local problem
      local ok, err = cache:transaction(function(tx)
        assert(tx:set("source", 7))
        return tx:set_many(coroutine.wrap(function()
          for i = 1, 30 do
            local value, reason = tx:get("source")
            problem = problem or reason
            coroutine.yield("copy" .. i, value or 0)
          end
        end), { batch = 10 })
      end)
      assert.equal("invalid: the answer to the statement before was not received yet", problem)
      assert.equal(30, ok)
      assert.is_nil(err)
    end)

    it("refuses what holds no items, at the caller's line", function()
      raises("bad items (table or iterator expected, got nil)", function() cache:set_many() end)
      raises("bad items (table or iterator expected, got string)", function() cache:set_many("x") end)
      raises("bad key (string expected, got number)", function() cache:set_many { 1, 2 } end)
      raises("options.bach: unknown option (did you mean batch?)", function() cache:set_many({}, { bach = 1 }) end)
      raises("options.batch: must be at least 1, got 0", function() cache:set_many({}, { batch = 0 }) end)
      raises("bad ttl (number of seconds or duration expected, got boolean)",
        function() cache:set_many({ a = 1 }, { ttl = { a = true } }) end)
    end)
  end)

  describe("get_many", function()
    it("keeps the keys' names, long ones too, and leaves out what is not there", function()
      local long, longer = ("l"):rep(1025), ("l"):rep(1025) .. "x"
      assert(cache:set_many { [long] = 1, [longer] = 2, short = 3, [("k"):rep(1024)] = 4 })
      assert.same({ [long] = 1, [longer] = 2, short = 3, [("k"):rep(1024)] = 4 },
        cache:get_many { "none", long, "short", longer, ("k"):rep(1024), ("l"):rep(1026) .. "y" })
    end)

    it("of nothing gives nothing", function() assert.same({}, cache:get_many {}) end)

    it("takes keys that come twice", function()
      assert(cache:set("a", 1))
      assert.same({ a = 1 }, cache:get_many { "a", "a", "none", "none" })
    end)

    it("takes 25,000 keys", function()
      local keys = {}
      for i = 1, 25000 do keys[i] = "key" .. i end
      assert(cache:set_many(items(24000)))
      local values = assert(cache:get_many(keys))
      local count = 0
      for key, value in pairs(values) do
        count = count + 1
        assert(key == "key" .. value)
      end
      assert.equal(24000, count)
      assert.equal(24000, cache:stats().hits)
      assert.equal(1000, cache:stats().misses)
      assert.equal(24000, cache:delete_many(keys))
      assert.equal(0, cache:count())
    end)

    it("gives JSON as its text where asked", function()
      assert(cache:set("a", { 1 }))
      assert.same({ a = "[1]" }, cache:get_many({ "a" }, { parse_json = false }))
      assert.same({ a = { 1 } }, db:open({ parse_json = false }):get_many({ "a" }, { parse_json = true }))
    end)

    it("says which value cannot be read", function()
      assert(cache:set("a", 1))
      db:sql("UPDATE cache SET value = 'x'")
      local values, err = cache:get_many { "a" }
      assert.is_nil(values)
      assert.matches("^invalid: key 1 of the answer: ", err)
    end)

    it("refuses keys that are no keys", function()
      raises("bad keys (list expected, got string)", function() cache:get_many("a") end)
      raises("bad key (string expected, got number)", function() cache:get_many { "a", 5 } end)
      raises("options.parse_jsn: unknown option (did you mean parse_json?)",
        function() cache:get_many({}, { parse_jsn = true }) end)
      local values, err = cache:get_many { "a", "" }
      assert.is_nil(values)
      assert.equal("invalid: a key must not be empty (key 2)", err)
    end)
  end)

  describe("delete_many", function()
    it("tells how many there were", function()
      local long = ("l"):rep(5000)
      assert(cache:set_many { a = 1, b = 2, c = 3, [long] = 4 })
      assert.equal(3, cache:delete_many { "a", "a", "none", "c", long })
      assert.same({ "b" }, cache:keys())
      assert.equal(0, cache:delete_many {})
    end)

    it("refuses keys that are no keys", function()
      raises("bad keys (list expected, got nil)", function() cache:delete_many() end)
      raises("bad key (string expected, got boolean)", function() cache:delete_many { true } end)
      assert.equal("invalid: a key must not be empty (key 1)", select(2, cache:delete_many { "" }))
    end)
  end)

  describe("clear", function()
    it("deletes all of this namespace, what has expired too", function()
      local other = cache:namespace("other")
      assert(cache:set_many { a = 1, b = 2 })
      assert(cache:set("old", 1, { expires_at = 1 }))
      assert(other:set("a", 1))
      assert.equal(3, cache:clear())
      assert.equal(0, cache:count())
      assert.equal(1, other:count())
      assert.equal(0, cache:clear())
    end)

    it("deletes all namespaces where asked", function()
      assert(cache:set("a", 1))
      assert(cache:namespace("other"):set("a", 1))
      assert.equal(2, cache:clear { all = true })
      assert.equal("0", db:sql("SELECT count(*) FROM cache"))
      raises("options.al: unknown option (did you mean all?)", function() cache:clear { al = true } end)
    end)
  end)
end)

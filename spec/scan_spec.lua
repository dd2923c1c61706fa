-- scan_spec.lua -- scan, keys, count.
local database = require "support.database"
local raises = require "support.raises"

describe("walking over keys", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function fill(count)
    local i = 0
    assert(cache:set_many(function()
      i = i + 1
      if i <= count then return ("key%03d"):format(i), i end
    end))
  end

  local function collect(opts)
    local keys, values = {}, {}
    for key, value in assert(cache:scan(opts)) do
      keys[#keys + 1] = key
      values[#values + 1] = value
    end
    return keys, values
  end

  describe("scan", function()
    it("gives every key once, in order, with its value, for any size of page", function()
      fill(20)
      for _, page in ipairs { 1, 2, 3, 19, 20, 21, 1000 } do
        local keys, values = collect { page = page }
        assert.equal(20, #keys)
        for i = 1, 20 do
          assert.equal(("key%03d"):format(i), keys[i])
          assert.equal(i, values[i])
        end
      end
    end)

    it("of nothing gives nothing", function()
      assert.same({}, collect())
      assert.same({}, collect { page = 1 })
      assert.is_nil((cache:scan():next()))
    end)

    it("holds one page at a time", function()
      fill(100)
      local scan = assert(cache:scan { page = 10 })
      for i = 1, 35 do
        scan:next()
        assert.equal(10, scan.count, i)
        assert.is_true(#scan.rows <= 40)
      end
    end)

    it("holds no connection between pages", function()
      fill(3)
      local scan = assert(cache:scan { page = 1 })
      assert(scan:next())
      assert.equal(0, cache:stats().pool.lent)
    end)

    it("gives keys alone where asked", function()
      fill(3)
      local scan = cache:scan { values = false, page = 2 }
      local key, value = scan:next()
      assert.equal("key001", key)
      assert.is_nil(value)
      assert.same({ "key001", "key002", "key003" }, (collect { values = false }))
    end)

    it("gives stored false and null as what they are, and goes on", function()
      assert(cache:set_many { a = false, b = require("fpcache").null, c = 1 })
      local keys, values = collect { page = 1 }
      assert.same({ "a", "b", "c" }, keys)
      assert.is_false(values[1])
      assert.equal(require("fpcache").null, values[2])
    end)

    it("ends for good", function()
      fill(2)
      local scan = cache:scan { page = 2 }
      assert(scan:next() and scan:next())
      assert.is_nil((scan:next()))
      assert.is_nil((scan:next()))
    end)

    it("keeps to a prefix of any bytes", function()
      local keys = { "a", "a\0", "a\0b", "ab", "a\255", "a\255\255", "a\255b", "b", "\254", "\255", "\255\255", "\255a",
        "%", "_", "%a", "a%", "a_", "\\", "'", '"', "*" }
      for _, key in ipairs(keys) do assert(cache:set(key, 1)) end
      for _, prefix in ipairs { "", "a", "a\0", "a\255", "a\255\255", "\255", "\255\255", "\255\255\255", "\254", "%",
        "_", "\\", "'", "*", "none" } do
        local expected = {}
        for _, key in ipairs(keys) do
          if key:sub(1, #prefix) == prefix then expected[#expected + 1] = key end
        end
        table.sort(expected)
        for _, page in ipairs { 1, 2, 1000 } do assert.same(expected, (collect { prefix = prefix, page = page })) end
        assert.equal(#expected, cache:count(prefix))
        assert.same(expected, cache:keys(prefix))
      end
    end)

    it("gives long keys whole, each once, also where they begin alike", function()
      local stem = ("x"):rep(1024)
      local expected = { [stem] = true, [stem .. "a"] = true, [stem .. "b"] = true, [stem .. "\255"] = true,
        [("x"):rep(100000)] = true, [("\255"):rep(1024)] = true, [("\255"):rep(1025)] = true,
        [("\255"):rep(3000)] = true, x = true }
      for key in pairs(expected) do assert(cache:set(key, #key)) end
      for _, page in ipairs { 1, 2, 100 } do
        local found, count = {}, 0
        for key, value in cache:scan { page = page } do
          assert.equal(#key, value)
          assert.is_nil(found[key])
          found[key] = true
          count = count + 1
        end
        assert.same(expected, found)
        assert.equal(9, count)
      end
      assert.equal(7, cache:count(("x"):rep(1023)) + cache:count(("\255"):rep(1024)) - 1)
      assert.equal(3, #cache:keys(("\255"):rep(1024)))
    end)

    it("takes a prefix of up to 1,024 bytes", function()
      assert.is_truthy(cache:scan { prefix = ("p"):rep(1024) })
      for _, call in ipairs { "scan", "keys", "count" } do
        local answer, err = cache[call](cache, { prefix = ("p"):rep(1025) })
        assert.is_nil(answer)
        assert.equal("invalid: a prefix has at most 1024 bytes, got 1025", err)
      end
    end)

    it("gives each key at most once while rows are written and deleted", function()
      fill(50)
      local seen = {}
      for key in cache:scan { page = 5 } do
        assert.is_nil(seen[key], key)
        seen[key] = true
        assert(cache:set(key, "again"))
        assert(cache:set(key .. "x", 1)) -- comes right after it
        assert(cache:set("a" .. key, 1)) -- comes before all
        cache:delete(("key%03d"):format(tonumber(key:match("%d+")) + 7))
      end
      assert.is_true(seen.key001 and seen.key007)
      assert.is_nil(seen.akey001)
      assert.is_nil(seen.key008)
    end)

    it("leaves out what expired and other namespaces", function()
      fill(2)
      assert(cache:set("old", 1, { expires_at = 1 }))
      assert(cache:namespace("other"):set("theirs", 1))
      assert.same({ "key001", "key002" }, (collect()))
    end)

    it("in a for loop raises what went wrong, at the loop", function()
      fill(3)
      raises("closed: the cache was closed", function()
        for _ in cache:scan { page = 1 } do cache:close() end
      end)
    end)

    it("by next answers what went wrong, again and again", function()
      fill(3)
      local scan = cache:scan { page = 1 }
      assert(scan:next())
      cache:close()
      for _ = 1, 2 do
        local key, err = scan:next()
        assert.is_nil(key)
        assert.equal("closed: the cache was closed", err)
      end
      assert.equal("closed: the cache was closed", scan.err)
    end)

    it("tells the place of the key whose value cannot be read", function()
      fill(3)
      db:sql("UPDATE cache SET value = 'x' WHERE key = 'key002'")
      local scan = cache:scan()
      assert.equal("key001", (scan:next()))
      local key, err = scan:next()
      assert.is_nil(key)
      assert.equal(
        "invalid: stored value of 1 bytes, format 'i', is not an integer of 64 bits (key 2 of the walk)", err)
    end)

    it("refuses options that are none", function()
      raises("options.perfix: unknown option (did you mean prefix?)", function() cache:scan { perfix = "" } end)
      raises("options.page: must be at least 1, got 0", function() cache:scan { page = 0 } end)
      raises("options.page: integer is expected, got number", function() cache:scan { page = 1.5 } end)
      raises("options.prefix: string is expected, got number", function() cache:scan { prefix = 1 } end)
      raises("options: a table is expected, got string", function() cache:scan("x") end)
    end)
  end)

  describe("keys", function()
    it("are in order, by prefix and up to a limit", function()
      fill(10)
      assert(cache:set("other", 1))
      assert.equal(11, #cache:keys())
      assert.equal(10, #cache:keys("key"))
      assert.equal(10, #cache:keys { prefix = "key" })
      assert.same({ "key001", "key002" }, cache:keys { limit = 2 })
      assert.same({ "other" }, cache:keys { prefix = "o", limit = 2 })
      assert.same({}, cache:keys { limit = 0 })
      assert.same({}, cache:keys("none"))
    end)

    it("take more than a page", function()
      fill(10)
      assert.equal(10, #cache:keys { limit = 1000000 })
      local i = 0
      assert(cache:set_many(function()
        i = i + 1
        if i <= 10050 then return "k" .. i, 1 end
      end))
      assert.equal(10060, #cache:keys())
      assert.equal(10055, #cache:keys { limit = 10055 })
    end)

    it("refuse what is no limit", function()
      raises("options.limit: must not be negative, got -1", function() cache:keys { limit = -1 } end)
      raises("options.limit: integer is expected, got number", function() cache:keys { limit = 0.5 } end)
      raises("options.limt: unknown option (did you mean limit?)", function() cache:keys { limt = 1 } end)
      raises("options: a table is expected, got number", function() cache:keys(5) end)
    end)
  end)

  describe("count", function()
    it("counts by prefix, namespace, or all", function()
      fill(10)
      assert(cache:set("other", 1))
      assert(cache:set("old", 1, { expires_at = 1 }))
      local space = cache:namespace("space")
      assert(space:set("key", 1))
      assert.equal(11, cache:count())
      assert.equal(10, cache:count("key"))
      assert.equal(10, cache:count { prefix = "key" })
      assert.equal(1, space:count())
      assert.equal(12, cache:count { all = true })
      assert.equal(12, space:count { all = true })
      assert.equal(0, cache:count("none"))
    end)

    it("refuses a prefix beside all, and what is no option", function()
      raises("options: all and prefix exclude each other", function() cache:count { all = true, prefix = "k" } end)
      raises("options.al: unknown option (did you mean all?)", function() cache:count { al = true } end)
    end)
  end)
end)

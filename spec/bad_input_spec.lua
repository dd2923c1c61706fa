-- bad_input_spec.lua -- what data can bring: keys, values and calls that cannot be stored.
local database = require "support.database"
local exact = require "support.exact"
local fpcache = require "fpcache"
local raises = require "support.raises"

local unpack = table.unpack or unpack
local MB = 1024 * 1024

describe("bad input", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open { feed = false } -- what psql writes is seen at once
  end)
  after_each(function() db:close_all() end)

  -- Every call that takes a key: what follows the key.
  local BY_KEY = { set = { 1 }, get = {}, entry = {}, delete = {}, exists = {}, ttl = {}, expire = { 5 },
    touch = { 5 }, persist = {}, add = { 1 }, replace = { 1 }, incr = {}, decr = {}, get_set = { 1 }, get_delete = {} }

  describe("keys", function()
    it("that are empty are refused by every call", function()
      for name, rest in pairs(BY_KEY) do
        local value, err = cache[name](cache, "", unpack(rest))
        assert.is_nil(value)
        assert.equal("invalid: a key must not be empty", err, name)
      end
      assert.equal("invalid: a key must not be empty", select(2, cache:cas("", 1, 1)))
    end)

    it("beyond max_key_bytes are refused by every call", function()
      local key = ("k"):rep(MB + 1)
      for name, rest in pairs(BY_KEY) do
        local value, err = cache[name](cache, key, unpack(rest))
        assert.is_nil(value)
        assert.equal("invalid: a key of 1048577 bytes exceeds max_key_bytes (1048576)", err, name)
      end
    end)

    it("of other types are the caller's mistake", function()
      raises("bad key (string expected, got nil)", function() cache:set(nil, 1) end)
      raises("bad key (string expected, got number)", function() cache:set(5, 1) end)
      raises("bad key (string expected, got table)", function() cache:get({}) end)
      raises("bad key (string expected, got nil)", function() cache:get() end)
      raises("bad key (string expected, got boolean)", function() cache:entry(true) end)
      raises("bad key (string expected, got nil)", function() cache:delete() end)
      raises("bad key (string expected, got nil)", function() cache:exists() end)
      raises("bad key (string expected, got nil)", function() cache:ttl() end)
      raises("bad key (string expected, got nil)", function() cache:expire(nil, 5) end)
      raises("bad key (string expected, got nil)", function() cache:touch(nil, 5) end)
      raises("bad key (string expected, got nil)", function() cache:persist() end)
      raises("bad key (string expected, got nil)", function() cache:add(nil, 1) end)
      raises("bad key (string expected, got nil)", function() cache:replace(nil, 1) end)
      raises("bad key (string expected, got nil)", function() cache:cas(nil, 1, 1) end)
      raises("bad key (string expected, got nil)", function() cache:get_set(nil, 1) end)
      raises("bad key (string expected, got nil)", function() cache:get_delete() end)
    end)

    it("of 100 kB, with NUL and of no UTF-8 are good keys, for every call", function()
      for _, key in ipairs { ("k"):rep(100000), "a\0b", "\0", "\255\254", "\192\128", ("\255"):rep(100000),
        ("\0"):rep(2000), "' OR 1=1 --", "%s", " ", "\n" } do
        assert.is_true((cache:set(key, "v", 100)))
        assert.equal("v", cache:get(key))
        assert.is_true(cache:exists(key))
        assert.is_true(cache:ttl(key) > 0)
        assert.is_true(cache:expire(key, 50))
        assert.is_true(cache:touch(key, 60))
        assert.is_true(cache:persist(key))
        assert.is_false(cache:add(key, 1))
        assert.is_true(cache:replace(key, 1))
        assert.equal(2, cache:incr(key))
        assert.equal(1, cache:decr(key))
        assert.is_truthy(cache:cas(key, cache:entry(key).version, 5))
        assert.equal(5, cache:get_set(key, 6))
        assert.same({ [key] = 6 }, cache:get_many { key })
        assert.same({ key }, cache:keys())
        assert.equal(key, (cache:scan():next()))
        assert.equal(1, cache:set_many { [key] = 7 })
        assert.equal(7, cache:get_delete(key))
        assert.is_true(cache:add(key, 8))
        assert.equal(1, cache:delete_many { key })
        assert.equal("0", db:sql("SELECT count(*) FROM cache"))
      end
    end)

    it("that begin alike for kilobytes are different keys", function()
      local a, b = ("k"):rep(50000) .. "a", ("k"):rep(50000) .. "b"
      assert(cache:set(a, 1))
      assert(cache:set(b, 2))
      assert.equal(1, cache:get(a))
      assert.equal(2, cache:get(b))
      assert.is_nil((cache:get(("k"):rep(50000))))
    end)
  end)

  describe("values", function()
    -- Every call that takes a value refuses one, and leaves what was.
    local function refused(pattern, value)
      assert(cache:set("k", "old"))
      local version = cache:entry("k").version
      for _, call in ipairs { { "set", "k", value }, { "add", "new", value }, { "replace", "k", value },
        { "cas", "k", version, value }, { "get_set", "k", value }, { "set_many", { a = 1, k = value } } } do
        local answer, err = cache[call[1]](cache, unpack(call, 2))
        assert.is_nil(answer)
        assert.matches(pattern, err, nil, call[1])
      end
      assert.equal("old", cache:get("k"))
      assert.equal(1, cache:count())
    end

    it("of 0 bytes are good values", function()
      assert(cache:set("k", ""))
      assert.equal("", cache:get("k"))
      assert.equal(0, cache:entry("k").bytes)
      assert.same({ k = "" }, cache:get_many { "k" })
    end)

    it("of 64 MB come back; one byte more is refused", function()
      local value = ("\0\255ab"):rep(16 * MB)
      assert.equal(64 * MB, #value)
      assert(cache:set("k", value, 100))
      assert.is_true(cache:get("k") == value) -- assert.equal would print it
      assert.equal(64 * MB, cache:entry("k").bytes)
      assert.equal("invalid: a value of 67108865 bytes exceeds max_value_bytes (67108864)",
        select(2, cache:set("k", value .. "x")))
      assert.is_true(cache:ttl("k") > 0)
    end)

    it("that are nil are the caller's mistake", function()
      local text = "bad value (nil cannot be stored; use fpcache.null, or delete the key)"
      raises(text, function() cache:set("k") end)
      raises(text, function() cache:set("k", nil, 5) end)
      raises(text, function() cache:add("k") end)
      raises(text, function() cache:replace("k") end)
      raises(text, function() cache:cas("k", 1) end)
      raises(text, function() cache:get_set("k") end)
      raises("bad version (integer expected, got string)", function() cache:cas("k", "1", 1) end)
      raises("bad version (integer expected, got nil)", function() cache:cas("k") end)
      raises("bad version (integer expected, got 1.5)", function() cache:cas("k", 1.5, 1) end)
      raises("bad if_version (integer expected, got 0.5)", function() cache:set("k", 1, { if_version = 0.5 }) end)
      raises("options.if_version: integer is expected, got string",
        function() cache:set("k", 1, { if_version = "1" }) end)
      assert.equal("invalid: version must be an integer of 64 bits, got 1e+300", select(2, cache:cas("k", 1e300, 1)))
      assert.matches("^invalid: if_version must be an integer of 64 bits, got ",
        select(2, cache:set("k", 1, { if_version = 0 / 0 })))
    end)

    it("that are functions, coroutines or files are refused", function()
      refused("^invalid: .*function", print)
      refused("^invalid: .*thread", coroutine.create(print))
      refused("^invalid: .*userdata", io.stdout)
      refused("^invalid: .*function", { a = { print } })
    end)

    it("with a cycle are refused", function()
      local cycle = { a = {} }
      cycle.a.b = cycle
      refused("^invalid: ", cycle)
      local shared = { 1 }
      assert(cache:set("k", { shared, shared }), "twice the same table is no cycle")
      assert.same({ { 1 }, { 1 } }, cache:get("k"))
    end)

    it("that are NaN or infinite are refused in a table, and good alone", function()
      for _, number in ipairs { 0 / 0, math.huge, -math.huge } do
        refused("^invalid: ", { a = { number } })
        assert(cache:set("k", number))
        assert.is_true(exact.same(number, (cache:get("k"))))
        assert(cache:delete("k"))
      end
    end)

    it("that are lists with holes, or of mixed keys, are refused", function()
      refused("^invalid: ", { 1, nil, 3 })
      refused("^invalid: ", { [1] = 1, [1000000000] = 2 })
      refused("^invalid: ", { [2] = 1 })
      refused("^invalid: ", { [0] = 1 })
      refused("^invalid: ", { [-1] = 1 })
      refused("^invalid: ", { [1.5] = 1 })
      refused("^invalid: ", { 1, a = 2 })
      refused("^invalid: ", { [true] = 1 })
      refused("^invalid: ", { [{}] = 1 })
    end)

    it("10,000 tables deep are refused without harm to the stack", function()
      local deep = {}
      for _ = 1, 10000 do deep = { deep } end
      refused("^invalid: .*512", deep)
      deep = {}
      for _ = 1, 10000 do deep = { a = deep } end
      refused("^invalid: .*512", deep)
    end)

    it("that are text within tables must be UTF-8", function()
      refused("^invalid: .*UTF%-8", { "\255" })
      refused("^invalid: .*UTF%-8", { ["\255"] = 1 })
    end)

    it("whose metamethods raise or lie are read raw", function()
      local nasty = setmetatable({ a = 1 }, { __index = function() error("no") end, __len = function() return 1e9 end,
        __pairs = function() error("no") end, __tostring = function() error("no") end })
      assert(cache:set("k", nasty))
      assert.same({ a = 1 }, cache:get("k"))
    end)
  end)

  it("calls without self are told apart from a broken cache", function()
    for _, name in ipairs { "set", "get", "set_many", "transaction" } do
      assert.is_false((pcall(cache[name], "k", 1)))
    end
    assert.is_true(cache:ping())
  end)

  describe("rows that others wrote wrongly", function()
    local function row(format, value)
      db:sql(("INSERT INTO cache (user_id, key, value, format) VALUES ('app', 'k', '%s', '%s') ON CONFLICT "
        .. "(user_id, namespace, key) DO UPDATE SET value = excluded.value, format = excluded.format"):format(
        value, format))
    end

    it("are errors, not wrong values", function()
      for _, case in ipairs { { "i", "x" }, { "i", "" }, { "i", "9223372036854775808" }, { "f", "1,5" },
        { "b", "maybe" }, { "n", "nil" }, { "j", "{broken" }, { "j", "" }, { "j", "[1" }, { "z", "x" }, { "x", "x" } } do
        row(case[1], case[2])
        for _, call in ipairs { "get", "entry", "get_delete" } do
          local value, err = cache[call](cache, "k")
          assert.is_nil(value)
          assert.matches("^invalid: ", err, nil, case[1] .. " " .. case[2])
          row(case[1], case[2])
        end
        assert.matches("^invalid: ", select(2, cache:get_many { "k" }))
        assert.is_true((cache:set("k", "well again")))
        assert.equal("well again", cache:get("k"))
      end
    end)

    it("in Python's format are text where they are no JSON", function()
      row("t", '{"a":' .. ("["):rep(5000))
      assert.equal('{"a":' .. ("["):rep(5000), cache:get("k"))
      row("t", "NaN")
      assert.equal("NaN", cache:get("k"))
      row("t", "\\xff00")
      assert.equal("\255\0", cache:get("k"))
    end)
  end)

  it("null is no key and no option", function()
    raises("bad key (string expected, got userdata)", function() cache:get(fpcache.null) end)
    raises("bad ttl (number of seconds or duration expected, got userdata)", function() cache:set("k", 1, fpcache.null) end)
    raises("options.ttl: seconds or duration is expected, got userdata", function() cache:set("k", 1, { ttl = fpcache.null }) end)
  end)
end)

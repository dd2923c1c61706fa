-- counter_spec.lua -- incr and decr, up to the ends of 64 bits, on both kinds of Lua integers.
local database = require "support.database"
local exact = require "support.exact"
local fpcache = require "fpcache"
local raises = require "support.raises"

local int = exact.int
local MAX, MIN = int "9223372036854775807", int "-9223372036854775808"

describe("counters", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function assert_int(expected, value, err)
    assert.is_nil(err)
    if not exact.same(expected, value) then
      error(("expected %s, got %s"):format(tostring(expected), tostring(value)), 2)
    end
  end

  it("count from nothing, up and down", function()
    assert_int(1, cache:incr("n"))
    assert_int(11, cache:incr("n", 10))
    assert_int(10, cache:decr("n"))
    assert_int(-90, cache:decr("n", 100))
    assert_int(-91, cache:incr("n", -1))
    assert_int(-90, cache:decr("n", -1))
    assert_int(-90, cache:incr("n", 0))
    assert_int(-90, cache:decr("n", 0))
    assert_int(-1, cache:decr("m"))
    assert_int(-90, cache:get("n"))
  end)

  it("start from initial", function()
    assert_int(105, cache:incr("n", 5, { initial = 100 }))
    assert_int(110, cache:incr("n", 5, { initial = 100 }))
    assert_int(95, cache:decr("m", 5, { initial = 100 }))
    assert_int(MAX, cache:incr("x", 0, { initial = MAX }))
    assert_int(MIN, cache:incr("y", 0, { initial = MIN }))
  end)

  it("take a ttl when they are made, and keep it", function()
    assert(cache:incr("n", 1, { ttl = 100 }))
    assert.is_true(cache:ttl("n") > 90)
    assert(cache:incr("n", 1, { ttl = 5000 }))
    assert.is_true(cache:ttl("n") <= 100)
    assert(cache:incr("n"))
    assert.is_true(cache:ttl("n") > 90)
    assert(cache:decr("m", 1, { ttl = 100 }))
    assert.is_true(cache:ttl("m") > 90)
  end)

  it("reach both ends of 64 bits and stop there", function()
    assert(cache:set("n", int "9223372036854775806"))
    assert_int(MAX, cache:incr("n"))
    local value, err = cache:incr("n")
    assert.is_nil(value)
    assert.equal("invalid: bigint out of range (SQLSTATE 22003)", err)
    assert_int(MAX, cache:get("n"))
    assert_int(0, cache:decr("n", MAX))
    assert_int(int "-9223372036854775807", cache:decr("n", MAX))
    assert_int(MIN, cache:decr("n"))
    value, err = cache:decr("n")
    assert.is_nil(value)
    assert.equal("invalid: bigint out of range (SQLSTATE 22003)", err)
    assert_int(MIN, cache:get("n"))
    assert_int(-1, cache:incr("n", MAX))
    assert(cache:set("n", 0))
    assert_int(MIN, cache:incr("n", MIN))
  end)

  it("never wrap around where a new key is made", function()
    for _, case in ipairs { { 1, MAX }, { MAX, 1 }, { MAX, MAX }, { -1, MIN }, { MIN, -1 } } do
      local value, err = cache:incr("new", case[1], { initial = case[2] })
      assert.is_nil(value)
      assert.equal("invalid: initial and delta together are beyond 64 bits", err)
      assert.is_false(cache:exists("new"))
    end
  end)

  it("cannot take away the smallest integer: it has no opposite", function()
    local value, err = cache:decr("n", MIN)
    assert.is_nil(value)
    assert.equal("invalid: delta has no opposite within 64 bits", err)
  end)

  it("keep deltas beyond 2^53 exact", function()
    assert_int(int "9007199254740993", cache:incr("n", int "9007199254740993"))
    assert_int(int "9007199254740994", cache:incr("n", 1))
    assert_int(1, cache:decr("n", int "9007199254740993"))
  end)

  it("count on a text of Python's that is an integer", function()
    for _, text in ipairs { "41", "-1", "007" } do
      db:sql(("INSERT INTO cache (user_id, key, value, format) VALUES ('app', 'p', '%s', 't') " ..
        "ON CONFLICT (user_id, namespace, key) DO UPDATE SET value = excluded.value, format = 't'"):format(text))
      assert_int(tonumber(text) + 1, cache:incr("p"))
      assert_int(tonumber(text) + 2, cache:incr("p"))
    end
  end)

  it("refuse everything else and leave it as it was", function()
    for _, value in ipairs { "5", "x", 1.5, true, fpcache.null, { 1 }, "" } do
      assert(cache:set("k", value))
      local answer, err = cache:incr("k")
      assert.is_nil(answer)
      assert.equal("invalid: the stored value is no integer", err)
      assert.is_true(exact.same(value, (cache:get("k"))))
    end
    for _, text in ipairs { "1.5", "", " 1", "1 ", "+1", "1e3", "99999999999999999999" } do
      db:sql(("INSERT INTO cache (user_id, key, value, format) VALUES ('app', 'k', '%s', 't') " ..
        "ON CONFLICT (user_id, namespace, key) DO UPDATE SET value = excluded.value, format = 't'"):format(text))
      local answer, err = cache:incr("k")
      assert.is_nil(answer)
      assert.equal("invalid: the stored value is no integer", err)
    end
  end)

  it("a float of Lua 5.4 is no integer; LuaJIT has no such difference", function()
    assert(cache:set("n", 5.0))
    if exact.is_luajit then
      assert_int(6, cache:incr("n"))
    else
      assert.equal("invalid: the stored value is no integer", select(2, cache:incr("n")))
      assert.equal(5.0, cache:get("n"))
    end
    assert_int(2, cache:incr("m", 2.0))
  end)

  it("a delta beyond 64 bits is invalid", function()
    for _, delta in ipairs { 1e300, -1e300, 2 ^ 64, math.huge, -math.huge, 0 / 0 } do
      for _, call in ipairs { "incr", "decr" } do
        local value, err = cache[call](cache, "n", delta)
        assert.is_nil(value)
        assert.matches("^invalid: delta must be an integer of 64 bits, got ", err)
      end
      local value, err = cache:incr("n", 1, { initial = delta })
      assert.is_nil(value)
      assert.matches("^invalid: initial must be an integer of 64 bits, got ", err)
    end
    assert.is_false(cache:exists("n"))
  end)

  it("what is no integer is the caller's mistake", function()
    raises("bad delta (integer expected, got 1.5)", function() cache:incr("n", 1.5) end)
    raises("bad delta (integer expected, got 1.5)", function() cache:decr("n", 1.5) end)
    raises("bad delta (integer expected, got string)", function() cache:incr("n", "1") end)
    raises("bad delta (integer expected, got table)", function() cache:decr("n", {}) end)
    raises("bad delta (integer expected, got boolean)", function() cache:incr("n", false) end)
    raises("options.initial: integer is expected, got string", function() cache:incr("n", 1, { initial = "1" }) end)
    raises("bad initial (integer expected, got 0.5)", function() cache:incr("n", 1, { initial = 0.5 }) end)
    raises("options.inital: unknown option (did you mean initial?)", function() cache:decr("n", 1, { inital = 1 }) end)
    raises("bad key (string expected, got nil)", function() cache:incr() end)
    raises("bad key (string expected, got number)", function() cache:decr(5) end)
  end)

  if exact.is_luajit then
    it("take int64 and uint64, and no other C data", function()
      local ffi = require "ffi"
      local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"
      assert_int(5, cache:incr("n", int64(5)))
      assert_int(10, cache:incr("n", uint64(5)))
      assert_int(4, cache:decr("n", uint64(6)))
      assert_int(14, cache:incr("i", int64(4), { initial = int64(10) }))
      assert.matches("^invalid: delta must be an integer of 64 bits",
        select(2, cache:incr("n", uint64(-1))))
      raises("bad delta (integer expected, got cdata)", function() cache:incr("n", ffi.new("int[1]")) end)
    end)
  end
end)

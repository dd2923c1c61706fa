-- values_property_spec.lua -- random values through the real server and back, the same to the last bit.
local database = require "support.database"
local exact = require "support.exact"
local random_value = require "support.random_value"

local ROUNDS = 1500

describe("any value comes back as it went in", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function key(i, source) return i .. source:bytes(source:pick(0, 20)) end

  it("through set and get, get_set, entry", function()
    local source = random_value.new(20240601)
    local previous
    for i = 1, ROUNDS do
      local value = source:value()
      local k = key(i, source)
      assert(cache:set(k, value))
      if not exact.same(value, (cache:get(k))) then error("value " .. i .. " of seed 20240601 changed") end
      if i % 10 == 0 then
        assert(exact.same(value, cache:entry(k).value), i)
        local old, err = cache:get_set("last", value)
        assert.is_nil(err)
        assert(previous == nil or exact.same(previous, old), i)
        previous = value
      end
    end
  end)

  it("through set_many and get_many, scan", function()
    local source = random_value.new(777)
    local values, keys = {}, {}
    for i = 1, ROUNDS do
      keys[i] = key(i, source)
      values[keys[i]] = source:value()
    end
    assert.equal(ROUNDS, cache:set_many(values, { batch = 100 }))
    local got = assert(cache:get_many(keys))
    for i, k in ipairs(keys) do
      if not exact.same(values[k], got[k]) then error("value " .. i .. " of seed 777 changed") end
    end
    local count = 0
    for k, value in cache:scan { page = 70 } do
      assert(exact.same(values[k], value), k)
      count = count + 1
    end
    assert.equal(ROUNDS, count)
  end)

  it("between Lua 5.4 and LuaJIT: rows are the same bytes", function()
    -- The bytes and formats of a fixed seed; both runtimes assert the same digest.
    local list = { { "i", exact.int "9223372036854775807" }, { "i", exact.int "-9007199254740993" }, { "s", "\0\255" },
      { "f", 0.1 }, { "f", 1e300 }, { "b", true }, { "j", { a = { 1, 2.5, false, "é" } } } }
    for i, item in ipairs(list) do assert(cache:set("k" .. i, item[2])) end
    assert.equal([[
k1|i|9223372036854775807
k2|i|-9007199254740993
k3|s|\000\377
k4|f|0.1
k5|f|1e+300
k6|b|true
k7|j|{"a":[1,2.5,false,"é"]}]], db:sql("SELECT encode(key, 'escape'), format, fpcache_text(value) FROM cache ORDER BY key"))
  end)
end)

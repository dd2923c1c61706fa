-- The keys that cache:wrap makes of arguments, and what its options refuse.
local database = require "support.database"
local layers = require "support.layers"

describe("a wrapped function", function()
  local db, cache, calls

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache, calls = db:open(), 0
  end)
  after_each(function() db:close_all() end)

  local function counted()
    calls = calls + 1
    return calls
  end

  -- A table of these fields, made so that its own order is another each time.
  local NAMES = { "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta" }
  local function options_of(first, room)
    local made = {}
    for i = 1, room do made["x" .. i] = true end
    for i = 1, room do made["x" .. i] = nil end
    for i = first, first + #NAMES - 1 do
      local name = NAMES[i % #NAMES + 1]
      made[name] = { size = #name, list = { name, { b = 1, a = 2 } } }
    end
    return made
  end

  it("knows a table by its fields, in whatever order they are, here and in other processes", function()
    local find = cache:wrap(counted, { name = "find", ttl = 60 })
    for first = 1, #NAMES do
      for _, room in ipairs { 0, 50 } do assert.equal(1, (find("shop", options_of(first, room)))) end
    end
    layers.elsewhere(db, [[
      local names, made = { "theta", "zeta", "alpha", "delta", "eta", "beta", "epsilon", "gamma" }, {}
      for _, name in ipairs(names) do made[name] = { list = { name, { a = 2, b = 1 } }, size = #name } end
      local find = cache:wrap(function() error("called once more") end, { name = "find", ttl = 60 })
      assert(find("shop", made) == 1)]])
    assert.equal(1, calls)
    assert.same({ 'find:["shop",{"a":[1,{"b":2}],"c":{}}]' }, (function()
      cache:clear()
      find("shop", { c = {}, a = { 1, { b = 2 } } })
      return cache:keys {}
    end)())
  end)

  it("tells apart what differs", function()
    local find, seen = cache:wrap(counted, { name = "find", ttl = 60 }), {}
    for i, given in ipairs { { a = 1 }, { a = "1" }, { b = 1 }, { a = { 1 } }, { a = { 1, 2 } }, { a = { b = 1 } }, { 1 }, { "a" },
      { a = true }, { a = false }, { a = 'x","b":"y' }, { a = "x", b = "y" } } do
      seen[i] = find(given)
    end
    assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, seen)
  end)

  it("counts nil as an argument", function()
    local find = cache:wrap(counted, { name = "find", ttl = 60 })
    for _ = 1, 2 do
      assert.same({ 1, 2, 3, 4, 5 }, { (find(nil, 2)), (find(2)), (find(1)), (find(1, nil)), (find()) })
    end
    assert.same({ "find:[1,null]", "find:[1]", "find:[2]", "find:[]", "find:[null,2]" }, cache:keys())
  end)

  it("says what is wrong with its key", function()
    assert.has_error(function() cache:wrap(counted, { name = "n", key = tostring, ttl = 60 }) end,
      "options.name: excluded by key, which makes the whole key")
    local broken = cache:wrap(counted, { key = function() end, ttl = 60 })
    assert.has_error(function() broken(1) end, "bad key (options.key is to return a string, and returned a nil)")
    local ok, err = pcall(function() return (broken(1)) end)
    assert.is_false(ok)
    assert.matches("wrap_spec.lua:%d+: bad key", err)
    local holds_function = cache:wrap(counted, { name = "n", ttl = 60 })
    assert.error_matches(function() holds_function({ a = { print } }) end, "^bad arguments %(invalid: a function cannot be stored")
  end)

  it("and a counter blame the line of who gives them what they cannot take", function()
    local counter = cache:counter("c")
    for _, wrong in ipairs { "x", 0.5 } do
      local ok, err = pcall(function() return (counter:add(wrong)) end)
      assert.is_false(ok)
      assert.matches("wrap_spec.lua:%d+: bad delta %(integer expected", err)
    end
    assert.equal(1, counter:add())
  end)
end)

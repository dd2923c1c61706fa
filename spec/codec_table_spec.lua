-- codec_table_spec.lua -- tables as JSON: shapes, marks, what is refused and where it is.
local core = require "fpcache.core"
local codec = require "fpcache.codec"
local exact = require "support.exact"

local function assert_json(text, value)
  local bytes, format = codec.encode(value)
  assert.equal(text, bytes)
  assert.equal("j", format)
  local back = codec.decode(bytes, format)
  local again = codec.encode(back)
  assert.equal(text, again)
end

local function assert_refused(message, value)
  local bytes, err = codec.encode(value)
  assert.is_nil(bytes)
  assert.equal("invalid: " .. message, err)
end

describe("a table", function()
  it("is an array with the keys 1..n, however it was filled", function()
    assert_json("[1,2,3]", { 1, 2, 3 })
    local backwards = {}
    for i = 5, 1, -1 do backwards[i] = i end
    assert_json("[1,2,3,4,5]", backwards)
    assert_json('[[1,[]],{"a":[{}]}]', { { 1, codec.empty_array }, { a = { {} } } })
  end)

  it("is an object with string keys, and empty unless marked", function()
    assert_json('{"a":1}', { a = 1 })
    assert_json('{"1":1}', { ["1"] = 1 })
    assert_json('{"":1}', { [""] = 1 })
    assert_json("{}", {})
    assert_json('{"a":{}}', { a = {} })
  end)

  it("is an empty array with array_mt or as empty_array, and stays one", function()
    assert_json("[]", setmetatable({}, codec.array_mt))
    assert_json("[]", codec.empty_array)
    assert_json('{"a":[]}', { a = codec.empty_array })
    assert.equal(codec.array_mt, getmetatable((codec.decode("[]", "j"))))
    assert.is_nil(getmetatable((codec.decode("{}", "j"))))
    assert_json("[7]", setmetatable({ 7 }, codec.array_mt))
    local refilled = codec.decode("[]", "j")
    refilled[1] = "x"
    assert_json('["x"]', refilled)
  end)

  it("keeps null, false and NUL bytes inside", function()
    assert_json('{"a":null}', { a = codec.null })
    assert_json("[false,null,true]", { false, codec.null, true })
    assert_json('["a\\u0000b"]', { "a\0b" })
    local back = codec.decode('["a\\u0000b",null]', "j")
    assert.equal("a\0b", back[1])
    assert.equal(codec.null, back[2])
  end)

  it("escapes what JSON must and nothing else", function()
    assert_json([==[["\"\\\b\t\n\f\r\u0001\u001f/é€😀]==] .. '\127"]', { '"\\\b\t\n\f\r\1\31/é€😀\127' })
  end)

  it("is read raw: no metamethod runs", function()
    local function never() error("a metamethod ran") end
    local guarded = setmetatable({ 1, 2 }, { __index = never, __len = never, __pairs = never, __tostring = never })
    assert_json("[1,2]", guarded)
  end)

  it("may hold the same table twice, and 64 MB", function()
    local shared = { 1 }
    assert_json("[[1],[1]]", { shared, shared })
    local long = ("ä"):rep(32 * 1024 * 1024)
    local bytes, format = codec.encode { long }
    assert.equal(#long + 4, #bytes)
    assert.is_true(codec.decode(bytes, format)[1] == long)
  end)

  it("takes the last of equal keys", function()
    assert.same({ a = 2 }, codec.decode('{"a":1,"a":2}', "j"))
  end)

  it("may be encoded by many coroutines, and deep in the stack", function()
    local function deep(n) if n == 0 then return (codec.encode { { { 1 } } }) end return (deep(n - 1)) end
    for _ = 1, 20 do
      assert.equal("[[[1]]]", coroutine.wrap(function() return deep(5000) end)())
    end
  end)
end)

describe("a table that is no JSON", function()
  it("is refused with the place and the reason", function()
    assert_refused("NaN cannot be stored in JSON (at a.b[3])", { a = { b = { 1, 2, 0 / 0 } } })
    assert_refused("an infinite number cannot be stored in JSON (at [1])", { -math.huge })
    assert_refused("a function cannot be stored (at on_click)", { on_click = print })
    assert_refused("a thread cannot be stored (at [1])", { coroutine.create(print) })
    assert_refused("a userdata cannot be stored (at file)", { file = io.stdout })
    assert_refused("a string of 2 bytes that is not UTF-8 cannot be stored in JSON: "
      .. "store such bytes as a string of their own (at a.raw)", { a = { raw = "x\255" } })
  end)

  it("is refused for what only looks like UTF-8", function()
    for _, bytes in ipairs { "\128", "\191", "\192\128", "\193\191", "\194", "\194\65", "\224\159\191", "\225\128",
      "\237\160\128", "\237\191\191", "\240\143\191\191", "\244\144\128\128", "\245\128\128\128", "\240\144\128",
      "\240\144\128\65", "\248\136\128\128\128", "\255" } do
      local text, err = codec.encode { "ok " .. bytes }
      assert.is_nil(text)
      assert.matches("that is not UTF%-8", err)
      assert.is_nil((codec.decode('["ok ' .. bytes .. '"]', "j"))) -- nor is it read
    end
    for _, bytes in ipairs { "\194\128", "\223\191", "\224\160\128", "\237\159\191", "\238\128\128", "\239\191\191",
      "\240\144\128\128", "\244\143\191\191" } do
      assert_json('["' .. bytes .. '"]', { bytes })
    end
  end)

  it("is refused for keys that make neither an array nor an object", function()
    assert_refused("a table with both string and integer keys cannot be stored in JSON (at a)", { a = { 1, x = 2 } })
    assert_refused("a table with integer keys that are no sequence 1..n cannot be stored in JSON "
      .. "(2 keys, the largest is 3)", { 1, nil, 3 })
    assert_refused("a table with integer keys that are no sequence 1..n cannot be stored in JSON "
      .. "(1 keys, the largest is 1000000)", { [1000000] = 1 })
    assert_refused("a table with integer keys that are no sequence 1..n cannot be stored in JSON "
      .. "(2 keys, the largest is 1)", { [0] = 0, [1] = 1 })
    assert_refused("a table with integer keys that are no sequence 1..n cannot be stored in JSON "
      .. "(1 keys, the largest is -1)", { [-1] = 0 })
    assert_refused("a table with a key of type boolean cannot be stored in JSON", { [true] = 1 })
    assert_refused("a table with a key of type float cannot be stored in JSON", { [1.5] = 1 })
    assert_refused("a table with a key of type table cannot be stored in JSON", { 1, [{}] = 1 })
    assert_refused("a table marked as an array has string keys", setmetatable({ a = 1 }, codec.array_mt))
    assert_refused("a table marked as an array has string keys", setmetatable({ 1, a = 1 }, codec.array_mt))
    assert_refused('a key with a NUL byte cannot be stored in JSON (at ["a?b"])', { ["a\0b"] = 1 })
    assert_refused("a string of 2 bytes that is not UTF-8 cannot be stored in JSON: "
      .. 'store such bytes as a string of their own (at ["?("])', { ["\195("] = 1 })
  end)

  it("is refused for a lightuserdata that means nothing to us", function()
    if not exact.is_luajit then return end -- only LuaJIT makes them without C: here through a debug id
    local id = debug.upvalueid(function() return core end, 1)
    assert_refused("a lightuserdata that is not null cannot be stored (at [1])", { id })
  end)

  it("is refused for a cycle", function()
    local loop = { name = "loop" }
    loop.child = { loop }
    assert_refused("a table that contains itself cannot be stored (at child[1])", loop)
    local self = {}
    self[1] = self
    assert_refused("a table that contains itself cannot be stored (at [1])", self)
  end)

  it("is refused beyond 512 tables inside each other, at any depth", function()
    local function nested(depth)
      local t = {}
      for _ = 2, depth do t = { t } end
      return t
    end
    local bytes = assert(codec.encode(nested(512)))
    assert.equal(511 * 2 + 2, #bytes)
    assert.is_table(codec.decode(bytes, "j"))
    for _, depth in ipairs { 513, 10000 } do
      local none, err = codec.encode(nested(depth))
      assert.is_nil(none)
      assert.matches("^invalid: tables nested deeper than 512 cannot be stored %(at %.%.%.", err)
      assert.is_true(#err < 300)
    end
  end)

  it("names awkward keys so that a log can show them", function()
    assert_refused('a function cannot be stored (at ["a b"].c["1x"][""])',
      { ["a b"] = { c = { ["1x"] = { [""] = print } } } })
    assert_refused('a function cannot be stored (at ["' .. ("k"):rep(40) .. '..."])', { [("k"):rep(100000)] = print })
    assert_refused('a function cannot be stored (at ["é??"])', { ["é\n\127"] = print })
    assert_refused('a function cannot be stored (at ["' .. ("é"):rep(20) .. '..."])', { [("é"):rep(50)] = print })
  end)
end)

describe("the JSON functions", function()
  it("take values of any kind", function()
    for text, value in pairs { ["1"] = 1, ["1.5"] = 1.5, ['"a"'] = "a", ["true"] = true, ["false"] = false } do
      assert.equal(text, codec.json.encode(value))
      assert.equal(value, codec.json.decode(text))
    end
    assert.equal("null", codec.json.encode(codec.null))
    assert.equal(codec.null, codec.json.decode("null"))
  end)

  it("return nil and the reason, and raise for a wrong type", function()
    local text, err = codec.json.encode(0 / 0)
    assert.is_nil(text)
    assert.equal("invalid: NaN cannot be stored in JSON", err)
    local value, why = codec.json.decode("[1,")
    assert.is_nil(value)
    assert.equal("invalid: not JSON that can be read: it ends too early (at byte 3 of 3)", why)
    assert.has_error(function() codec.json.decode(1) end)
    assert.has_error(function() codec.json.encode() end)
  end)
end)

describe("adopt_marks", function()
  it("lets the marks of another library mean an empty array", function()
    local library = { array_mt = {}, empty_array_mt = {}, null = codec.null }
    assert_json("{}", setmetatable({}, library.array_mt))
    codec.adopt_marks(library)
    assert_json("[]", setmetatable({}, library.array_mt))
    assert_json("[]", setmetatable({}, library.empty_array_mt))
    assert.has_error(function() core.json_adopt(codec.null) end)
    assert.has_error(function() core.json_adopt("x") end)
  end)
end)

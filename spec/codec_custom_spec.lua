-- codec_custom_spec.lua -- tables by a codec of the user's own, lua-cjson first.
local codec = require "fpcache.codec"
local cjson = require "cjson"

local function assert_failure(message, value, err, ...)
  assert.is_nil(value)
  assert.equal(message, err)
  assert.equal(0, select("#", ...))
end

local reversed = {
  encode = function(t) return (t.text:reverse()) end,
  decode = function(s) return { text = s:reverse() } end,
}

describe("a custom codec", function()
  it("writes tables as 'x' and reads them", function()
    local bytes, format = codec.encode({ text = "abc" }, reversed)
    assert.equal("cba", bytes)
    assert.equal("x", format)
    assert.same({ text = "abc" }, codec.decode(bytes, format, reversed))
  end)

  it("is asked for tables only", function()
    for _, value in ipairs { "s", 5, 1.5, true, codec.null } do
      local bytes, format = codec.encode(value, reversed)
      assert.equal(value, codec.decode(bytes, format, reversed))
    end
  end)

  it("leaves 'j' rows to us, and writes and reads them when its format is json", function()
    assert.same({ 1 }, codec.decode("[1]", "j", reversed))
    local json = { encode = reversed.encode, decode = reversed.decode, format = "json" }
    local _, format = codec.encode({ text = "abc" }, json)
    assert.equal("j", format)
    assert.same({ text = "[1]" }, codec.decode("]1[", "j", json))
    assert.equal("]1[", (codec.decode("]1[", "j", json, false)))
  end)

  it("is needed to read 'x'", function()
    assert_failure("invalid: stored value of 3 bytes, format 'x', is made by a custom codec: "
      .. "give the cache the codec that wrote it", codec.decode("cba", "x"))
  end)

  it("fails as nil, err: raised, returned, or a wrong result", function()
    local function encode_by(f) return codec.encode({}, { encode = f, decode = f }) end
    local function decode_by(f) return codec.decode("s", "x", { encode = f, decode = f }) end
    assert_failure("invalid: codec: no such luck today", encode_by(function() error("no such\nluck today", 0) end))
    assert_failure("invalid: codec: full", encode_by(function() return nil, "full" end))
    assert_failure("invalid: codec: encode returned nil", encode_by(function() end))
    assert_failure("invalid: codec: encode raised a table", encode_by(function() error({}) end))
    assert_failure("invalid: codec: encode returned a number, not a string", encode_by(function() return 5 end))
    assert_failure("invalid: codec: no such luck", decode_by(function() error("no such luck", 0) end))
    assert_failure("invalid: codec: full", decode_by(function() return nil, "full" end))
    assert_failure("invalid: codec: decode returned nil", decode_by(function() end))
    local bytes, err = codec.encode({}, setmetatable({}, { __index = function() error("lazy", 0) end }))
    assert_failure("invalid: codec: lazy", bytes, err)
  end)

  it("may give any value but nil, false and null too", function()
    local function decode_to(value)
      return codec.decode("s", "x", { encode = tostring, decode = function() return value end })
    end
    assert.is_false((decode_to(false)))
    assert.equal(codec.null, (decode_to(codec.null)))
  end)

  it("may use the cache's own codec while it works", function()
    local nested = { encode = function(t) return (assert(codec.encode(t.inner))) end, decode = codec.json.decode }
    local bytes, format = codec.encode({ inner = { 1, 2 } }, nested)
    assert.equal("[1,2]", bytes)
    assert.same({ 1, 2 }, codec.decode(bytes, format, nested))
  end)
end)

describe("lua-cjson", function()
  it("works as a codec, as it is or as json", function()
    local value = { name = "Ada", tags = { "a", "b" }, none = cjson.null }
    local as_json = { encode = cjson.encode, decode = cjson.decode, format = "json" }
    for expected, custom in pairs { x = cjson, j = as_json } do
      local bytes, format = codec.encode(value, codec.check(custom))
      assert.equal(expected, format)
      assert.same(value, codec.decode(bytes, format, custom))
    end
    local bytes, err = codec.encode({ print }, cjson)
    assert.is_nil(bytes)
    assert.matches("^invalid: codec: .*function", err)
  end)

  it("has the same null, and reads what we write", function()
    assert.equal(cjson.null, codec.null)
    local value = { a = { 1, 2, { b = "é" } }, c = cjson.null }
    assert.same(value, cjson.decode((codec.encode(value))))
    assert.same(value, codec.decode(cjson.encode(value), "j"))
  end)
end)

describe("codec.check", function()
  it("returns a codec", function()
    assert.equal(reversed, codec.check(reversed))
    assert.equal(codec.json, codec.check(codec.json))
    local callable = setmetatable({}, { __call = function() return "" end })
    assert.is_table(codec.check { encode = callable, decode = callable })
  end)

  it("raises at the caller's line, naming what is missing", function()
    local function problem(object)
      local ok, err = pcall(function() codec.check(object) end)
      assert.is_false(ok)
      assert.matches("^.*codec_custom_spec%.lua:%d+: ", err)
      return (err:gsub("^.*codec_custom_spec%.lua:%d+: ", ""))
    end
    assert.equal("codec: expected an object with encode and decode, got string", problem("json"))
    assert.equal("codec: expected an object with encode and decode, got nil", problem(nil))
    assert.equal("codec: the function encode is missing (it is nil)", problem {})
    assert.equal("codec: the function decode is missing (it is nil)", problem { encode = print })
    assert.equal("codec: the function decode is missing (it is string)", problem { encode = print, decode = "x" })
    assert.equal('codec: format must be "json" or nil', problem { encode = print, decode = print, format = "xml" })
  end)
end)

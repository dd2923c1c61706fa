-- codec_spec.lua -- values as rows: every kind comes back as it went in, garbage is named, nothing crashes.
local core = require "fpcache.core"
local codec = require "fpcache.codec"
local exact = require "support.exact"
local random_value = require "support.random_value"

local int, same = exact.int, exact.same

--- Encodes and decodes; returns the value, the bytes and the format.
local function round_trip(value)
  local bytes, format = codec.encode(value)
  assert.is_string(bytes, format)
  local back, err = codec.decode(bytes, format)
  assert.is_nil(err)
  return back, bytes, format
end

local function assert_stored_as(value, bytes, format)
  local back, got_bytes, got_format = round_trip(value)
  assert.equal(bytes, got_bytes)
  assert.equal(format, got_format)
  assert.is_true(same(value, back), "came back as another value")
end

local function assert_refused(message, ...)
  local n = select("#", ...)
  assert.equal(2, n)
  local value, err = ...
  assert.is_nil(value)
  assert.equal(message, err)
end

describe("a value of its own", function()
  it("may be any string of bytes, the empty one too", function()
    local all = {}
    for i = 0, 255 do all[#all + 1] = string.char(i) end
    for _, s in ipairs { "", "123", "null", "\0", "a\0b", "\255\254", table.concat(all) } do
      assert_stored_as(s, s, "s")
    end
  end)

  it("may be a string of 64 MB", function()
    local long = ("0123456789abcde\0"):rep(4 * 1024 * 1024)
    local back, bytes = round_trip(long)
    assert.is_true(back == long and bytes == long)
  end)

  it("may be any integer of 64 bits", function()
    for _, digits in ipairs { "0", "1", "-1", "123456", "1763870000123456", "4294967295", "4294967296", "-4294967296",
      "-4294967297", "9007199254740991", "9007199254740992", "9007199254740993", "-9007199254740991",
      "-9007199254740992", "-9007199254740993", "9223372036854775806", "9223372036854775807",
      "-9223372036854775807", "-9223372036854775808" } do
      assert_stored_as(int(digits), digits, "i")
      assert_stored_as({ int(digits) }, "[" .. digits .. "]", "j")
    end
  end)

  it("may be a float, to the last bit and in 15 digits where they suffice", function()
    for text, float in pairs {
      ["-0.0"] = -0.0, ["0.5"] = 0.5, ["98.6"] = 98.6, ["-98.6"] = -98.6, ["0.1"] = 0.1, ["0.0001"] = 0.0001,
      ["0.30000000000000004"] = 0.1 + 0.2, ["123456789.125"] = 123456789.125,
      ["1e-06"] = 1e-6, ["1e+300"] = 1e300, ["1e+22"] = 1e22,
      ["1.7976931348623157e+308"] = 1.7976931348623157e308, ["2.2250738585072014e-308"] = 2.2250738585072014e-308,
      ["4.94065645841247e-324"] = 5e-324, ["1.15292150460685e+18"] = 1.15292150460685e18,
    } do
      assert_stored_as(float, text, "f")
      assert_stored_as({ float }, "[" .. text .. "]", "j")
    end
  end)

  it("may be NaN or infinite", function()
    assert_stored_as(0 / 0, "NaN", "f")
    assert_stored_as(math.huge, "Infinity", "f")
    assert_stored_as(-math.huge, "-Infinity", "f")
  end)

  it("stays a float when it is whole, where the runtime knows the difference", function()
    if exact.is_luajit then
      assert_stored_as(5.0, "5", "i")
      assert_stored_as(2 ^ 53, "9007199254740992", "i")
      assert_stored_as(2 ^ 54, "18014398509481984.0", "f")
    else
      assert_stored_as(5.0, "5.0", "f")
      assert_stored_as(-5.0, "-5.0", "f")
      assert_stored_as(0.0, "0.0", "f")
      assert_stored_as(2.0 ^ 53, "9007199254740992.0", "f")
      assert_stored_as({ 5.0 }, "[5.0]", "j")
    end
  end)

  it("may be a boolean or null, and false and null are values", function()
    assert_stored_as(true, "true", "b")
    assert_stored_as(false, "false", "b")
    assert_stored_as(codec.null, "null", "n")
    assert.equal(1, select("#", codec.decode("false", "b")))
  end)

  it("is not a function, thread, userdata or nil", function()
    assert_refused("invalid: a function cannot be stored", codec.encode(print))
    assert_refused("invalid: a thread cannot be stored", codec.encode(coroutine.create(print)))
    assert_refused("invalid: a userdata cannot be stored", codec.encode(io.stdout))
    assert_refused("invalid: nil cannot be stored", codec.encode(nil))
    assert.has_error(function() core.value_encode() end, "bad argument #1 to 'value_encode' (value expected)")
  end)

  if exact.is_luajit then
    it("may be int64_t or uint64_t in LuaJIT, as far as int64 goes", function()
      local ffi = require "ffi"
      local function stored(value) return (round_trip(value)) end
      assert.equal(5, stored(ffi.new("int64_t", 5)))
      assert.equal(int "9223372036854775807", stored(ffi.new("uint64_t", int "9223372036854775807")))
      local refusal = "invalid: cdata that is no integer of 64 bits with sign cannot be stored"
      assert_refused(refusal, codec.encode(ffi.new("uint64_t", -1)))
      assert_refused(refusal, codec.encode(ffi.new("int[2]")))
      assert_refused(refusal .. " (at n)", codec.encode { n = ffi.new("uint64_t", -1) })
    end)
  end
end)

describe("values at random", function()
  it("come back as they went in, and what is JSON is JSON to others", function()
    local has_cjson, cjson = pcall(require, "cjson")
    local seed = tonumber(os.getenv("FPC_TEST_SEED")) or os.time() % 2147483646 + 1
    local source = random_value.new(seed)
    for i = 1, 20000 do
      local value = source:value()
      local bytes, format = codec.encode(value)
      local where = ("value %d of FPC_TEST_SEED=%d"):format(i, seed)
      if bytes == nil then error(where .. ": " .. format) end
      local back = codec.decode(bytes, format)
      if not same(value, back) then error(where .. " came back as another value") end
      if format == "j" and has_cjson and not pcall(cjson.decode, bytes) then error(where .. " is no JSON to cjson") end
    end
  end)
end)

describe("a row with garbage", function()
  it("is named by its length and format, never by its content", function()
    for _, row in ipairs {
      { "12x", "i", "3 bytes, format 'i', is not an integer of 64 bits" },
      { "", "i", "0 bytes, format 'i', is not an integer of 64 bits" },
      { "-", "i", "1 bytes, format 'i', is not an integer of 64 bits" },
      { "+1", "i", "2 bytes, format 'i', is not an integer of 64 bits" },
      { " 1", "i", "2 bytes, format 'i', is not an integer of 64 bits" },
      { "1\0", "i", "2 bytes, format 'i', is not an integer of 64 bits" },
      { "9223372036854775808", "i", "19 bytes, format 'i', is not an integer of 64 bits" },
      { "-9223372036854775809", "i", "20 bytes, format 'i', is not an integer of 64 bits" },
      { "1.5.1", "f", "5 bytes, format 'f', is not a float" },
      { "", "f", "0 bytes, format 'f', is not a float" },
      { "0x10", "f", "4 bytes, format 'f', is not a float" },
      { "nan", "f", "3 bytes, format 'f', is not a float" },
      { "1e999", "f", "5 bytes, format 'f', is not a float" },
      { "01", "f", "2 bytes, format 'f', is not a float" },
      { "1.", "f", "2 bytes, format 'f', is not a float" },
      { "1e", "f", "2 bytes, format 'f', is not a float" },
      { ".5", "f", "2 bytes, format 'f', is not a float" },
      { "1,5", "f", "3 bytes, format 'f', is not a float" },
      { ("1"):rep(40), "f", "40 bytes, format 'f', is not a float" },
      { "TRUE", "b", "4 bytes, format 'b', is neither true nor false" },
      { "", "n", "0 bytes, format 'n', is not null" },
      { "{", "j", "1 bytes, format 'j', is not JSON that can be read: it ends too early (at byte 1 of 1)" },
      { "", "j", "0 bytes, format 'j', is not JSON that can be read: it ends too early (at byte 0 of 0)" },
      { "{}\0", "j", "3 bytes, format 'j', is not JSON that can be read: it goes on after its end (at byte 3 of 3)" },
      { "{'a':1}", "j", "7 bytes, format 'j', is not JSON that can be read: a syntax error (at byte 2 of 7)" },
      { '"\255"', "j", "3 bytes, format 'j', is not JSON that can be read: not UTF-8 (at byte 1 of 3)" },
      { '{"\\u0000":1}', "j",
        "12 bytes, format 'j', is not JSON that can be read: a key with a NUL byte (at byte 9 of 12)" },
      { "99999999999999999999", "j",
        "20 bytes, format 'j', is not JSON that can be read: a number out of range (at byte 20 of 20)" },
      { "1", "x", "1 bytes, format 'x', is made by a custom codec: give the cache the codec that wrote it" },
    } do
      assert_refused("invalid: stored value of " .. row[3], codec.decode(row[1], row[2]))
    end
    assert_refused("invalid: stored value of 1 bytes has the unknown format code 0x3f", codec.decode("1", "?"))
    assert_refused("invalid: stored value of 1 bytes has the unknown format code 0x00", codec.decode("1", "\0"))
  end)

  it("does not break the stack when nested deep", function()
    local function nested(depth) return ("["):rep(depth) .. ("]"):rep(depth) end
    assert.is_table(codec.decode(nested(512), "j"))
    assert_refused("invalid: stored value of 1026 bytes, format 'j', is not JSON that can be read: "
      .. "tables nested deeper than 512", codec.decode(nested(513), "j"))
    assert_refused("invalid: stored value of 20000 bytes, format 'j', is not JSON that can be read: "
      .. "tables nested too deep (at byte 2049 of 20000)", codec.decode(nested(10000), "j"))
  end)

  it("needs a format of one character", function()
    assert.has_error(function() codec.decode("1", "") end)
    assert.has_error(function() codec.decode("1", "ii") end)
  end)
end)

describe("an untyped row, as Python writes it", function()
  it("is its JSON where it is JSON, of any kind", function()
    for text, value in pairs { ["123"] = 123, ["1.5"] = 1.5, ["true"] = true, ["false"] = false, ['"a"'] = "a",
      [" 1 "] = 1, ["null"] = codec.null, ["9007199254740993"] = int "9007199254740993" } do
      assert.is_true(same(value, (codec.decode(text, "t"))), text)
    end
    assert.same({ a = { 1, 2 } }, codec.decode('{"a": [1, 2]}', "t"))
    assert.same({ a = 2 }, codec.decode('{"a": 1, "a": 2}', "t"))
  end)

  it("is its text where it is not, or where a number would be rounded", function()
    for _, text in ipairs { "", "hello", "1 2", "{", "NaN", "\255", "99999999999999999999",
      '{"id": 9223372036854775808}', "1e999", "tru", "{} x" } do
      assert.equal(text, (codec.decode(text, "t")))
    end
  end)

  it("is its text with parse_json=false, and so is a table", function()
    assert.equal("123", (codec.decode("123", "t", nil, false)))
    assert.equal('{"a":1}', (codec.decode('{"a":1}', "j", nil, false)))
    assert.equal(5, (codec.decode("5", "i", nil, false)))
    assert.is_true((codec.decode("true", "b", nil, false)))
  end)
end)

describe("a locale with a decimal comma", function()
  it("changes nothing", function()
    local folder = os.tmpname()
    os.remove(folder)
    finally(function() os.execute(("rm -rf '%s'"):format(folder)) end)
    os.execute(("mkdir '%s' && localedef -i de_DE -f UTF-8 '%s/de_DE.UTF-8' 2>/dev/null"):format(folder, folder))
    local made = io.open(folder .. "/de_DE.UTF-8/LC_NUMERIC")
    if not made then
      pending("localedef has no de_DE (Debian: locales)")
      return
    end
    made:close()
    local host = require "support.build" .. (exact.is_luajit and "/luajit-host" or "/lua54-host")
    -- glibc keeps what it read of LOCPATH, which a leak checker would call a leak.
    local command = ("ASAN_OPTIONS=detect_leaks=0 LOCPATH='%s' LUA_PATH='%s' LUA_CPATH='%s' '%s' "
      .. "spec/support/locale_check.lua de_DE.UTF-8 2>&1; echo $?"):format(folder, package.path, package.cpath, host)
    local child = assert(io.popen(command))
    local said = child:read("*a")
    child:close()
    assert.equal("0\n", said)
  end)
end)

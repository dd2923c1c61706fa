-- random_value.lua -- values of every kind the cache stores, from a seed: the same seed, the same values.
local core = require "fpcache.core"
local has_ffi, ffi = pcall(require, "ffi")

-- LuaJIT cannot parse the operators, so Lua 5.4 compiles them from a string.
local combine = not has_ffi and load "local high, low, shift = ... return (high << 32 | low) >> shift"

local Source = {}
Source.__index = Source

--- A source of values; `seed` is a whole number from 1 to 2147483646.
local function new(seed)
  return setmetatable({ state = seed }, Source)
end

--- A whole number in low..high (at most 2^31 apart); Park and Miller's generator, exact in a double.
function Source:pick(low, high)
  self.state = (self.state * 16807) % 2147483647
  local n = low + math.floor((self.state - 1) / 2147483646 * (high - low + 1))
  return math.tointeger and math.tointeger(n) or n
end

function Source:bytes(length)
  local out = {}
  for i = 1, length do out[i] = string.char(self:pick(0, 255)) end
  return table.concat(out)
end

--- An integer of 0 to 63 bits and a sign.
function Source:integer()
  local high, low, shift = self:pick(0, 0x7fffffff), self:pick(0, 65535) * 65536 + self:pick(0, 65535), self:pick(0, 62)
  local negative = self:pick(0, 1) == 1
  local value
  if has_ffi then
    value = (ffi.cast("int64_t", high) * 4294967296 + ffi.cast("int64_t", low)) / ffi.cast("int64_t", 2 ^ shift)
    if value <= 2 ^ 53 then value = tonumber(value) end
  else
    value = combine(high, low, shift)
  end
  if value == 0 then return value end -- LuaJIT's -0 would be a float
  return negative and -value or value
end

--- A double: any pattern of bits, or one that people write.
function Source:float()
  if self:pick(1, 3) == 1 then return self:pick(-1000000, 1000000) / 10 ^ self:pick(1, 6) end
  local bits = self:bytes(8)
  -- LuaJIT keeps its other types in the bits of NaN: such bits read through the FFI become any value.
  if bits:byte(8) % 128 == 127 and bits:byte(7) >= 0xf0 then
    return ({ 0 / 0, math.huge, -math.huge })[self:pick(1, 3)]
  end
  if not has_ffi then return (string.unpack("<d", bits)) end
  local double = ffi.new("double[1]")
  ffi.copy(double, bits, 8)
  return double[0]
end

local RANGES = { { 0, 0x1f }, { 0x20, 0x7f }, { 0x20, 0x7f }, { 0x80, 0x7ff }, { 0x800, 0xd7ff }, { 0xe000, 0xffff },
  { 0x10000, 0x10ffff } }

local function utf8_char(code)
  if code < 0x80 then return string.char(code) end
  local tail = {}
  local limit = 0x40 -- what the first byte still holds
  while code >= limit do
    table.insert(tail, 1, string.char(0x80 + code % 64))
    code = math.floor(code / 64)
    limit = limit == 0x40 and 0x20 or limit / 2
  end
  local lead = ({ 0xc0, 0xe0, 0xf0 })[#tail]
  return string.char(lead + code) .. table.concat(tail)
end

--- Text in UTF-8 of any script, control characters included; `first` is the lowest code point.
function Source:text(first)
  local out = {}
  for i = 1, self:pick(0, 12) do
    local range = RANGES[self:pick(1, #RANGES)]
    out[i] = utf8_char(math.max(first, self:pick(range[1], range[2])))
  end
  return table.concat(out)
end

--- What may stand in a table besides tables.
function Source:scalar()
  local kind = self:pick(1, 6)
  if kind == 1 then return self:text(0) end
  if kind == 2 then return self:integer() end
  if kind == 3 then return self:pick(0, 1) == 1 end
  if kind == 4 then return core.null end
  local float
  repeat float = self:float() until float == float and math.abs(float) < math.huge
  return kind == 5 and float or self:pick(-100, 100)
end

function Source:table(depth)
  local out, count, is_array = {}, self:pick(0, 6), self:pick(0, 1) == 1
  for i = 1, count do
    local value
    if depth > 0 and self:pick(1, 4) == 1 then value = self:table(depth - 1) else value = self:scalar() end
    out[is_array and i or self:text(1)] = value
  end
  if is_array and count == 0 then setmetatable(out, core.array_mt) end
  return out
end

--- Any value the cache stores.
function Source:value()
  local kind = self:pick(1, 5)
  if kind == 1 then return self:bytes(self:pick(0, 300)) end
  if kind == 2 then return self:float() end
  if kind == 3 then return self:scalar() end
  return self:table(5)
end

return { new = new }

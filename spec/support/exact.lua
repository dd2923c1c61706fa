-- exact.lua -- equality to the last bit and 64-bit integers, the same on Lua 5.4 and LuaJIT.
local core = require "fpcache.core"
local has_ffi, ffi = pcall(require, "ffi")

local exact = { is_luajit = has_ffi }

--- The integer with these decimal digits, as the runtime holds it: a number, or int64_t in LuaJIT beyond 2^53.
function exact.int(digits)
  if not has_ffi then return assert(math.tointeger(tonumber(digits))) end
  local number = tonumber(digits)
  if math.abs(number) < 2 ^ 53 or digits == "9007199254740992" or digits == "-9007199254740992" then
    return number
  end
  if digits == "-9223372036854775808" then return exact.int("-9223372036854775807") - 1 end
  return assert(loadstring("return " .. digits .. "LL"))()
end

local function same_number(a, b)
  if math.type and math.type(a) ~= math.type(b) then return false end
  if a ~= a then return b ~= b end
  return a == b and (a ~= 0 or 1 / a == 1 / b) -- 0.0 and -0.0 differ
end

--- Whether `a` and `b` are the same value: kind of number, every bit, every key, the mark of an empty array.
function exact.same(a, b)
  if type(a) ~= type(b) then return false end
  if type(a) == "number" then return same_number(a, b) end
  if type(a) == "cdata" then return ffi.istype("int64_t", a) and ffi.istype("int64_t", b) and a == b end
  if type(a) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not exact.same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  local is_array = getmetatable(a) == core.array_mt
  return next(a) ~= nil or is_array == (getmetatable(b) == core.array_mt)
end

return exact

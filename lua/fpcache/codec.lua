--- fpcache.codec: how a Lua value becomes the bytes of a row, and back, exactly.
--
-- Strings, integers, floats, booleans and null are stored as they are; tables as JSON, or by a codec
-- of your own: an object with `encode` and `decode` such as lua-cjson.  The work is done in C
-- (src/lua/value.h is the contract); this module names it, and checks what users hand in.
--
-- Tables: the keys 1..n make an array, string keys an object; metamethods are not run.  An empty table
-- is `{}`; `setmetatable({}, codec.array_mt)` or `codec.empty_array` is `[]`.  Read back, `[]` carries
-- `array_mt` and so stays an array.  Not storable in a table: NaN and infinity, strings that are not
-- UTF-8, other keys, cycles, functions and the like, more than 512 tables inside each other.
local core = require "fpcache.core"

local codec = {}

---@class fpcache.Codec
---@field encode fun(value: table): string?, string?  called without self; raises or returns nil, err when it fails
---@field decode fun(text: string): any, string?      called without self; nil means failure
---@field format? "json"  its text is JSON, which other clients can read; without it only this codec reads its rows

--- A JSON null, at any depth: lightuserdata NULL, equal to `cjson.null` and `ngx.null`.
---@type lightuserdata
codec.null = core.null

--- The metatable that says "this table is a JSON array", needed only when it is empty.
---@type table
codec.array_mt = core.array_mt

--- A value that is stored as `[]`.  It is read back as an empty table with `array_mt`.
---@type lightuserdata
codec.empty_array = core.empty_array

--- The built-in codec, exact where lua-cjson rounds.  It takes values of any kind, not only tables.
---@type fpcache.Codec
codec.json = { encode = core.json_encode, decode = core.json_decode, format = "json" }

--- The bytes and the format code that a row of the cache holds for `value`.
---@param value any               anything but nil
---@param custom? fpcache.Codec   for tables; default: the built-in JSON
---@return string? bytes          nil when the value cannot be stored
---@return string format_or_err   one letter (see src/lua/value.h), or "invalid: ..." with the place in the table
function codec.encode(value, custom)
  return core.value_encode(value, custom)
end

--- The value of a row.  A stored null is `codec.null`, a stored false is false: nil is always a failure.
---@param bytes string
---@param format string           one letter
---@param custom? fpcache.Codec   reads 'x' rows, and 'j' rows when its `format` is "json"
---@param parse_json? boolean     default true; false gives untyped and JSON rows as their text
---@return any value              nil when the bytes do not fit the format
---@return string? err            "invalid: ...", "memory: ..."; a custom codec's words follow "invalid: codec: "
function codec.decode(bytes, format, custom, parse_json)
  return core.value_decode(bytes, format, custom, parse_json)
end

--- Whether `f` can be called: a function, or a value whose metatable has __call.
local function is_callable(f)
  if type(f) == "function" then return true end
  local mt = getmetatable(f)
  return type(mt) == "table" and mt.__call ~= nil
end

--- Raises, naming what is missing, when `object` is no codec; else returns it.
---@param object any
---@param level? integer  whose line to blame, as in error(); default 2, the caller's
---@return fpcache.Codec
function codec.check(object, level)
  level = level or 2
  local kind = type(object)
  if kind ~= "table" and kind ~= "userdata" then
    error("codec: expected an object with encode and decode, got " .. kind, level)
  end
  for _, name in ipairs { "encode", "decode" } do
    local member = object[name]
    if not is_callable(member) then
      error(("codec: the function %s is missing (it is %s)"):format(name, type(member)), level)
    end
  end
  if object.format ~= nil and object.format ~= "json" then
    error('codec: format must be "json" or nil', level)
  end
  return object
end

--- Lets the array marks of another JSON library count as ours: `empty_array`, `array_mt` and
--- `empty_array_mt`, as OpenResty's cjson has them (Debian's lua-cjson has none).  When that library
--- was loaded before this module, it is done already.
---@param library table
function codec.adopt_marks(library)
  for _, name in ipairs { "empty_array", "array_mt", "empty_array_mt" } do
    local mark = library[name]
    if mark ~= nil and mark ~= core.null then core.json_adopt(mark) end
  end
end

for _, name in ipairs { "cjson", "cjson.safe" } do
  if type(package.loaded[name]) == "table" then codec.adopt_marks(package.loaded[name]) end
end

return codec

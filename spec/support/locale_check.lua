-- locale_check.lua -- run by codec_spec.lua in a process of its own: floats under a decimal comma.
-- Fails when the locale cannot be set, so that it never passes for nothing.
local codec = require "fpcache.codec"
local exact = require "support.exact"

assert(os.setlocale(arg[1]), "the locale cannot be set")
for _, float in ipairs { 98.6, 0.1 + 0.2, 1e300, 5e-324, 1.7976931348623157e308, -0.0 } do
  for _, value in ipairs { float, { float } } do
    local bytes, format = assert(codec.encode(value))
    assert(not bytes:find(",", 1, true), bytes)
    assert(exact.same(value, assert(codec.decode(bytes, format))), bytes)
  end
end
assert(not codec.decode("1,5", "f"))

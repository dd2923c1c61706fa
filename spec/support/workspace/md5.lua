-- md5.lua -- RFC 1321, which RADIUS is made of.
local md5 = {}

local SHIFTS = { { 7, 12, 17, 22 }, { 5, 9, 14, 20 }, { 4, 11, 16, 23 }, { 6, 10, 15, 21 } }
local SINES = {}
for i = 1, 64 do SINES[i] = math.floor(math.abs(math.sin(i)) * 2 ^ 32) end

local function rotated(x, by)
  return ((x << by) | (x >> (32 - by))) & 0xFFFFFFFF
end

local function block(text, at, a, b, c, d)
  local words = { string.unpack("<" .. ("I4"):rep(16), text, at) }
  local a0, b0, c0, d0 = a, b, c, d
  for i = 0, 63 do
    local round = i // 16
    local f, g
    if round == 0 then f, g = (b & c) | (~b & d), i
    elseif round == 1 then f, g = (d & b) | (~d & c), (5 * i + 1) % 16
    elseif round == 2 then f, g = b ~ c ~ d, (3 * i + 5) % 16
    else f, g = c ~ (b | (~d & 0xFFFFFFFF)), (7 * i) % 16 end
    f = (f + a + SINES[i + 1] + words[g + 1]) & 0xFFFFFFFF
    a, d, c = d, c, b
    b = (b + rotated(f, SHIFTS[round + 1][i % 4 + 1])) & 0xFFFFFFFF
  end
  return (a0 + a) & 0xFFFFFFFF, (b0 + b) & 0xFFFFFFFF, (c0 + c) & 0xFFFFFFFF, (d0 + d) & 0xFFFFFFFF
end

--- 16 bytes.
function md5.sum(text)
  local padded = text .. "\x80" .. ("\0"):rep((55 - #text) % 64) .. string.pack("<I8", #text * 8)
  local a, b, c, d = 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476
  for at = 1, #padded, 64 do a, b, c, d = block(padded, at, a, b, c, d) end
  return string.pack("<I4I4I4I4", a, b, c, d)
end

return md5

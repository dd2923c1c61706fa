-- tokens.lua -- the tokens that the stand-in workspace gives out and knows again.
local cjson = require "cjson"

local tokens = {}

local random = assert(io.open("/dev/urandom", "rb"))

local function base64url(bytes)
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
  local out = {}
  for i = 1, #bytes, 3 do
    local a, b, c = bytes:byte(i, i + 2)
    local word = (a << 16) | ((b or 0) << 8) | (c or 0)
    for k = 0, c and 3 or b and 2 or 1 do
      local index = (word >> (18 - 6 * k)) & 63
      out[#out + 1] = alphabet:sub(index + 1, index + 1)
    end
  end
  return table.concat(out)
end

--- A fresh one in the shape of a JWT that ends at `expires` (seconds since 1970).
function tokens.new(subject, expires)
  return table.concat({ base64url('{"alg":"RS256","typ":"JWT"}'),
    base64url(cjson.encode { sub = subject, exp = math.floor(expires) }), base64url(random:read(32)) }, ".")
end

--- A UUID.
function tokens.uuid()
  local hex = random:read(16):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
  return hex:gsub("^(%x%x%x%x%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)", "%1-%2-%3-%4-")
end

return tokens

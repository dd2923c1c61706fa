-- sigv4.lua -- checks AWS signatures with the program openssl: an implementation that is not ours.
local core = require "fpcache.core"

local sigv4 = {}

local function openssl(input, ...)
  local result = assert(core.run { argv = { "openssl", "dgst", "-sha256", ... }, input = input })
  assert(result.status == 0, result.output)
  return assert(result.output:match("(%x+)%s*$"))
end

local function hex(text)
  return (text:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end

local function hmac(key_in_hex, text)
  return openssl(text, "-mac", "HMAC", "-macopt", "hexkey:" .. key_in_hex)
end

local function signature(secret, scope, date, canonical)
  local key = hex("AWS4" .. secret)
  for part in scope:gmatch("[^/]+") do key = hmac(key, part) end
  return hmac(key, table.concat({ "AWS4-HMAC-SHA256", date, scope, openssl(canonical) }, "\n"))
end

local function decoded(text)
  return (text:gsub("%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end))
end

--- Takes a presigned URL without its scheme apart and checks it with the secret that AWS would look up.
---@param token string
---@param secret string
---@return table fields of the query, and host
function sigv4.check_url(token, secret)
  local host, query, given = token:match("^([^/]+)/%?(.*)&X%-Amz%-Signature=(%x+)$")
  assert(host, "the token is no presigned URL")
  local fields, last = { host = host }, ""
  for name, value in query:gmatch("([^&=]+)=([^&]*)") do
    assert(last < name, "the fields are not in order")
    last, fields[decoded(name)] = name, decoded(value)
  end
  local id, scope = fields["X-Amz-Credential"]:match("^([^/]+)/(.+)$")
  fields.id, fields.scope = id, scope
  local canonical = ("GET\n/\n%s\nhost:%s\n\nhost\n%s"):format(query, host, openssl(""))
  assert(given == signature(secret, scope, fields["X-Amz-Date"], canonical), "the signature is wrong")
  return fields
end

--- The same for a signed POST {headers, body} to "/".
---@return string id of the key
function sigv4.check_post(request, secret)
  local id, scope, names, given = request.headers.authorization:match(
    "^AWS4%-HMAC%-SHA256 Credential=([^/]+)/(%S+), SignedHeaders=(%S+), Signature=(%x+)$")
  assert(id, "no signature of a known shape")
  local lines = {}
  for name in names:gmatch("[^;]+") do lines[#lines + 1] = name .. ":" .. assert(request.headers[name], name) .. "\n" end
  local canonical = ("POST\n/\n\n%s\n%s\n%s"):format(table.concat(lines), names, openssl(request.body))
  assert(given == signature(secret, scope, request.headers["x-amz-date"], canonical), "the signature is wrong")
  return id
end

return sigv4

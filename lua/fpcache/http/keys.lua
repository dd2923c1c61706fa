--- The key of a response: method, scheme, host, URI and chosen fields of the request, written so that what HTTP calls equivalent
-- (RFC 9110, 4.2.3; RFC 3986, 6.2) has one key.
--
-- Done to a URI: %41 becomes A where that byte needs no escape; the digits of other escapes become capitals;
-- an empty path becomes "/".  Not done: dot segments, order of arguments, double slashes; an origin may tell these apart.  A
-- fragment, which no browser sends, is left too: else what an origin says of /a#x would be kept for /a.
-- Done to a host: small letters; the scheme's own port goes.  Not done: a dot at the end, which an origin may answer by
-- sending the client to the name without it.
local headers = require("fpcache.http.headers")
local vary = require("fpcache.http.vary")

local keys = {}

local DEFAULT_PORTS = { http = "80", https = "443" }

---@param host string?
---@param scheme string
---@return string
function keys.host(host, scheme)
  host = (host or ""):lower()
  local name, port = host:match("^(.*):(%d*)$") -- of "[::1]" nothing: it has no port
  if not name then name, port = host, "" end
  if port == "" or port == DEFAULT_PORTS[scheme] then return name end
  return name .. ":" .. port
end

local function escape(digits)
  local byte = string.char(tonumber(digits, 16))
  if byte:find("[%w%-._~]") then return byte end
  return "%" .. digits:upper()
end

--- Whether an argument ("name=value") is in the list by its name.  One with a semicolon is not: there are origins that divide
-- arguments by these too, and what follows would be an argument of which the key says nothing.
local function is_ignored(argument, ignored)
  if argument:find(";", 1, true) or argument:find("%3B", 1, true) then return false end
  local name = argument:match("^[^=]*")
  if ignored[name] then return true end
  for pattern in pairs(ignored) do
    if pattern:sub(-1) == "*" and name:sub(1, #pattern - 1) == pattern:sub(1, -2) then return true end
  end
  return false
end

---@param uri string path and arguments as the client sent them
---@param ignored table<string, true>? names of arguments that make no difference; one ending in "*" stands for all that begin so
---@return string
function keys.uri(uri, ignored)
  uri = uri:gsub("%%(%x%x)", escape)
  local path, arguments = uri, nil
  local mark = uri:find("?", 1, true)
  if mark then path, arguments = uri:sub(1, mark - 1), uri:sub(mark + 1) end
  if path == "" then path = "/" end
  if not arguments then return path end
  if ignored and next(ignored) then
    local kept = {}
    for argument in arguments:gmatch("[^&]+") do
      if not is_ignored(argument, ignored) then kept[#kept + 1] = argument end
    end
    if #kept == 0 then return path end
    arguments = table.concat(kept, "&")
  end
  return path .. "?" .. arguments
end

--- The URI part, which a purge names: "http example.org /a?b".
---@param request table { scheme, host, uri }
---@param ignored table<string, true>?
function keys.place(request, ignored)
  local scheme = (request.scheme or "http"):lower()
  return ("%s %s %s"):format(scheme, keys.host(request.host, scheme), keys.uri(request.uri, ignored))
end

--- The URIs of the same origin that an answer's Location and Content-Location name (RFC 9111, 4.4), each once, without the
-- request's own.  Of references relative to a path, which hardly any origin sends, none.
---@param request table { scheme, host, uri }
---@param fields table<string, table> of the answer
---@return string[] path and arguments
function keys.named(request, fields)
  local list, seen = {}, { [request.uri] = true }
  local scheme = (request.scheme or "http"):lower()
  for _, name in ipairs { "location", "content-location" } do
    local text = (headers.first(fields, name) or ""):match("^[^#]*")
    local named_scheme, host, uri = text:match("^(%a[%w+.-]*)://([^/?]+)(.*)$")
    if named_scheme then
      if named_scheme:lower() ~= scheme or keys.host(host, scheme) ~= keys.host(request.host, scheme) then uri = nil end
    elseif text:find("^/") and not text:find("^//") then
      uri = text
    end
    if uri and not seen[uri] then
      seen[uri] = true
      list[#list + 1] = uri
    end
  end
  return list
end

--- The key of what is asked for.  A HEAD is answered from what GET has.
---@param place string by keys.place
---@param names string[] further fields of the request, in lower case
---@param fields table<string, table> of the request
---@return string
function keys.primary(place, names, fields)
  local key = "GET " .. place
  if #names > 0 then key = key .. "\n" .. vary.key(names, fields) end
  return key
end

--- The key of one of several answers.
---@param primary string
---@param names string[] that the answer varies by
---@param fields table<string, table> of the request
function keys.secondary(primary, names, fields)
  return primary .. "\nvary\n" .. vary.key(names, fields)
end

--- The tags that a response names: Surrogate-Key, divided by spaces, and Cache-Tag, divided by commas.
---@param fields table<string, table>
---@param limit integer at most so many
---@return string[] each once; those that are too long for a tag (255 bytes) are left out
function keys.tags(fields, limit)
  local list, seen = {}, {}
  local function take(members)
    for _, tag in ipairs(members) do
      if #tag <= 255 and not seen[tag] and #list < limit then
        seen[tag] = true
        list[#list + 1] = tag
      end
    end
  end
  take(headers.members(headers.joined(fields, "surrogate-key"), ",%s"))
  take(headers.members(headers.joined(fields, "cache-tag"), ","))
  return list
end

return keys

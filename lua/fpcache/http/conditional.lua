--- Conditional requests (RFC 9110, 13; RFC 9111, 4.3): what a client may be spared, what the origin is asked, what a 304 changes.
local dates = require("fpcache.http.dates")
local headers = require("fpcache.http.headers")

local conditional = {}

--- The entity tags of a list: { "W/\"a\"", "\"b\"" }, or "*".  What is none is passed over.
---@param text string
---@return string[]|"*"
function conditional.tags(text)
  if text:match("^%s*%*%s*$") then return "*" end
  local list, at = {}, 1
  while true do
    local from = text:find('"', at, true)
    local stop = from and text:find('"', from + 1, true)
    if not stop then return list end
    local weak = from > 2 and text:sub(from - 2, from - 1) == "W/" and from - 2 >= at
    list[#list + 1] = (weak and "W/" or "") .. text:sub(from, stop)
    at = stop + 1
  end
end

local function opaque(tag) return (tag:gsub("^W/", "")) end

--- The weak comparison, which If-None-Match uses (RFC 9110, 8.8.3.2).
local function matches_weakly(a, b) return opaque(a) == opaque(b) end

--- The strong comparison: equal, and neither is weak.
local function matches_strongly(a, b) return a == b and a:sub(1, 2) ~= "W/" end

--- Whether a client has what is kept already, so that 304 is the answer (RFC 9110, 13.2.2; RFC 9111, 4.3.2).
---@param method string
---@param asked table<string, table> fields of the request
---@param status integer of what is kept
---@param kept table<string, table>
---@param now number seconds since 1970
---@return boolean
function conditional.is_not_modified(method, asked, status, kept, now)
  if status ~= 200 or method ~= "GET" and method ~= "HEAD" then return false end
  local none_match = headers.joined(asked, "if-none-match")
  if none_match then -- then If-Modified-Since does not count
    local tags = conditional.tags(none_match)
    if tags == "*" then return true end
    local own = headers.first(kept, "etag")
    if not own then return false end
    for _, tag in ipairs(tags) do
      if matches_weakly(tag, own) then return true end
    end
    return false
  end
  local since = dates.parse(headers.first(asked, "if-modified-since"), now)
  if not since then return false end
  local modified = dates.parse(headers.first(kept, "last-modified"), now) or dates.parse(headers.first(kept, "date"), now)
  return modified ~= nil and modified <= since
end

-- What a 304 carries beside what is about it alone (RFC 9110, 15.4.5).
local OF_304 = { "cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary", "age", "x-cache" }

--- The fields of a 304 made from what is kept.
---@param kept table<string, table>
function conditional.fields_of_304(kept)
  local fields = {}
  for _, name in ipairs(OF_304) do fields[name] = kept[name] end
  return fields
end

-- What a client's request must not carry on to the origin when the whole response is wanted for keeping.
conditional.OF_CLIENT = { "if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range" }

--- What to ask the origin, so that it can say that what is kept is still right (RFC 9111, 4.3.1).
---@param kept table<string, table>
---@return table<string, string>? asked nil: it cannot be asked
function conditional.questions(kept)
  local etag, modified = headers.first(kept, "etag"), headers.first(kept, "last-modified")
  if not etag and not modified then return nil end
  return { ["If-None-Match"] = etag, ["If-Modified-Since"] = modified }
end

--- Whether a 304 speaks of what is kept (RFC 9111, 4.3.4): its strong entity tag is the same; or its weak one; or its
-- Last-Modified; or it names none, and what is kept was all that was asked about.
--
-- One thing is taken less strictly: a weak tag that is kept may be told as a strong one.  nginx's gzip does so: its 200 says
-- W/"a", its 304 "a".  The kept bytes need not be the ones of "a", so their tag stays weak.
---@param kept table<string, table>
---@param told table<string, table> the fields of the 304
function conditional.is_about(kept, told)
  local etag, own = headers.first(told, "etag"), headers.first(kept, "etag")
  if etag then
    if etag:sub(1, 2) == "W/" then return own ~= nil and matches_weakly(etag, own) end
    return own ~= nil and (matches_strongly(etag, own) or own == "W/" .. etag)
  end
  local modified = headers.first(told, "last-modified")
  return modified == nil or modified == headers.first(kept, "last-modified")
end

-- They describe the body, which a 304 does not have (RFC 9111, 3.2).
local OF_BODY = { ["content-length"] = true, ["content-encoding"] = true, ["content-type"] = true, ["content-range"] = true }

--- The kept fields after a 304: what it names replaces what was there (RFC 9111, 3.2 and 4.3.4).
---@param kept table<string, table>
---@param told table<string, table>
---@return table<string, table>
function conditional.freshened(kept, told)
  local fields = {}
  for name, field in pairs(kept) do fields[name] = field end
  fields.age = nil -- of the old response; the new one has its own, or none
  for name, field in pairs(headers.storable(told)) do
    if not OF_BODY[name] then fields[name] = field end
  end
  local own = headers.first(kept, "etag")
  if own and own:sub(1, 2) == "W/" then fields.etag = kept.etag end
  return fields
end

return conditional

--- Vary: which of several kept responses fits a request (RFC 9111, 4.1).
local headers = require("fpcache.http.headers")

local vary = {}

local MAX_NAMES = 20 -- a longer list is as good as "*"

--- The names that a response varies by, in order, in lower case, each once; "*" when it fits no other request.
---@param fields table<string, table>
---@return string[]|"*"
function vary.names(fields)
  local list, seen = {}, {}
  for _, name in ipairs(headers.members(headers.joined(fields, "vary"))) do
    name = name:lower()
    if name == "*" or name:find("[^%w!#$%%&'*+.^_`|~-]") then return "*" end -- what is no name matches nothing
    if not seen[name] then
      seen[name] = true
      list[#list + 1] = name
    end
  end
  -- Many encode answers and do not say so (nginx, unless told by gzip_vary): clients that cannot read them would get them.
  if fields["content-encoding"] and not seen["accept-encoding"] then list[#list + 1] = "accept-encoding" end
  if #list > MAX_NAMES then return "*" end
  table.sort(list)
  return list
end

--- Both lists in one.
---@param a string[]
---@param b string[]
---@return string[] all
---@return boolean is_more than there was in a
function vary.union(a, b)
  local all, seen = {}, {}
  for _, name in ipairs(a) do
    seen[name] = true
    all[#all + 1] = name
  end
  for _, name in ipairs(b) do
    if not seen[name] then
      seen[name] = true
      all[#all + 1] = name
    end
  end
  table.sort(all)
  return all, #all > #a
end

-- Lists by their definition.  In others, such as Cookie, an origin may tell apart what looks alike as a list.
local LISTS = {
  accept = true, ["accept-charset"] = true, ["accept-encoding"] = true, ["accept-language"] = true, ["cache-control"] = true,
  forwarded = true, ["if-match"] = true, ["if-none-match"] = true, prefer = true, te = true, via = true,
}

--- A field's value without what makes no difference (RFC 9111, 4.1): space at the ends, and around the commas of a list.
local function normal(name, text)
  if not text:find("[%s,]") then return text end
  if not LISTS[name] or text:find('"', 1, true) then return text:match("^%s*(.*%S)") or "" end -- inside quotes space counts
  local members = headers.members(text)
  for i, member in ipairs(members) do members[i] = member:gsub("%s+", " ") end
  return table.concat(members, ",")
end

--- What of a request counts, as text for a key: each name with its value; a field that is not there differs from an empty one.
---@param names string[]
---@param fields table<string, table> of the request
---@return string
function vary.key(names, fields)
  local parts = {}
  for i, name in ipairs(names) do
    local value = headers.joined(fields, name)
    value = value and normal(name, value)
    parts[i] = value and ("%s=%d:%s"):format(name, #value, value) or name
  end
  return table.concat(parts, "\n")
end

--- Accept-Encoding as servers use it: "gzip" when that is accepted, else nothing, so that two kinds of answers are kept and
-- not one for each browser (RFC 9110, 12.5.3).
---@param value string?
---@return string? normal
function vary.encoding(value)
  local quality, any
  for _, member in ipairs(headers.members(value)) do
    local coding, weight = member:match("^([^;%s]+)%s*;%s*[qQ]=([%d.]+)$")
    coding = (coding or member):lower()
    weight = weight and (tonumber(weight) or 0) or 1
    if coding == "gzip" or coding == "x-gzip" then quality = weight end
    if coding == "*" then any = weight end
  end
  if (quality or any or 0) > 0 then return "gzip" end
  return nil
end

return vary

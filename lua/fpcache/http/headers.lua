--- Header fields of a message, as the rules of HTTP caching read them; nothing here knows a server.
--
-- A set of fields is { [name in lower case] = { name = as it came, value, value, ... } }: names have no case, and a field may
-- stand on several lines (RFC 9110, 5.1 to 5.3).
local headers = {}

--- Fields from a table { Name = value or list of values }, as nginx gives them.
---@param given table<string, string|number|string[]>?
---@return table<string, table> fields
function headers.read(given)
  local fields = {}
  for name, value in pairs(given or {}) do
    if type(name) == "string" then
      local lower = name:lower()
      local field = fields[lower] or { name = name }
      if type(value) == "table" then
        for _, one in ipairs(value) do field[#field + 1] = tostring(one) end
      else
        field[#field + 1] = tostring(value)
      end
      if #field > 0 then fields[lower] = field end
    end
  end
  return fields
end

--- The values of a field as one list, in the order of its lines (RFC 9110, 5.2); nil when it is not there.
---@param fields table<string, table>
---@param name string in lower case
---@return string?
function headers.joined(fields, name)
  local field = fields[name]
  return field and table.concat(field, ", ")
end

--- The first line of a field.
---@param fields table<string, table>
---@param name string in lower case
---@return string?
function headers.first(fields, name)
  local field = fields[name]
  return field and field[1]
end

--- The members of a list without quoted strings, such as Connection, Vary or Surrogate-Key.
---@param text string?
---@param separators string? characters that end a member, default the comma
---@return string[]
function headers.members(text, separators)
  local list = {}
  for member in (text or ""):gmatch("[^" .. (separators or ",") .. "]+") do
    list[#list + 1] = member:match("^%s*(.*%S)") -- nil when it is empty; one pass, whatever it holds
  end
  return list
end

-- Of one connection or one hop only (RFC 9110, 7.6.1; RFC 9111, 3.1), or about the body's way here and not the body.
local OF_ONE_HOP = {
  "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authenticate",
  "proxy-authentication-info", "proxy-authorization", "http2-settings",
}

--- What of a response may be kept: not what belongs to one hop, nor what Connection names (RFC 9111, 3.1).
---@param fields table<string, table>
---@param more string[]? further names, in lower case, to leave out
---@return table<string, table> kept a new table that shares the values
function headers.storable(fields, more)
  local kept = {}
  for name, field in pairs(fields) do kept[name] = field end
  for _, name in ipairs(headers.members(headers.joined(fields, "connection"))) do kept[name:lower()] = nil end
  for _, name in ipairs(OF_ONE_HOP) do kept[name] = nil end
  for _, name in ipairs(more or {}) do kept[name] = nil end
  return kept
end

return headers

--- Names in SQL.  The only place where text becomes part of a statement; values never do.
local core = require("fpcache.core")

local sql = {}

--- An identifier quoted for SQL, whatever it holds.
---@param name string
---@return string? quoted, string? err "invalid: ..." when PostgreSQL could not use the name as it is
function sql.quote_identifier(name)
  if name == "" then return nil, "invalid: an SQL name must not be empty" end
  if #name > 63 then
    return nil, ("invalid: an SQL name has at most 63 bytes (PostgreSQL would cut it), got %d"):format(#name)
  end
  if name:find("\0", 1, true) then return nil, "invalid: an SQL name must not hold a NUL byte" end
  if not core.json_encode(name) then return nil, "invalid: an SQL name must be UTF-8" end -- as JSON must
  return '"' .. name:gsub('"', '""') .. '"'
end

--- A text as an SQL literal, whatever it holds and however the server reads backslashes.
---@param text string
---@return string
function sql.quote_literal(text)
  return "E'" .. text:gsub("\\", "\\\\"):gsub("'", "''") .. "'"
end

--- An identifier inside the literal E'...' that is the first argument of SQL's format().
---@param quoted string
---@return string
function sql.format_template(quoted)
  return (quoted:gsub("%%", "%%%%"):gsub("\\", "\\\\"):gsub("'", "''"))
end

--- A dollar quote that does not occur in `text`, for function bodies that hold it.
---@param text string
---@return string
function sql.dollar_quote(text)
  local tag = "$fpcache$"
  while text:find(tag, 1, true) do tag = "$_" .. tag:sub(2) end
  return tag
end

--- Fills `{name}` places of a template; an unknown name is an error.
---@param template string
---@param places table<string, string>
---@return string
function sql.fill(template, places)
  return (template:gsub("{(%w+)}", function(name)
    return places[name] or error("no value for {" .. name .. "} in an SQL template")
  end))
end

--- The places of statements that ask about the slots of the feed: {schema}, and {slots}, a text that their names begin with.
---@param quoted_schema string
---@return table<string, string>
function sql.feed_places(quoted_schema)
  return { schema = quoted_schema, slots = sql.quote_literal(quoted_schema .. ".fpcache_feed_") }
end

return sql

--- Templates of keys and tags: text with `{column}` in it, such as "product:{id}"; `{{` and `}}` are braces.
local core = require("fpcache.core")
local sql = require("fpcache.sql")

local template = {}

--- The parts of a template in order: a string is text, { column = name } a place.
---@param text string
---@return table? parts, string? err
function template.parse(text)
  if text == "" then return nil, "invalid: a template must not be empty" end
  if text:find("\0", 1, true) or not core.json_encode(text) then
    return nil, "invalid: a template must be UTF-8 without NUL"
  end
  local parts, at, literal = {}, 1, ""
  while at <= #text do
    local two, c = text:sub(at, at + 1), text:sub(at, at)
    if two == "{{" or two == "}}" then
      literal, at = literal .. c, at + 2
    elseif c == "{" then
      local close = text:find("}", at, true)
      if not close or close == at + 1 then
        return nil, ("invalid: in the template %q a { has no column and } (write {{ for a brace)"):format(text)
      end
      if literal ~= "" then parts[#parts + 1] = literal end
      parts[#parts + 1], literal, at = { column = text:sub(at + 1, close - 1) }, "", close + 1
    elseif c == "}" then
      return nil, ("invalid: in the template %q a } has no { before it (write }} for a brace)"):format(text)
    else
      literal, at = literal .. c, at + 1
    end
  end
  if literal ~= "" then parts[#parts + 1] = literal end
  return parts
end

--- The SQL of the text that a row makes of it: NULL where a column is.
---@param parts table
---@param row string the row's name in SQL
---@return string? expression, string? err
function template.expression(parts, row)
  local made = {}
  for i, part in ipairs(parts) do
    if type(part) == "string" then
      made[i] = sql.quote_literal(part)
    else
      local column, err = sql.quote_identifier(part.column)
      if not column then return nil, err end
      made[i] = ("(%s.%s)::text"):format(row, column)
    end
  end
  return table.concat(made, " || ")
end

--- What all its texts begin with.
---@return string prefix
function template.prefix(parts)
  return type(parts[1]) == "string" and parts[1] or ""
end

return template

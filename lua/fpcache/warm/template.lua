--- Texts with places, such as "product:{id}" or "{owner.name}/{id}", filled from a record.  {{ and }} are braces.
local core = require("fpcache.core")

local template = {}

--- The field at a path of names; a name may be a number in a list, from 1.
local function field_of(record, names)
  local value = record
  for _, name in ipairs(names) do
    if type(value) ~= "table" then return nil end
    local found = value[name]
    if found == nil and tonumber(name) then found = value[tonumber(name)] end
    value = found
  end
  return value
end

local function text_of(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" or kind == "boolean" then return tostring(value) end
  if kind == "cdata" then return (tostring(value):gsub("U?LL$", "")) end -- an int64_t of LuaJIT
end

--- The parts of a template: texts and { path, names }.
---@return table? parts, string? err
function template.parse(text)
  local parts, from = {}, 1
  while from <= #text do
    local at = text:find("[{}]", from)
    if not at then
      parts[#parts + 1] = text:sub(from)
      break
    end
    if at > from then parts[#parts + 1] = text:sub(from, at - 1) end
    local char = text:sub(at, at)
    if text:sub(at + 1, at + 1) == char then
      parts[#parts + 1] = char
      from = at + 2
    else
      local path = text:match("^{([^{}]+)}", at)
      if not path then
        return nil, ("invalid: the template %s has a %s that stands alone; write %s for one"):format(text, char,
          char .. char)
      end
      local names = {}
      for name in path:gmatch("[^.]+") do names[#names + 1] = name end
      parts[#parts + 1] = { path = path, names = names }
      from = at + #path + 2
    end
  end
  return parts
end

--- A function that fills the template from a record.
---@param text string
---@return (fun(record: any): string?, string?)? fill answers nil, why when a field is missing or no text
---@return string? err
function template.text(text)
  local parts, err = template.parse(text)
  if not parts then return nil, err end
  local made = {}
  return function(record)
    for i = 1, #parts do
      local part = parts[i]
      if type(part) == "table" then
        local value = field_of(record, part.names)
        if value == nil or value == core.null then return nil, "no field " .. part.path end
        local shown = text_of(value)
        if not shown then return nil, ("field %s is a list or an object"):format(part.path) end
        part = shown
      end
      made[i] = part
    end
    return table.concat(made, "", 1, #parts)
  end
end

--- The same for a value: a template that is one place gives the field itself, with its type.
---@param text string? nil: the whole record
---@return (fun(record: any): any, string?)?
---@return string? err
function template.value(text)
  if not text then return function(record) return record end end
  local parts, err = template.parse(text)
  if not parts then return nil, err end
  if #parts == 1 and type(parts[1]) == "table" then
    local part = parts[1]
    return function(record)
      local value = field_of(record, part.names)
      if value == nil then return nil, "no field " .. part.path end
      return value
    end
  end
  return template.text(text)
end

return template

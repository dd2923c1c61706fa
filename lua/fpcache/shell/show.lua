--- Values for people: Lua's notation, tables indented, long ones cut.
local core = require("fpcache.core")

local MAX_ITEMS, MAX_DEPTH, MAX_STRING, WIDTH = 100, 6, 2000, 78
local MAX_ALL = 1000     -- items of all tables in one
local MAX_SORTED = 10000 -- names; sorting more takes long, and shows the same hundred

local show = {}

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\\"] = "\\\\", ['"'] = '\\"' }

local function quote(text)
  local cut = #text > MAX_STRING and ("…  (%d bytes)"):format(#text) or ""
  local shown = text:sub(1, MAX_STRING)
  if cut ~= "" then -- no half of a character
    local last = utf8.offset(shown, -1)
    if last and not utf8.len(shown, last) then shown = shown:sub(1, last - 1) end
  end
  local is_text = utf8.len(shown) ~= nil
  shown = shown:gsub(is_text and '[%c\\"]' or '[%c\\"\128-\255]', function(c)
    return ESCAPES[c] or ("\\x%02x"):format(c:byte())
  end)
  return '"' .. shown .. '"' .. cut
end

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true until
  while]]):gmatch("%a+") do KEYWORDS[word] = true end

local function order(a, b)
  local kind_a, kind_b = math.type(a) and "number" or type(a), math.type(b) and "number" or type(b)
  if kind_a ~= kind_b then return kind_a < kind_b end
  if kind_a == "number" or kind_a == "string" then return a < b end
  return tostring(a) < tostring(b)
end

local render

local function label(key)
  if type(key) == "string" and key:find("^[%a_][%w_]*$") and not KEYWORDS[key] then return key .. " = " end
  return "[" .. render(key, MAX_DEPTH, { left = 0 }) .. "] = "
end

--- The items of a table, those of the list first.
local function items_of(value, depth, seen)
  local items, length, total = {}, #value, 0
  local names = {}
  for key in pairs(value) do
    total = total + 1
    if not (math.type(key) == "integer" and key >= 1 and key <= length) then names[#names + 1] = key end
  end
  for i = 1, math.min(length, MAX_ITEMS) do
    if seen.left == 0 then break end
    seen.left = seen.left - 1
    items[i] = render(value[i], depth + 1, seen)
  end
  if #names <= MAX_SORTED then table.sort(names, order) end
  for i = 1, math.min(#names, MAX_ITEMS - #items) do
    if seen.left == 0 then break end
    seen.left = seen.left - 1
    items[#items + 1] = label(names[i]) .. render(value[names[i]], depth + 1, seen)
  end
  if total > #items then items[#items + 1] = ("… %d more"):format(total - #items) end
  return items
end

local function render_table(value, depth, seen)
  local meta = getmetatable(value)
  if type(meta) == "table" and rawget(meta, "__tostring") then return tostring(value) end
  if seen[value] then return "(this table again)" end
  if depth >= MAX_DEPTH then return next(value) == nil and "{}" or "{ … }" end
  seen[value] = true
  local items = items_of(value, depth, seen)
  seen[value] = nil
  if #items == 0 then return "{}" end
  local line = "{ " .. table.concat(items, ", ") .. " }"
  if #line + 2 * depth <= WIDTH and not line:find("\n", 1, true) then return line end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(items, ",\n" .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

function render(value, depth, seen)
  if value == core.null then return "fpcache.null" end
  if type(value) == "string" then return quote(value) end
  if type(value) == "table" then return render_table(value, depth, seen) end
  return tostring(value)
end

--- One value as text; tables that are short stay on one line.
---@param value any
---@return string
function show.value(value)
  return render(value, 0, { left = MAX_ALL })
end

--- What a call gave: its values, one a line.  A failure, nil and a message, is one line.
---@param count integer
---@param values any[] from 1 to count, holes allowed
---@return string? text nil when there is nothing to show
function show.results(count, values)
  if count == 0 then return nil end
  if count == 2 and values[1] == nil and type(values[2]) == "string" then return "nil, " .. values[2] end
  local lines = {}
  for i = 1, count do
    if not (values[i] == nil and i > 1) then lines[#lines + 1] = show.value(values[i]) end
  end
  return table.concat(lines, "\n")
end

return show

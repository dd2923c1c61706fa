--- Options tables: one description per constructor, read by one function.
--
-- A description is { name = { type = "...", default = ..., check = function(value) -> nil | reason } }, and
-- `expected` where errors shall call the type otherwise.  The type "duration" is seconds, or a text such as "5m", which is
-- read as seconds before it is checked.
-- Unknown names and wrong types are the programmer's errors and raise at the caller's line; the caller's table is
-- read, never written.
local duration = require("fpcache.duration")

local options = {}

--- Distance between two words, for "did you mean": insertions, deletions and replacements (Levenshtein).
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      diagonal, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, diagonal + cost)
    end
  end
  return row[#b]
end

--- " (did you mean x?)", or nothing when no name of `description` is like this one.
---@param name string
---@param description table by name
---@return string
function options.suggestion(name, description)
  local best, best_distance
  for known in pairs(description) do
    local d = distance(name, known)
    if d <= 3 and (best_distance == nil or d < best_distance or (d == best_distance and known < best)) then
      best, best_distance = known, d
    end
  end
  return best and (" (did you mean %s?)"):format(best) or ""
end

local function has_type(value, expected)
  for word in expected:gmatch("%a+") do
    if type(value) == word then return true end
    if word == "integer" and type(value) == "number" and value % 1 == 0 and math.abs(value) < math.huge then
      return true
    end
    if word == "null" and value == nil then return true end
    if word == "duration" and (type(value) == "number" or type(value) == "string") then return true end
  end
  return false
end

--- Reads `given` by `description`.
---@param description table
---@param given table? nil reads as {}
---@param level integer whose line is blamed: 1 is the caller of read
---@param what string? how errors call the table, default "options"
---@return table read a new table with defaults filled in
function options.read(description, given, level, what)
  what = what or "options"
  level = level + 1
  if given == nil then given = {} end
  if type(given) ~= "table" then error(("%s: a table is expected, got %s"):format(what, type(given)), level) end
  local read = {}
  for name in pairs(given) do
    if description[name] == nil then
      local hint = type(name) == "string" and options.suggestion(name, description) or ""
      error(("%s.%s: unknown option%s"):format(what, tostring(name), hint), level)
    end
  end
  for name, about in pairs(description) do
    local value = given[name]
    if value == nil then
      read[name] = about.default
    else
      if not has_type(value, about.type) then
        local expected = about.expected or about.type:gsub("duration", "seconds or duration")
        error(("%s.%s: %s is expected, got %s"):format(what, name, expected, type(value)), level)
      end
      local reason
      if about.type:find("duration", 1, true) then value, reason = duration.seconds(value) end
      if not reason and about.check then reason = about.check(value) end
      if reason then error(("%s.%s: %s"):format(what, name, reason), level) end
      read[name] = value
    end
  end
  return read
end

--- One description of several; what stands in a later one counts.
---@param ... table descriptions
---@return table description a new table
function options.join(...)
  local all = {}
  for _, description in ipairs { ... } do
    for name, about in pairs(description) do all[name] = about end
  end
  return all
end

--- A check for descriptions of one that may raise, as options.read does for a table within a table.
---@param check fun(value: any): string? why the value cannot be used: answered, or raised
---@return fun(value: any): string?
function options.caught(check)
  return function(value)
    local ok, reason = pcall(check, value)
    if ok then return reason end
    return (tostring(reason):gsub("^.-:%d+: ", ""))
  end
end

--- An option that is a table or, shorter, the string that its one necessary field has: `publish = "DIR"`.
---@param name string of the option, for errors
---@param field string
---@param meaning string what `field` is, for errors
---@param description table as for options.read
---@return fun(given: string|table): table read raises where it cannot be used
---@return fun(given: any): string? check why it cannot be used
function options.table_or_string(name, field, meaning, description)
  local function read(given)
    if type(given) == "string" then given = { [field] = given } end
    local o = options.read(description, given, 1, name)
    if not o[field] or o[field] == "" then error(("%s.%s: %s is expected"):format(name, field, meaning), 0) end
    return o
  end
  return read, options.caught(function(given) read(given) end)
end

--- Checks for descriptions: nil, or why the value cannot be used.
function options.positive(value)
  if not (value > 0 and value < math.huge) then return ("must be more than 0, got %s"):format(tostring(value)) end
end

function options.not_negative(value)
  if not (value >= 0 and value < math.huge) then return ("must not be negative, got %s"):format(tostring(value)) end
end

function options.share(value)
  if not (value > 0 and value < 1) then return ("must be between 0 and 1, got %s"):format(tostring(value)) end
end

--- A check that a number is from `low` to `high`; `unit` is for the message.
function options.between(low, high, unit)
  return function(value)
    if value < low then return ("must be at least %d%s, got %s"):format(low, unit, tostring(value)) end
    if value > high then return ("must be at most %d%s, got %s"):format(high, unit, tostring(value)) end
  end
end

return options

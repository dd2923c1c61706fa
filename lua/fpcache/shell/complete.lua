--- Tab: names of globals, fields and methods, and inside a string the keys of the cache that begin so.
local MAX_KEYS = 50

local KEYWORDS = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local",
  "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }

local complete = {}

--- The value of a path such as `cache.pool`, without running anything: no call, no __index function.
local function value_of(path, env)
  local value = env
  for name in path:gmatch("[%w_]+") do
    if type(value) ~= "table" then return nil end
    local found = rawget(value, name)
    local meta = getmetatable(value)
    while found == nil and type(meta) == "table" and type(rawget(meta, "__index")) == "table" do
      local parent = rawget(meta, "__index")
      found, meta = rawget(parent, name), getmetatable(parent)
    end
    value = found
  end
  return value
end

--- Adds the names in a table, and in the tables that it inherits from.
local function add_names(value, prefix, only_functions, into)
  local seen = 0
  while type(value) == "table" and seen < 10 do
    for name, field in pairs(value) do
      if type(name) == "string" and name:find("^[%a_][%w_]*$") and name:sub(1, #prefix) == prefix
        and (prefix ~= "" or name:sub(1, 1) ~= "_") and (not only_functions or type(field) == "function") then
        into[name] = true
      end
    end
    local meta = getmetatable(value)
    value = type(meta) == "table" and rawget(meta, "__index") or nil
    seen = seen + 1
  end
  if type(value) == "userdata" then return end
end

local function sorted(set, head, tail)
  local list = {}
  for name in pairs(set) do list[#list + 1] = head .. name .. tail end
  table.sort(list)
  return list
end

--- Keys of the cache that begin so; those that the quotes could not hold are left out.
local function keys(cache, prefix, quote)
  local found = {}
  local scan = cache:scan({ prefix = prefix, values = false, page = MAX_KEYS })
  if not scan then return found end
  for _ = 1, MAX_KEYS do
    local key = scan:next()
    if not key then break end
    if not key:find('[%c\\"\']') then found[#found + 1] = key .. quote end
  end
  return found
end

--- What may stand at the cursor.
---@param before string the line up to the cursor
---@param env table
---@return integer start where in the line the candidates begin, from 1
---@return string[] candidates
function complete.at(before, env)
  local cache_path, quote, prefix = before:match("([%a_][%w_.]*):[%w_]+%s*%(?%s*{?%s*([\"'])([^\"']*)$")
  if not cache_path then -- a later key of delete_many("a", "b…
    cache_path, quote, prefix = before:match("([%a_][%w_.]*):[%w_]+%s*[%({][^()]*[,{]%s*([\"'])([^\"']*)$")
  end
  if cache_path then
    local cache = value_of(cache_path, env)
    if type(cache) ~= "table" or type(cache.scan) ~= "function" then return #before + 1, {} end
    return #before - #prefix + 1, keys(cache, prefix, quote)
  end
  local path, separator, name = before:match("([%a_][%w_.]*)([.:])([%w_]*)$")
  local set = {}
  if path then
    add_names(value_of(path, env), name, separator == ":", set)
    return #before - #name + 1, sorted(set, "", separator == ":" and "(" or "")
  end
  name = before:match("([%a_][%w_]*)$") or ""
  if name == "" then return #before + 1, {} end
  add_names(env, name, false, set)
  for _, word in ipairs(KEYWORDS) do
    if word:sub(1, #name) == name then set[word] = true end
  end
  return #before - #name + 1, sorted(set, "", "")
end

return complete

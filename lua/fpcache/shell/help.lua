--- What the public functions say of themselves: help(cache.get) shows the comment above the function's source.
local help = {}

---@class fpcache.shell.Doc
---@field module string
---@field line integer where the declaration is
---@field name string as it is declared, such as "Cache:get"
---@field text string[] the comment, without its dashes

--- The documented declarations of one module.
---@param module string
---@param source string
---@param into fpcache.shell.Doc[]
local function read_module(module, source, into)
  local comment, number = {}, 0
  for line in (source .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    local words = line:match("^%-%-%-?%s?(.*)$")
    if words and (#comment > 0 or line:find("^%-%-%-")) then
      comment[#comment + 1] = words
    else
      local name = line:match("^function ([%w_.:]+)") or line:match("^([%w_]+[.:][%w_.]+)%s*=")
      if name and #comment > 0 then
        into[#into + 1] = { module = module, line = number, name = name, text = comment }
      end
      comment = {}
    end
  end
end

local docs

--- Every documented function that is built in.
---@return fpcache.shell.Doc[]
function help.all()
  if docs then return docs end
  docs = {}
  local modules = {}
  for module, source in pairs(require("fpcache.sources")) do
    if module:find("^fpcache") then modules[#modules + 1] = { module, source } end
  end
  table.sort(modules, function(a, b) return a[1] < b[1] end)
  for _, one in ipairs(modules) do read_module(one[1], one[2], docs) end
  return docs
end

--- By the place of its source, else (functions that a function made) by its name in its class.
---@param wanted function
---@param classes table<string, table> the tables to look in, by the name in their declarations
local function find_function(wanted, classes)
  local info = debug.getinfo(wanted, "S")
  local module = info.source:match("^=%[built in%] (.+)$")
  for _, doc in ipairs(help.all()) do
    if doc.module == module and doc.line == info.linedefined then return doc end
  end
  for _, doc in ipairs(help.all()) do
    local class, name = doc.name:match("^([%w_]+)[.:]([%w_]+)$")
    if class and classes[class] and rawget(classes[class], name) == wanted then return doc end
  end
end

local function find_name(wanted)
  local last = wanted:match("([%w_]+)$")
  for _, doc in ipairs(help.all()) do
    if doc.name == wanted then return doc end
  end
  for _, doc in ipairs(help.all()) do
    if last and doc.name:match("([%w_]+)$") == last and not doc.module:find("^fpcache%.cli") then return doc end
  end
end

local function parameter(words)
  local name, type, about = words:match("^@param (%S+)%s+(%S+)%s*(.*)$")
  if name then return ("  %-10s %s%s"):format(name, type, about ~= "" and "   " .. about or "") end
  local rest = words:match("^@return%s+(.*)$")
  if rest then return "  returns    " .. rest end
  return nil
end

--- The text about one documented function.
---@param doc fpcache.shell.Doc
---@return string
local function describe(doc)
  local lines = { doc.name:gsub("^Cache:", "cache:"), "" }
  for _, words in ipairs(doc.text) do
    if not words:find("^@") then
      lines[#lines + 1] = words == "" and "" or words
    else
      lines[#lines + 1] = parameter(words)
    end
  end
  return table.concat(lines, "\n")
end

--- One line for each method of the cache.
local function overview()
  local lines = { "The methods of `cache`; help(cache.get) or help \"get\" tells more of one.", "" }
  local methods = {}
  for _, doc in ipairs(help.all()) do
    local name = doc.name:match("^Cache[.:]([%w_]+)$")
    if name and not name:find("^_") then methods[#methods + 1] = { name, doc.text[1] } end
  end
  table.sort(methods, function(a, b) return a[1] < b[1] end)
  for _, method in ipairs(methods) do
    lines[#lines + 1] = ("  %-16s %s"):format(method[1], (method[2]:match("^(.-[.:;]) ") or method[2]))
  end
  lines[#lines + 1] = "\nAlso: fpcache (the module), cjson, connect{ … } for another server or schema; exit() or Ctrl-D leaves."
  return table.concat(lines, "\n")
end

--- Help on a function, on a name, or on everything.
---@param what function|string|table|nil
---@param classes table<string, table>
---@return string
function help.text(what, classes)
  if what == nil then return overview() end
  local doc
  if type(what) == "function" then doc = find_function(what, classes) end
  if type(what) == "string" then doc = find_name(what) end
  if type(what) == "table" and getmetatable(what) == classes.Cache then return overview() end
  if not doc then return "no help on " .. tostring(what) .. "; help() lists the methods of the cache" end
  return describe(doc)
end

return help

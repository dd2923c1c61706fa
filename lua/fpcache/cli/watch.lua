--- `fpcache admin watch|unwatch|watches`.
local admin = require("fpcache.admin")
local codec = require("fpcache.codec")
local connection_flags = require("fpcache.cli.connection_flags")

local watch = {}

--- Adds the commands to a parser; `command(name, description)` makes one with the usual flags.
function watch.add(command)
  local w = command("watch", "Delete cached keys whenever somebody writes a table, in the same transaction.")
  w:argument("table", "The table, as in SQL, such as shop.products.")
  w:option("--key", "A key to delete, such as product:{id} with the row's columns; may be repeated."):argname("KEY"):count("*")
  w:option("--tag", "A tag to invalidate, such as shop:{shop_id}; may be repeated."):argname("TAG"):count("*")
  w:option("--namespace", "Namespace of the keys.", ""):argname("NAME")
  w:option("--cache-of", "Only of this user; may be repeated (default: of everybody)."):argname("ROLE"):count("*")
  local u = command("unwatch", "End the watches of a table, or one by its number.")
  u:argument("table_or_id", "The table, or a number that `watches` shows.")
  command("watches", "List the watched tables.")
end

local function words_of(entry)
  local words = {}
  for _, key in ipairs(entry.keys) do words[#words + 1] = "--key " .. key end
  for _, tag in ipairs(entry.tags) do words[#words + 1] = "--tag " .. tag end
  if entry.namespace ~= "" then words[#words + 1] = "--namespace " .. entry.namespace end
  for _, user in ipairs(entry.users or {}) do words[#words + 1] = "--cache-of " .. user end
  return ("%d  %s  %s"):format(entry.id, entry.table or "?", table.concat(words, " "))
end

local RUN = {}

function RUN.watch(flags, opts)
  opts.table, opts.namespace = flags.table, flags.namespace
  for name, list in pairs { key = flags.key, tag = flags.tag, cache_of = flags.cache_of } do
    if #list > 0 then opts[name] = list end
  end
  local report, err = connection_flags.call(admin.watch, opts)
  if not report then return nil, err end
  return report, function() print((report.is_new and "Watching: " or "Watched already: ") .. words_of(report)) end
end

function RUN.unwatch(flags, opts)
  opts.id = tonumber(flags.table_or_id)
  if not opts.id then opts.table = flags.table_or_id end
  local removed, err = connection_flags.call(admin.unwatch, opts)
  if not removed then return nil, err end
  return setmetatable(removed, codec.array_mt), function()
    for _, entry in ipairs(removed) do print("No longer watched: " .. words_of(entry)) end
    if #removed == 0 then print("It was not watched.") end
  end
end

function RUN.watches(_, opts)
  local list, err = connection_flags.call(admin.watches, opts)
  if not list then return nil, err end
  return setmetatable(list, codec.array_mt), function()
    for _, entry in ipairs(list) do
      print(words_of(entry) .. (entry.state == "watching" and "" or ("  (%s)"):format(entry.state)))
    end
  end
end

--- Runs one of the commands.
---@return any report nil when it failed
---@return function|string print_or_err
function watch.run(flags, opts)
  return RUN[flags.command](flags, opts)
end

--- Whether a command is one of these.
function watch.has(name) return RUN[name] ~= nil end

return watch

--- `fpcache get|set|del|ttl|keys|count|stats`: the cache from a shell.
local answer = require("fpcache.cli.answer")
local argparse = require("argparse")
local codec = require("fpcache.codec")
local connection_flags = require("fpcache.cli.connection_flags")
local duration = require("fpcache.duration")
local fpcache = require("fpcache")
local system = require("fpcache.core").system
local view = require("fpcache.top.view")

local kv = {}

local function make_parser()
  local parser = argparse("fpcache", "Look into the cache.")
  parser:command_target("command")
  local function command(name, description)
    local c = parser:command(name, description)
    connection_flags.add(c)
    c:option("--namespace", "Namespace within the user's keys.", ""):argname("NAME")
    c:flag("--json", "Print JSON.")
    return c
  end
  command("get", "Print a value; exit code 1 when there is none."):argument("key")
  local set = command("set", "Store a value.")
  set:argument("key")
  set:argument("value", "Text; with --json a JSON value; - reads standard input.")
  set:option("--ttl", "Seconds to live, or 5m, 1h30m … (default: no expiry)."):argname("TIME"):convert(function(text)
    if tonumber(text) then return tonumber(text) end
    return duration.parse(text)
  end)
  command("del", "Delete keys; prints how many there were."):argument("key"):args("+")
  command("ttl", "Seconds to live; -1: no expiry, -2: no such key."):argument("key")
  local keys = command("keys", "Print keys, one a line.")
  keys:argument("prefix", "Only those that begin so."):args("?")
  keys:option("--limit", "At most so many."):argname("N"):convert(tonumber)
  command("count", "Print how many keys there are."):argument("prefix", "Only those that begin so."):args("?")
  command("stats", "Size of the table and state of the connection.")
  return parser
end

--- A value for people: strings as they are, tables as JSON.
local function print_value(value, as_json)
  if as_json then
    local text, err = codec.json.encode(value)
    if not text then return nil, err end
    print(text)
  elseif type(value) == "table" then
    answer.json(value)
  elseif value == fpcache.null then
    print("null")
  else
    io.write(tostring(value), "\n")
  end
  return true
end

local function read_value(flags)
  local text = flags.value == "-" and io.read("a") or flags.value
  if not flags.json then return text end
  return codec.json.decode(text)
end

-- command = function(cache, flags) -> true | nil, err, exit code
local ACTIONS = {
  get = function(cache, flags)
    local value, err = cache:get(flags.key)
    if value == nil then return nil, err or "no such key" end
    return print_value(value, flags.json)
  end,
  set = function(cache, flags)
    local value, err = read_value(flags)
    if value == nil then return nil, err end
    return cache:set(flags.key, value, flags.ttl)
  end,
  del = function(cache, flags)
    local deleted, err = cache:delete_many(flags.key)
    if not deleted then return nil, err end
    print(deleted)
    return true
  end,
  ttl = function(cache, flags)
    local ttl, err = cache:ttl(flags.key)
    if not ttl then return nil, err end
    print(ttl)
    return true
  end,
  keys = function(cache, flags)
    local scan, err = cache:scan({ prefix = flags.prefix, values = false })
    if not scan then return nil, err end
    local found, is_terminal = {}, system.isatty(1) -- which a key of others must not steer
    for _ = 1, flags.limit or math.huge do
      local key
      key, err = scan:next()
      if err then return nil, err end
      if not key then break end
      if flags.json then found[#found + 1] = key else io.write(is_terminal and view.plain(key) or key, "\n") end
    end
    if not flags.json then return true end
    return print_value(setmetatable(found, fpcache.array_mt), true)
  end,
  count = function(cache, flags)
    local count, err = cache:count(flags.prefix)
    if not count then return nil, err end
    print(count)
    return true
  end,
  stats = function(cache, flags)
    local stats, err = cache:stats()
    if not stats then return nil, err end
    if flags.json then return print_value(stats, true) end
    if not stats.server then return nil, stats.server_error end
    print(("rows       %d (the server's estimate, all users)"):format(stats.server.rows))
    print(("bytes      %d"):format(stats.server.bytes))
    print(("unlogged   %s"):format(stats.server.unlogged and "yes" or "no"))
    print(("idle       %d connections of this process"):format(stats.pool.idle))
    return true
  end,
}

---@param words string[] the arguments after the command
---@param context { command: string }
---@return integer exit_code
function kv.run(words, context)
  local flags, code = connection_flags.parse(make_parser(), { context.command, table.unpack(words) })
  if not flags then return code end
  local opts = connection_flags.read(flags)
  opts.namespace = flags.namespace
  opts.feed = false -- one command asks the server once
  local cache, err = connection_flags.call(fpcache.new, opts)
  local ok = false
  if cache then
    ok, err = ACTIONS[flags.command](cache, flags)
    cache:close()
  end
  if ok then return 0 end
  return answer.failed(err)
end

return kv

-- handlers.lua -- what examples/embed/server.c serves: a little cache protocol, one line each.
--
--   set KEY VALUE   get KEY   count KEY   spin (computes for ever, to be stopped)   boom (raises)
local fpcache = require("fpcache")
local cache = assert(fpcache.new { maxconn = 8, feed = true })

local commands = {}

function commands.set(key, value)
  return assert(cache:set(key, value)) and "ok"
end

function commands.get(key)
  local value, err = cache:get(key)
  if err then error(err, 0) end
  return value
end

function commands.count(key)
  return assert(cache:incr(key))
end

function commands.spin()
  while true do pcall(commands.spin) end
end

function commands.boom()
  error("boom")
end

function handle(line) -- luacheck: ignore 111
  local name, key, value = line:match("^(%S+) ?(%S*) ?(.*)$")
  local command = commands[name]
  if not command then return "what is " .. tostring(name) .. "?" end
  return command(key, value)
end

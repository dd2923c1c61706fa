--- One measurement of Redis by lua-redis: side_lua_redis.lua SOCKET get|set COUNT.  Prints operations a second.
--
-- lua-redis and its luasocket are for Lua 5.1: run it on LuaJIT.
local data = require("data")
local redis = require("redis")
local now = require("fpcache.core").system.now

local path, operation, count = arg[1], arg[2], assert(tonumber(arg[3]), "COUNT is missing")
local unix = require("socket.unix")
local socket = type(unix) == "table" and unix.stream() or unix()
assert(socket:connect(path))
local client = redis.connect({ socket = socket })
local VALUE, TTL = data.VALUE, data.TTL

local operations = {
  get = function(key) if not client:get(key) then error("a miss of " .. key) end end,
  set = function(key) assert(client:setex(key, TTL, VALUE)) end,
}

local function run(keys)
  local act = operations[operation]
  for i = 1, #keys do act(keys[i]) end
end

run(data.random_keys(data.WARM_UP, 1))
local keys = data.random_keys(count, 2)
local start = now()
run(keys)
print(("%.3f"):format(count / (now() - start)))

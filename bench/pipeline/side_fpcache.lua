--- One measurement of tasks: side_fpcache.lua URL get|set COUNT DEPTH.  Prints operations a second.
--
-- Runs on Lua 5.4 and on LuaJIT.  DEPTH tasks call get or set, one call after the other.
local data = require("data")
local fpcache = require("fpcache")
local now = require("fpcache.core").system.now

local url, operation = arg[1], arg[2]
local count, depth = assert(tonumber(arg[3]), "COUNT is missing"), assert(tonumber(arg[4]), "DEPTH is missing")
local cache = assert(fpcache.new({
  connection_string = url, namespace = data.NAMESPACE, feed = false,
}))
local VALUE, TTL = data.VALUE, data.TTL

local work = {}

function work.get(key)
  local value, err = cache:get(key)
  if not value then error(err or "a miss of " .. key) end
end

function work.set(key)
  assert(cache:set(key, VALUE, TTL))
end

local function run(keys)
  local at, call = 0, work[operation]
  local function task()
    while at < #keys do
      at = at + 1
      call(keys[at])
    end
  end
  local tasks = {}
  for i = 1, depth do tasks[i] = fpcache.spawn(task) end
  for i = 1, depth do
    local _, err = fpcache.await(tasks[i])
    if err then error(err) end
  end
end

run(data.random_keys(data.WARM_UP, 1))
local keys = data.random_keys(count, 2)
collectgarbage()
local start = now()
run(keys)
print(("%.3f"):format(count / (now() - start)))
cache:close()

--- One measurement of fpcache: side_fpcache.lua URL OPERATION COUNT.  Prints operations (rows, keys) a second.
--
-- Runs on Lua 5.4 and on LuaJIT.  One connection; everything is built before the clock starts.
local data = require("data")
local fpcache = require("fpcache")
local now = require("fpcache.core").system.now

local url, operation, count = arg[1], arg[2], assert(tonumber(arg[3]), "COUNT is missing")
local cache = assert(fpcache.new({
  connection_string = url, namespace = data.NAMESPACE, maxconn = 1, use_cuckoo_filter = false, near_size = 0,
}))
local TTL = data.TTL

local operations = {}

local function get(keys)
  for i = 1, #keys do
    if not cache:get(keys[i]) then error("a miss of " .. keys[i]) end
  end
end

function operations.get()
  get(data.random_keys(data.WARM_UP, 1))
  local keys = data.random_keys(count, 2)
  local start = now()
  get(keys)
  return count / (now() - start)
end

local function set(keys, value)
  for i = 1, #keys do assert(cache:set(keys[i], value, TTL)) end
end

function operations.set()
  set(data.random_keys(data.WARM_UP, 1), data.VALUE)
  local keys = data.random_keys(count, 2)
  local start = now()
  set(keys, data.VALUE)
  return count / (now() - start)
end

--- The keys of a bulk load, each new to the table.
local function fresh_keys()
  local keys = {}
  for i = 1, count do keys[i] = data.scattered_key(i - 1) end
  return keys
end

--- Fresh rows by single sets.
function operations.set_fresh()
  local keys = fresh_keys()
  local start = now()
  set(keys, data.VALUE)
  return count / (now() - start)
end

function operations.set_many()
  local items = {}
  for _, key in ipairs(fresh_keys()) do items[key] = data.VALUE end
  collectgarbage()
  local start = now()
  assert(cache:set_many(items, TTL) == count)
  return count / (now() - start)
end

function operations.get_many()
  local lists = {}
  for i = 1, data.LISTS do lists[i] = data.random_keys(data.LIST, i) end
  for i = 1, data.LISTS do assert(cache:get_many(lists[i])) end
  collectgarbage()
  local start = now()
  for i = 1, count do
    if not next(cache:get_many(lists[i % data.LISTS + 1])) then error("no values") end
  end
  return count * data.LIST / (now() - start)
end

--- Not measured: the rows that the other operations read and overwrite.
function operations.load()
  local items = {}
  for _, key in ipairs(fresh_keys()) do items[key] = data.VALUE end
  assert(cache:set_many(items, TTL) == count)
  return 0
end

print(("%.3f"):format(operations[operation]()))
cache:close()

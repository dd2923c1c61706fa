--- Question: what does an answer without the server cost, against lua-resty-lrucache and a bare Lua table?
--
-- Run by run.sh on Lua 5.4 and on LuaJIT, 20 s each.  Sides alternate; each figure is the median of 15 rounds, in
-- nanoseconds of CPU time; a round trip to the server, for comparison, in nanoseconds of the clock.  Keys are walked through
-- in turn, by a loop of its own for each side, as LuaJIT compiles a loop for the first that runs in it.  It compiles
-- nothing while the near cache is filled: a `get` that was first compiled where it asks the server takes 40 to 50 ns
-- for a near hit (2 of 25 processes).  lua-resty-lrucache asks ngx.now() at each hit; here that is a call by the FFI of
-- the clock that fpcache uses.
local common = require("common")
local fpcache = require("fpcache")
local system = require("fpcache.core").system

local HOST = assert(arg[1])
local ROUNDS, CALLS = 15, 300000
if common.is_quick then ROUNDS, CALLS = 5, 50000 end
local cache = assert(fpcache.new { connection_string = common.url, near_size = 30000, near_ttl = 3600 })

local function lrucache_module()
  if not rawget(_G, "jit") then return nil end
  local ffi = require("ffi")
  ffi.cdef("typedef struct { long s, n; } fpcache_bench_time; int clock_gettime(int, fpcache_bench_time *);")
  local time = ffi.new("fpcache_bench_time")
  rawset(_G, "ngx", { ALERT = 1, log = print, now = function()
    ffi.C.clock_gettime(6, time) -- CLOCK_MONOTONIC_COARSE
    return tonumber(time.s) + tonumber(time.n) * 1e-9
  end })
  package.path = package.path .. ";/usr/share/lua/5.1/?.lua"
  local found, module = pcall(require, "resty.lrucache")
  return found and module or nil
end

local LOOP = [[
local count, call = ...
return function(calls)
  local i = 0
  for _ = 1, calls do
    i = i + 1
    if i > count then i = 1 end
    call(i)
  end
end]]
local sides = {}

local function add(name, count, call)
  sides[#sides + 1] = { name = name, count = count, times = {}, run = assert((loadstring or load)(LOOP))(count, call) }
end

local lrucache = lrucache_module()
for _, count in ipairs { 1000, 10000 } do
  local keys, absent, items = {}, {}, {}
  for i = 1, count do
    keys[i], absent[i] = ("user:%d:%07d"):format(count, i), ("none:%d:%07d"):format(count, i)
    items[keys[i]] = "value" .. i
  end
  assert(cache:set_many(items))
  assert(cache:wait_ready(20))
  if jit then jit.off() end
  for i = 1, count do assert(cache:get(keys[i])) end
  if jit then jit.on() end
  local near = cache.near
  add("near cache alone", count, function(i) near:get("", keys[i]) end)
  add("cache:get, near hit", count, function(i) cache:get(keys[i]) end)
  add("cache:get, filter says absent", count, function(i) cache:get(absent[i]) end)
  add("bare table", count, function(i) if not items[keys[i]] then error("a miss") end end)
  if lrucache then
    local lru = lrucache.new(count)
    for i = 1, count do lru:set(keys[i], items[keys[i]], 3600) end
    add("lua-resty-lrucache", count, function(i) if not lru:get(keys[i]) then error("a miss") end end)
  end
end

for _ = 0, ROUNDS do -- the first warms up
  for _, side in ipairs(sides) do
    local start = os.clock()
    side.run(CALLS)
    side.times[#side.times + 1] = (os.clock() - start) / CALLS * 1e9
  end
end
local results = {}
local function keep(name, count, times)
  table.sort(times)
  local ns = times[(#times + 1) / 2]
  results[#results + 1] = { name = name, keys = count, ns = ns }
  print(("%-6s  %-30s %6d keys %9.1f ns"):format(HOST, name, count, ns))
end
for _, side in ipairs(sides) do
  table.remove(side.times, 1)
  keep(side.name, side.count, side.times)
end
local asking = {}
for round = 1, 5 do
  local start = system.now()
  for i = 1, 500 do assert(cache:get(("user:1000:%07d"):format(i), { near = false })) end
  asking[round] = (system.now() - start) / 500 * 1e9
end
keep("cache:get, asks the server", 500, asking)
local stats = cache:stats()
print(("%-6s  answered by the near cache %d, by the filter %d, by the server %d"):format(HOST, stats.near.hits,
  stats.filter.absent, stats.hits - stats.near.hits))
common.keep("near_hit_" .. HOST, results)
cache:close()

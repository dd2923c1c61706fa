--- Question: what does an answer without the server cost, against lua-resty-lrucache and a bare Lua table?
--
-- Run by run.sh on Lua 5.4 and on LuaJIT, 20 s each.  Sides alternate; each figure is the median of 15 rounds, in
-- nanoseconds of CPU time; a round trip to the server, for comparison, in nanoseconds of the clock.  Keys are walked through
-- in turn, by a loop of its own for each side, as LuaJIT compiles a loop for the first that runs in it.  It compiles
-- nothing while the near cache is filled: a `get` that was first compiled where it asks the server takes 20 to 45 ns
-- for a near hit (see docs/performance.md).  lua-resty-lrucache asks ngx.now() at each hit; here that is a call by the FFI of
-- the clock that fpcache uses, and for another side a call that does nothing: inside nginx it is the time at which the
-- event loop last looked, which costs no more.
local common = require("common")
local fpcache = require("fpcache")
local system = require("fpcache.core").system

local HOST = assert(arg[1])
local ROUNDS, CALLS = 15, 300000
if common.is_quick then ROUNDS, CALLS = 5, 50000 end
local cache = assert(fpcache.new { connection_string = common.url, near_size = 30000, near_ttl = 3600 })

--- lua-resty-lrucache with a clock that is read, and with one that costs a call only.
local function lrucache_modules()
  if not rawget(_G, "jit") then return {} end
  local ffi = require("ffi")
  ffi.cdef [[
    typedef struct { long s, n; } fpcache_bench_time;
    int clock_gettime(int, fpcache_bench_time *);
    double fabs(double);]]
  local time, cdef = ffi.new("fpcache_bench_time"), ffi.cdef
  package.path = package.path .. ";/usr/share/lua/5.1/?.lua"
  local modules = {}
  for name, clock in pairs {
    ["lua-resty-lrucache"] = function()
      ffi.C.clock_gettime(6, time) -- CLOCK_MONOTONIC_COARSE
      return tonumber(time.s) + tonumber(time.n) * 1e-9
    end,
    ["lua-resty-lrucache, nginx's clock"] = function() return ffi.C.fabs(1e9) end,
  } do
    rawset(_G, "ngx", { ALERT = 1, log = print, now = clock })
    local found, module = pcall(require, "resty.lrucache")
    if found then modules[name] = module end
    package.loaded["resty.lrucache"] = nil
    ffi.cdef = function() end -- it has its types from the first time
  end
  ffi.cdef = cdef
  return modules
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
local sides, sets = {}, {}

local function add(name, count, call)
  sides[#sides + 1] = { name = name, count = count, times = {}, run = assert((loadstring or load)(LOOP))(count, call) }
end

local lrucaches = lrucache_modules()
for at, count in ipairs { 1000, 10000 } do
  local keys, absent, items = {}, {}, {}
  for i = 1, count do
    keys[i], absent[i] = ("user:%d:%07d"):format(count, i), ("none:%d:%07d"):format(count, i)
    items[keys[i]] = "value" .. i
  end
  assert(cache:set_many(items))
  sets[at] = { keys = keys, absent = absent, items = items }
end
assert(cache:wait_ready(20)) -- from here on nothing changes: a later write would void copies that share its spot
if jit then jit.off() end
for _, set in ipairs(sets) do
  for _, key in ipairs(set.keys) do assert(cache:get(key)) end
end
if jit then jit.on() end
local misses = cache:stats().near.misses
for _, set in ipairs(sets) do
  local keys, absent, items, near, count = set.keys, set.absent, set.items, cache.near, #set.keys
  add("near cache alone", count, function(i) near:get("", keys[i]) end)
  add("cache:get, near hit", count, function(i) cache:get(keys[i]) end)
  add("cache:get, filter says absent", count, function(i) cache:get(absent[i]) end)
  add("bare table", count, function(i) if not items[keys[i]] then error("a miss") end end)
  for name, lrucache in pairs(lrucaches) do
    local lru = lrucache.new(count)
    for i = 1, count do lru:set(keys[i], items[keys[i]], 2e9) end
    add(name, count, function(i) if not lru:get(keys[i]) then error("a miss") end end)
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
  print(("%-6s  %-34s %6d keys %9.1f ns"):format(HOST, name, count, ns))
end
for _, side in ipairs(sides) do
  table.remove(side.times, 1)
  keep(side.name, side.count, side.times)
end
local stats = cache:stats()
local missed = stats.near.misses - misses - 2 * (ROUNDS + 1) * CALLS -- keys that are absent are looked for there as well
if missed > 0 then print(("%-6s  %d near misses among the hits: the feed was late"):format(HOST, missed)) end
local asking = {}
for round = 1, 5 do
  local start = system.now()
  for i = 1, 500 do assert(cache:get(("user:1000:%07d"):format(i), { near = false })) end
  asking[round] = (system.now() - start) / 500 * 1e9
end
keep("cache:get, asks the server", 500, asking)
stats = cache:stats()
print(("%-6s  answered by the near cache %d, by the filter %d, by the server %d"):format(HOST, stats.near.hits,
  stats.filter.absent, stats.hits - stats.near.hits))
common.keep("near_hit_" .. HOST, results)
cache:close()

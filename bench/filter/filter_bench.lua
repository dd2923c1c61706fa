-- filter_bench.lua -- what does a question to the filter cost in Lua?  Keys are strings of 20 bytes.
--
-- Usage: HOST bench/filter/filter_bench.lua RESULT.json    (called by run.sh in both runtimes; 10 s each)
-- On LuaJIT the C API and the FFI are compared, in turn; the median counts.  Last results: docs/filter.md.
local core = require "fpcache.core"
local methods = {} -- by Lua's C API, before the class replaces some of them in LuaJIT
for name, method in pairs(core.filter_type.__index) do methods[name] = method end
local CuckooFilter = require "fpcache.cuckoo_filter"

local KEYS, ROUNDS = 1000000, 7
local runtime = rawget(_G, "jit") and "LuaJIT" or "Lua 5.4"

local function keys(prefix)
  local list = {}
  for i = 1, KEYS do list[i] = ("%s%016x"):format(prefix, (i * 2654435761) % 2 ^ 32) end
  return list
end

local present, absent = keys("key:"), keys("not:")
local filter = assert(CuckooFilter{ capacity = KEYS, fingerprint_bits = 11 })
local sink = 0

-- Each is one loop of its own, as a program would have it.
local ways = {}

local function way(name, insert, lookup)
  ways[#ways + 1] = { name = name, steps = {
    { "insert", function()
      filter:clear()
      for i = 1, KEYS do insert(filter, present[i]) end
    end },
    { "absent", function()
      for i = 1, KEYS do
        if lookup(filter, absent[i]) then sink = sink + 1 end
      end
    end },
    { "present", function()
      for i = 1, KEYS do
        if not lookup(filter, present[i]) then error("a key is denied") end
      end
    end },
    { "absent, 1,000 keys again and again", function()
      for _ = 1, KEYS / 1000 do
        for i = 1, 1000 do
          if lookup(filter, absent[i]) then sink = sink + 1 end
        end
      end
    end },
  } }
end

way("C API", methods.insert, methods.lookup)
if filter.lookup ~= methods.lookup then way("FFI", filter.insert, filter.lookup) end
ways[#ways + 1] = { name = "batch", steps = {
  { "insert", function()
    filter:clear()
    filter:insert_many(present)
  end },
  { "absent", function() filter:lookup_many(absent) end },
  { "present", function() filter:lookup_many(present) end },
} }
ways[#ways + 1] = { name = "empty loop", steps = {
  { "absent", function()
    for i = 1, KEYS do
      if absent[i] == "x" then sink = sink + 1 end
    end
  end },
} }

local results = {}
for round = 0, ROUNDS do -- round 0 warms up
  for w, one in ipairs(ways) do
    for s, step in ipairs(one.steps) do
      local started = os.clock()
      step[2]()
      local id = w .. "." .. s
      results[id] = results[id] or {}
      if round > 0 then results[id][round] = (os.clock() - started) / KEYS * 1e9 end
    end
  end
end

local json = assert(io.open(assert(arg[1], "usage: filter_bench.lua RESULT.json"), "w"))
local lines = {}
for w, one in ipairs(ways) do
  for s, step in ipairs(one.steps) do
    local times = results[w .. "." .. s]
    table.sort(times)
    local median = times[(ROUNDS + 1) / 2]
    print(("%-8s %-11s %-36s %7.1f ns a key"):format(runtime, one.name, step[1], median))
    lines[#lines + 1] = ('    {"runtime": "%s", "way": "%s", "what": "%s", "ns_per_key": %.1f}'):format(runtime, one.name,
      step[1], median)
  end
end
json:write("[\n", table.concat(lines, ",\n"), "\n]\n")
json:close()
filter:close()

-- overhead.lua -- Question: what does fetch cost over get on a hit, in the near cache and at the server?
--
-- Both in turn in one run; medians of rounds.  Bars: 0.5 us more in the near cache, 5 % at the server.
local fpcache = require("fpcache")
local now = require("fpcache.core").system.now
local rounds = require("rounds")

local quick = os.getenv("BENCH_QUICK") == "1"
local policy = fpcache.policy { ttl = "1h" }
local function load() return "loaded" end

local function seconds(count, call)
  local started = now()
  for _ = 1, count do call() end
  return (now() - started) / count
end

local function compare(what, count, get, fetch)
  for _ = 1, 1000 do get() fetch() end
  local results = rounds.run({
    { name = "get", measure = function() return seconds(count, get) end },
    { name = "fetch", measure = function() return seconds(count, fetch) end },
  }, quick and 5 or 15)
  local a, b = results.get.median * 1e6, results.fetch.median * 1e6
  print(("%-8s get %8.3f us   fetch %8.3f us   + %.3f us   x %.3f"):format(what, a, b, b - a, b / a))
end

local near = assert(fpcache.new { namespace = "bench" })
assert(near:set("k", "value", 3600))
assert(near:wait_ready(20))
local deadline = now() + 10
repeat local _, _, source = near:get("k") until source == "near" or now() > deadline
compare("near", quick and 50000 or 200000, function() return near:get("k") end,
  function() return near:fetch("k", policy, load) end)
near:close()

local far = assert(fpcache.new { namespace = "bench", feed = false })
compare("server", quick and 1000 or 4000, function() return far:get("k") end,
  function() return far:fetch("k", policy, load) end)
far:close()

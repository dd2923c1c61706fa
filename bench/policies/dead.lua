-- dead.lua -- Question: what does fetch cost over the bare loader when the server is dead and the breaker has opened?
--
-- The loader works for 0.5 ms.  Stops the server, so this part is the last.  Bar: 1.1 times.
local fpcache = require("fpcache")
local now = require("fpcache.core").system.now
local rounds = require("rounds")

local quick = os.getenv("BENCH_QUICK") == "1"
local policy = fpcache.policy { ttl = "1h" }
local function load()
  local stop = now() + 0.0005
  repeat until now() >= stop
  return 1
end

local cache = assert(fpcache.new { namespace = "dead", breaker_pause = "1h", timeout = "1s", connect_timeout = "1s" })
assert(cache:fetch("k", policy, load) == 1)
assert(os.execute(("'%s/fpcache' local stop --dir '%s/server' >/dev/null 2>&1"):format(os.getenv("BENCH_BUILD"),
  os.getenv("BENCH_TMP"))))
local opening = now()
for i = 1, 3 do assert(cache:fetch("k" .. i, policy, load) == 1) end
opening = now() - opening
assert(cache:stats().policies.breaker == "open")
local count = quick and 50 or 200
local function timed(call)
  return function()
    local started = now()
    for i = 1, count do call(i) end
    return (now() - started) / count * 1e6
  end
end
local results = rounds.run({
  { name = "loader", measure = timed(load) },
  { name = "fetch", measure = timed(function(i) return cache:fetch("other" .. i, policy, load) end) },
}, quick and 5 or 21)
local most = timed(function(i) return cache:fetch("other" .. i, policy, tostring) end)
local at_least = math.huge
for _ = 1, 100 do at_least = math.min(at_least, most()) end
local bare, fetched = results.loader.median, results.fetch.median
print(("three calls until the breaker opened: %.1f ms"):format(opening * 1e3))
print(("bare loader %.1f us   fetch %.1f us   x %.3f  (bar x 1.1)"):format(bare, fetched, fetched / bare))
print(("of that fetch itself, with a loader that does nothing: %.1f us"):format(at_least))
cache:close()

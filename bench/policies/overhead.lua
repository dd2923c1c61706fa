-- overhead.lua -- Question: what does fetch cost over get on a hit, in the near cache and at the server?  And what does get cost
-- where namespaces may be cleared at once?
--
-- Both in turn in one run; medians of rounds.  Bars: 0.5 us more in the near cache, 5 % at the server.  At the server also the
-- processor time of both processes, which depends less on what else the machine does.
local fpcache = require("fpcache")
local now = require("fpcache.core").system.now
local rounds = require("rounds")

local quick = os.getenv("BENCH_QUICK") == "1"
local policy = fpcache.policy { ttl = "1h" }
local function load() return "loaded" end

--- Nanoseconds on a processor that a process had; nil where /proc does not say so.
local function busy(pid)
  local file = io.open(("/proc/%s/schedstat"):format(pid))
  local number = file and file:read("n")
  if file then file:close() end
  return number
end

--- A side is { name, call, pid = of the server's process that answers it }.
local function compare(what, bar, count, a, b)
  for _ = 1, 1000 do a.call() b.call() end
  local worked = { {}, {} }
  local function side(number, one)
    return { name = one.name, measure = function()
      local before = one.pid and (busy("self") or 0) + (busy(one.pid) or 0)
      local started = now()
      for _ = 1, count do one.call() end
      local took = now() - started
      if one.pid then
        table.insert(worked[number], ((busy("self") or 0) + (busy(one.pid) or 0) - before) / count / 1e3)
      end
      return took / count * 1e6
    end }
  end
  local results = rounds.run({ side(1, a), side(2, b) }, quick and 9 or 41)
  local first, second = results[a.name].median, results[b.name].median
  print(("%-8s %s %7.3f us  %s %7.3f us  + %.3f us  x %.3f  (%s)"):format(what, a.name, first, b.name, second, second - first,
    second / first, bar))
  if a.pid and rounds.median(worked[1]) > 0 then
    first, second = rounds.median(worked[1]), rounds.median(worked[2])
    print(("%-8s processor time %.2f us and %.2f us  x %.3f"):format("", first, second, second / first))
  end
end

local near = assert(fpcache.new { namespace = "bench" })
assert(near:set("k", "value", 3600))
assert(near:wait_ready(20))
local deadline = now() + 10
repeat local _, _, source = near:get("k") until source == "near" or now() > deadline
compare("near", "bar + 0.5 us", quick and 20000 or 100000, { name = "get", call = function() return near:get("k") end },
  { name = "fetch", call = function() return near:fetch("k", policy, load) end })
near:close()

local far = assert(fpcache.new { namespace = "bench", feed = false, maxconn = 1 })
local versioned = assert(fpcache.new { namespace = "bench", feed = false, namespace_version = true, maxconn = 1 })
local function pid_of(cache)
  return assert(cache:transaction(function(tx) return tx:query("SELECT pg_backend_pid() AS pid") end))[1].pid
end
local calls = quick and 500 or 1000
local function get(cache, name)
  return { name = name or "get", call = function() return cache:get("k") end, pid = pid_of(cache) }
end
local function fetched(by)
  return { name = "fetch", call = function() return far:fetch("k", by, load) end, pid = pid_of(far) }
end
compare("server", "bar x 1.05", calls, get(far), fetched(policy))
compare("tagged", "no bar", calls, get(far), fetched(fpcache.policy { ttl = "1h", tags = { "a", "b" } }))
compare("early", "no bar", calls, get(far), fetched(fpcache.policy { ttl = "1h", refresh_ahead = 0.8, beta = 1 }))
compare("clear{}", "no bar", calls, get(far), get(versioned, "with namespace_version"))
far:close()
versioned:close()

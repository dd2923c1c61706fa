--- Drives the bench: lets the locations take turns under wrk, prints the tables and the gates, writes the JSON.  Run by run.sh.
local codec = require("fpcache.codec")
local core = require("fpcache.core")
local rounds = require("rounds")

local function environment(name)
  return os.getenv(name) or error(name .. " is not set: use run.sh")
end

local PORT, TMP = environment("BENCH_NGINX_PORT"), environment("BENCH_TMP")
local IS_QUICK = os.getenv("BENCH_QUICK") == "1"
local ROUNDS, SECONDS = IS_QUICK and 3 or 5, IS_QUICK and 1 or 2
local SIDES = { "empty", "near", "shared", "absent", "get", "libpq", "redis", "set", "redis-set" }
local SAYS = {
  empty = "empty location", near = "near cache", shared = "shared by the workers", absent = "absent by the filter",
  get = "get, server", libpq = "get, blocking libpq", redis = "GET, Redis by cosocket", set = "set, server",
  ["redis-set"] = "SET, Redis by cosocket",
}

local function output_of(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read("a")
  pipe:close()
  return text
end

local function wrk(path, connections, seconds)
  return output_of(("wrk -t1 -c%d -d%ds --timeout 30s --latency http://127.0.0.1:%s/%s"):format(
    connections, seconds, PORT, path))
end

--- The body of an answer: wrk prints none, so a script of its own does.
local function body(path)
  local name = TMP .. "/body.lua"
  local file = assert(io.open(name, "w"))
  file:write("response = function(_, _, body) print('body: ' .. body) wrk.thread:stop() end")
  file:close()
  return output_of(("wrk -t1 -c1 -d60s --timeout 60s -s %s http://127.0.0.1:%s/%s"):format(name, PORT, path)):match("body: (%S+)")
end

--- Nanoseconds that a thread, or all of a process, has run.
local function ran(pid, thread)
  local total = 0
  local tasks = thread and { thread } or core.system.readdir(("/proc/%s/task"):format(pid))
  for _, task in ipairs(tasks) do
    local file = io.open(("/proc/%s/task/%s/schedstat"):format(pid, task))
    if file then
      total = total + (tonumber(file:read("a"):match("^%d+")) or 0)
      file:close()
    end
  end
  return total
end

local UNITS = { us = 1, ms = 1000, s = 1000000 }

local function microseconds(text)
  local number, unit = text:match("^([%d.]+)(%a+)$")
  return tonumber(number) * UNITS[unit]
end

local worker

--- One run: rate, p50 and p99 (us), processor time of the worker's event loop and of all its threads (us a request).
local function measure(path, connections)
  local loop, all = ran(worker, worker), ran(worker)
  local text = wrk(path, connections, SECONDS)
  local requests = tonumber(text:match("(%d+) requests in"))
  if not requests or text:find("Non%-2xx") or text:find("Socket errors") then error(("%s: %s"):format(path, text), 0) end
  return {
    rate = tonumber(text:match("Requests/sec:%s+([%d.]+)")),
    p50 = microseconds(text:match("\n%s+50%%%s+(%S+)")), p99 = microseconds(text:match("\n%s+99%%%s+(%S+)")),
    loop = (ran(worker, worker) - loop) / requests / 1000, all = (ran(worker) - all) / requests / 1000,
  }
end

local function median_of(runs, field)
  local list = {}
  for i, run in ipairs(runs) do list[i] = run[field] end
  return rounds.median(list)
end

local function round_of(connections)
  local runs = {}
  for _, side in ipairs(SIDES) do runs[side] = {} end
  for round = 1, ROUNDS do
    for i = 1, #SIDES do
      local side = SIDES[(round + i - 2) % #SIDES + 1]
      table.insert(runs[side], measure(side, connections))
    end
  end
  local results = {}
  for side, list in pairs(runs) do
    results[side] = {}
    for _, field in ipairs { "rate", "p50", "p99", "loop", "all" } do results[side][field] = median_of(list, field) end
  end
  return results
end

local function print_table(connections, results)
  print(("\n%d connections, medians of %d runs of %d s, taking turns"):format(connections, ROUNDS, SECONDS))
  print(("  %-24s %10s %9s %9s %12s %12s"):format("", "requests/s", "p50 us", "p99 us", "loop us/req", "all us/req"))
  for _, side in ipairs(SIDES) do
    local r = results[side]
    print(("  %-24s %10.0f %9.0f %9.0f %12.1f %12.1f"):format(SAYS[side], r.rate, r.p50, r.p99, r.loop, r.all))
  end
end

-- What is asked: words, value, must, aim; `most`: not more than.
local function gates(at)
  return {
    { "near cache / empty location, 64", at[64].near.rate / at[64].empty.rate, 0.90, 0.90 },
    { "get / Redis, 64", at[64].get.rate / at[64].redis.rate, 0.75, 0.95 },
    { "get / Redis, 8", at[8].get.rate / at[8].redis.rate, 0.50, 0.65 },
    { "get / Redis, 1: p50", at[1].get.p50 / at[1].redis.p50, 1.4, 1.2, most = true },
    { "get / Redis, 64: p99", at[64].get.p99 / at[64].redis.p99, 1.3, 1.0, most = true },
    { "set / Redis, 64", at[64].set.rate / at[64]["redis-set"].rate, 0.50, 0.75 },
    { "set / Redis, 1: p50", at[1].set.p50 / at[1]["redis-set"].p50, 1.8, 1.5, most = true },
    { "get / blocking libpq, 64", at[64].get.rate / at[64].libpq.rate, 4, 5 },
    { "get / Redis, 64: the loop's processor time", at[64].get.loop / at[64].redis.loop, 0.9, 0.7, most = true },
  }
end

local function verdict(gate)
  local value, must, aim = gate[2], gate[3], gate[4]
  if gate.most then value, must, aim = -value, -must, -aim end
  return value >= aim and "aim" or value >= must and "must" or "MISSED"
end

local function main()
  for _ = 1, 200 do
    worker = body("worker")
    if worker then break end
    core.system.sleep(0.05)
  end
  if not worker then error("nginx does not answer", 0) end
  if body("ready") ~= "ready" then error("the layers do not get ready", 0) end
  for _, side in ipairs(SIDES) do wrk(side, 8, 1) end -- warm
  local at = {}
  for _, connections in ipairs { 1, 8, 64 } do
    at[connections] = round_of(connections)
    print_table(connections, at[connections])
  end
  print("\ngates")
  local missed, report = 0, { rounds = ROUNDS, seconds = SECONDS, gates = {} }
  for _, gate in ipairs(gates(at)) do
    local words = verdict(gate)
    if words == "MISSED" then missed = missed + 1 end
    print(("  %-44s %6.2f   must %s %.2f   aim %.2f   %s"):format(gate[1], gate[2], gate.most and "<=" or ">=", gate[3],
      gate[4], words))
    report.gates[#report.gates + 1] = { name = gate[1], value = gate[2], must = gate[3], aim = gate[4], verdict = words }
  end
  print(("\n%d gates missed"):format(missed))
  report.at_1, report.at_8, report.at_64, report.missed = at[1], at[8], at[64], missed
  local file = assert(io.open(environment("BENCH_JSON"), "w"))
  file:write(assert(codec.json.encode(report)), "\n")
  file:close()
end

main()

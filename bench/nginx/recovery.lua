--- How soon is it over: reloads of nginx, restarts of PostgreSQL.  Four clients ask all the time.  Run by run.sh.
local codec = require("fpcache.codec")
local core = require("fpcache.core")

local system = core.system

local function environment(name)
  return os.getenv(name) or error(name .. " is not set: use run.sh")
end

local PORT, TMP, BUILD = environment("BENCH_NGINX_PORT"), environment("BENCH_TMP"), environment("BENCH_BUILD")
local ROUNDS = os.getenv("BENCH_QUICK") == "1" and 2 or 5
local CLIENTS, DOWN = 4, 1 -- seconds that the server is away

local function run(...)
  local result = assert(core.run { argv = { ... }, timeout = 60 })
  return result.status == 0, result.output
end

local function until_true(what, check)
  local deadline = system.now() + 30
  repeat
    local value = check()
    if value then return value end
    system.sleep(0.002)
  until system.now() > deadline
  error(what .. ": not within 30 s", 0)
end

--- Has clients ask while `act` runs, and one second longer; what they got, in the order of their ends.
local function watched(act)
  for i = 1, CLIENTS do os.remove(TMP .. "/watch." .. i) end
  local name = TMP .. "/watching"
  local wrk = assert(core.spawn {
    argv = { "wrk", "-t" .. CLIENTS, "-c" .. CLIENTS, "-d8s", "--timeout", "8s", "-s",
      environment("BENCH_HERE") .. "/watch.lua", ("http://127.0.0.1:%s/get"):format(PORT) },
    log = name,
  })
  until_true("wrk", function() return system.stat(TMP .. "/watch." .. CLIENTS) end)
  system.sleep(0.5)
  local told = act()
  until_true("wrk's end", function() return not system.kill(wrk, 0) end)
  local asked = {}
  for i = 1, CLIENTS do
    for line in io.lines(TMP .. "/watch." .. i) do
      local began, ended, status = line:match("^(%S+) (%S+) (%d+)$")
      asked[#asked + 1] = { began = tonumber(began), ended = tonumber(ended), status = tonumber(status) }
    end
  end
  table.sort(asked, function(a, b) return a.ended < b.ended end)
  local file = assert(io.open(name))
  local text = file:read("a")
  file:close()
  return told, asked, text
end

local function milliseconds(seconds) return seconds * 1000 end

--- Reloads: how long the old worker takes to end, what failed, and the slowest answer.
local function reload()
  local file = assert(io.open(TMP .. "/nginx.pid"))
  local master = file:read("n")
  file:close()
  local function workers()
    local children = assert(io.open(("/proc/%d/task/%d/children"):format(master, master)))
    local list = {}
    for pid in children:read("a"):gmatch("%d+") do list[tonumber(pid)] = true end
    children:close()
    return list
  end
  local took, asked, text = watched(function()
    local old, began = workers(), system.now()
    assert(system.kill(master, 1))
    until_true("the old worker's end", function()
      for pid in pairs(workers()) do
        if old[pid] then return false end
      end
      return true
    end)
    return system.now() - began
  end)
  local failed, slowest = tonumber(text:match("connect (%d+)") or 0) + tonumber(text:match("timeout (%d+)") or 0), 0
  for _, one in ipairs(asked) do
    if one.status ~= 200 then failed = failed + 1 end
    slowest = math.max(slowest, one.ended - one.began)
  end
  return { gone = milliseconds(took), failed = failed, requests = #asked, slowest = milliseconds(slowest) }
end

--- Restarts the server: how long errors take, and how long after it accepts connections the last one ends.
local function restart()
  local at, asked = watched(function()
    local dir, stopped = TMP .. "/server", system.now()
    assert(run(BUILD .. "/fpcache", "local", "stop", "--dir", dir))
    local down = system.now()
    system.sleep(DOWN)
    local starting = assert(core.spawn { argv = { BUILD .. "/fpcache", "local", "start", "--dir", dir },
      log = TMP .. "/restart.log" })
    local accepts = until_true("the server", function()
      local began = system.now()
      return run(environment("BENCH_BINDIR") .. "/pg_isready", "-q", "-d", environment("BENCH_URL")) and began
    end)
    until_true("the start's end", function() return not system.kill(starting, 0) end)
    return { stopped = stopped, down = down, accepts = accepts }
  end)
  local errors, slowest_error, slowest_down, last = 0, 0, 0, at.accepts
  for _, one in ipairs(asked) do
    local took = one.ended - one.began
    if one.status ~= 200 then
      errors, slowest_error, last = errors + 1, math.max(slowest_error, took), math.max(last, one.ended)
      if one.began > at.down and one.ended < at.accepts then slowest_down = math.max(slowest_down, took) end
    end
  end
  local answered = 0
  for _, one in ipairs(asked) do
    if one.began > last and one.status == 200 then answered = answered + 1 end
  end
  if errors == 0 or answered == 0 then error(("%d errors, then %d answers"):format(errors, answered), 0) end
  return { errors = errors, slowest_error = milliseconds(slowest_error), slowest_while_down = milliseconds(slowest_down),
    recovery = milliseconds(last - at.accepts), answered = answered }
end

local function worst(runs, field)
  local value = 0
  for _, one in ipairs(runs) do value = math.max(value, one[field]) end
  return value
end

local function main()
  until_true("nginx", function() return run("curl", "-sf", ("http://127.0.0.1:%s/get"):format(PORT)) end)
  local reloads, restarts = {}, {}
  for i = 1, ROUNDS do
    reloads[i] = reload()
    restarts[i] = restart()
  end
  local gates = {
    { "reload: answers other than 200, connections refused", worst(reloads, "failed"), 0 },
    { "reload: the old worker is gone, ms", worst(reloads, "gone"), 1000 },
    { "restart: the slowest error, ms", worst(restarts, "slowest_error"), 50 },
    { "restart: the last error after the server accepts, ms", worst(restarts, "recovery"), 500 },
  }
  print(("\n%d reloads and restarts, %d clients that ask every 2 ms; the worst of all"):format(ROUNDS, CLIENTS))
  for _, gate in ipairs(gates) do
    print(("  %-56s %8.1f   must <= %d   %s"):format(gate[1], gate[2], gate[3], gate[2] <= gate[3] and "must" or "MISSED"))
  end
  print(("  %-56s %8.1f"):format("reload: the slowest answer, ms", worst(reloads, "slowest")))
  print(("  %-56s %8d"):format("reload: requests in one run, at most", worst(reloads, "requests")))
  local file = assert(io.open(TMP .. "/recovery.json", "w"))
  file:write(assert(codec.json.encode { reloads = reloads, restarts = restarts }), "\n")
  file:close()
  assert(os.rename(TMP .. "/recovery.json", (environment("BENCH_JSON"):gsub("%.json$", "_recovery.json"))))
end

main()

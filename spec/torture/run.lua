-- run.lua -- the torture: workers on one server that is killed, restarted and cut meanwhile; then the checker.
local admin = require "fpcache.admin"
local checker = require "torture.checker"
local core = require "fpcache.core"
local server = require "support.server"

local system = core.system
local now = system.now

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- Starts a worker, which says when it is ready; reading from its pipe to the end waits for it.
local function start_worker(dir, here, name, url, seconds, staleness, seed)
  local log = ("%s/%s.log"):format(dir, name)
  local words = { system.exe(), here .. "/worker.lua", url, log, tostring(seed), name, tostring(seconds), tostring(staleness) }
  for i, word in ipairs(words) do words[i] = quoted(word) end
  local pipe = assert(io.popen("echo $$; exec " .. table.concat(words, " ") .. " 2>&1"))
  return { name = name, log = log, pipe = pipe, pid = assert(tonumber(pipe:read("l") or pipe:read("*l"))) }
end

--- Kills a process of the server, which empties all memory and unlogged tables and goes on: nothing but the incarnation says so.
local function reset(srv)
  local function ask() return srv:sql("SELECT incarnation FROM fpcache_state") end
  local before, deadline = ask(), now() + 20
  system.kill(tonumber(srv:sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'")), 9)
  repeat
    assert(now() < deadline, "the server does not come back after one of its processes was killed")
    system.sleep(0.02)
    local answered, incarnation = pcall(ask)
  until answered and incarnation ~= before
end

--- Not for long in the way of others: a worker who asks beside his open transaction would wait for this, and this for him.
local function truncate(srv)
  local deadline, patience_ms = now() + 20, 50
  while not pcall(srv.sql, srv, ("SET lock_timeout = %d; TRUNCATE cache"):format(patience_ms)) do
    assert(now() < deadline, "the cache cannot be truncated")
    patience_ms = patience_ms * 2
  end
end

-- What happens to the server and the workers meanwhile: name = what(srv, workers, events), whether it wipes the table.
local TROUBLES = {
  crash = { function(srv) srv:restart("crash") end, true },
  immediate = { function(srv) srv:restart("immediate") end, true },
  restart = { function(srv) srv:restart("fast") end, false },
  reset = { reset, true },
  away = { function(srv)
    srv:stop()
    system.sleep(1.5)
    srv:start()
  end, false },
  truncate = { truncate, true },
  cut = { function(srv)
    srv:sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
      .. "AND application_name LIKE 'fpcache%'")
  end, false },
  -- A reader that hears nothing while its process goes on.
  deaf = { function(srv)
    local pids = {}
    for pid in srv:sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'fpcache feed'"):gmatch("%d+") do
      pids[#pids + 1] = tonumber(pid)
    end
    local pid = pids[math.random(math.max(#pids, 1))]
    if not pid then return end -- all are about to connect
    system.kill(pid, 19)
    system.sleep(2.5)
    system.kill(pid, 18)
  end, false },
  -- What no reader has read yet is taken from the feed, as by a rotation that none of them kept up with.
  overrun = { function(srv, _, events)
    local start, first = now(), #events + 1
    srv:sql(([[
      BEGIN; LOCK TABLE fpcache_feed IN ACCESS EXCLUSIVE MODE;
      SELECT count(cache_set(session_user::text, 'some' || i, 'overrun.%d.' || i, NULL)) FROM generate_series(1, 75) i;
      DO $$ BEGIN
        EXECUTE (SELECT 'TRUNCATE ' || string_agg(oid::regclass::text, ', ')
          FROM pg_class WHERE relname LIKE 'fpcache\_feed\__' AND relkind = 'r');
      END $$;
      UPDATE fpcache_state SET marker = txid_current(); COMMIT]]):format(first))
    for i = 1, 75 do
      events[#events + 1] = { what = "set", key = "some" .. i, value = ("overrun.%d.%d"):format(first, i), who = "overrun",
        start = start, stop = now(), outcome = "ok" }
    end
  end, false },
  pause = { function(_, workers)
    local worker = workers[math.random(#workers)]
    system.kill(worker.pid, 19) -- SIGSTOP
    system.sleep(1.3)
    system.kill(worker.pid, 18)
  end, false },
}
-- In this order, so that what one of them makes doubtful is not cleared up by the next before it would show.
local NAMES = { "truncate", "deaf", "overrun", "cut", "crash", "reset", "pause", "immediate", "cut", "away", "restart" }

local function make_trouble(srv, workers, until_time, every, events, happened)
  local turn = 0
  while now() + every < until_time do
    system.sleep(every)
    turn = turn + 1
    local name = NAMES[(turn - 1) % #NAMES + 1]
    local start = now()
    TROUBLES[name][1](srv, workers, events)
    if TROUBLES[name][2] then events[#events + 1] = { what = "clear", start = start, stop = now(), outcome = "ok" } end
    happened[name] = (happened[name] or 0) + 1
  end
end

--- Runs it.
---@param opts table { seconds, workers = 4, every = seconds between two troubles, max_staleness, seed }
---@return table report of checker.check(), with layers and troubles
return function(opts)
  local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$")
  local srv = server.new { deadlock_timeout = "20ms" } -- transactions change keys in any order, and all would wait for them
  assert(admin.setup { connection_string = srv.url, grant = "public" })
  local dir = assert(system.mkdtemp("/tmp/fpcache-torture-"))
  math.randomseed(opts.seed)
  local workers, events, happened = {}, {}, {}
  for i = 1, opts.workers or 4 do
    workers[i] = start_worker(dir, here, "w" .. i, srv.url, opts.seconds, opts.max_staleness, opts.seed * 100 + i)
  end
  for _, worker in ipairs(workers) do
    local line = worker.pipe:read("*l")
    if line ~= "ready" then
      error(("worker %s did not begin: %s\n%s"):format(worker.name, line or "", worker.pipe:read("*a")))
    end
  end
  make_trouble(srv, workers, now() + opts.seconds, opts.every or 1.5, events, happened)
  local layers = { near = 0, filter = 0, incarnation_changes = 0, invalidated = 0 }
  for _, worker in ipairs(workers) do
    local output = worker.pipe:read("*a")
    worker.pipe:close()
    local counts = checker.read_log(worker.log, worker.name, events)
    if not counts then error(("worker %s did not end well: %s"):format(worker.name, output)) end
    for name, count in pairs(counts) do layers[name] = layers[name] + count end
  end
  local report = checker.check(events, opts.max_staleness)
  report.layers, report.troubles = layers, happened
  assert(system.remove_tree(dir))
  srv:destroy()
  return report
end

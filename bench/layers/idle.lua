--- Question: what processor time does a client take that does nothing, and the server for it?
--
-- The client's by the process's own clock, all threads; the server's by the scheduler's count for the backends of app.
local common = require("common")
local fpcache = require("fpcache")
local system = require("fpcache.core").system

local SECONDS = common.is_quick and 3 or 10
local BAR = 0.2 -- per cent of one processor

local _, conn = common.superuser()

local function server_seconds()
  local rows = assert(conn:query("SELECT pid::bigint AS pid FROM pg_stat_activity WHERE usename = 'app'", 5))
  local sum = 0
  for _, row in ipairs(rows) do
    sum = sum + tonumber(common.read_file(("/proc/%d/schedstat"):format(row.pid)):match("^%d+")) / 1e9
  end
  return sum, #rows
end

local cache = assert(fpcache.new { connection_string = common.url })
assert(cache:wait_ready(60))
system.sleep(3) -- the reader slows down
local polls = cache:stats().feed.polls
local server, sessions = server_seconds()
local clock, start = os.clock(), system.now()
system.sleep(SECONDS)
local client, wall = os.clock() - clock, system.now() - start
local server_after, sessions_after = server_seconds()
assert(sessions == sessions_after, "sessions came or went: the server's time is not known")
local stats = cache:stats()
assert(stats.feed.state == "fresh", "the feed is not fresh")
local result = {
  seconds = wall, client_percent = client / wall * 100, server_percent = (server_after - server) / wall * 100,
  polls_per_second = (stats.feed.polls - polls) / wall, bar_percent = BAR,
}
result.reached = result.client_percent <= BAR
common.keep("idle", result)
print(("client %.3f %% of a processor (bar %.1f: %s), server for it %.3f %%, %.1f polls/s, over %.0f s"):format(
  result.client_percent, BAR, result.reached and "reached" or "MISSED", result.server_percent, result.polls_per_second, wall))
cache:close()

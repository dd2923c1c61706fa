-- sweep.lua -- Question: how fast are sweeps and evictions, and what do they do to reads meanwhile?
--
-- A table of living and expired entries; another process reads living ones one by one all the time.  In turn: nothing else is
-- done; a sweep with the usual duty; one without rests; an eviction of a quarter.  The rates are entries in a second of the
-- whole pass, its rests and its walk over what stays included.
local admin = require("fpcache.admin")
local connection = require("fpcache.connection")
local core = require("fpcache.core")
local fpcache = require("fpcache")
local options = require("fpcache.options")
local median = require("rounds").median

local quick = os.getenv("BENCH_QUICK") == "1"
local LIVE, EXPIRED, ROUNDS = quick and 40000 or 200000, quick and 40000 or 200000, quick and 1 or 5
local now = core.system.now

local pool = assert(connection.open(options.read(connection.OPTIONS, { bulk_timeout = 600 }, 1), 1))
local superuser = assert(pool:acquire(5))
local function sql(text) assert(superuser:script(text, 600)) end

local function fill(name, count, life)
  sql(([[INSERT INTO cache (key, value, format, version, expires_at)
    SELECT convert_to('%s:' || i, 'UTF8'), decode(repeat(md5(i::text), 6), 'hex'), 's',
           (extract(epoch FROM now()) * 1000000)::bigint - 1000000::bigint * %d + i, now() + interval '%s'
    FROM generate_series(1, %d) AS i ON CONFLICT DO NOTHING]]):format(name, name == "live" and 0 or 3600, life, count))
end

local function pass(duty)
  local sweeper = assert(fpcache.sweeper { every = 0.001, duty = duty })
  local began = now()
  local report = assert(sweeper:pass())
  local seconds = now() - began
  sweeper:close()
  return report, seconds
end

local function quota(max_entries)
  assert(admin.quota { max_entries = max_entries })
end

--- Runs `work` while another process reads; answers what that one says and what work does.
local function beside(work)
  local path = os.tmpname()
  os.remove(path)
  local reader = assert(io.popen(("'%s/fpcache' '%s/reader.lua' '%s' %d"):format(os.getenv("BENCH_BUILD"),
    os.getenv("BENCH_HERE"), path, LIVE)))
  core.system.sleep(0.3)
  local result = work()
  io.open(path, "w"):close()
  local reads, middle, late = reader:read("a"):match("(%S+) (%S+) (%S+)")
  reader:close()
  os.remove(path)
  return { reads = tonumber(reads), middle = tonumber(middle), late = tonumber(late), rate = result }
end

local SIDES = {
  { name = "nothing else", work = function() core.system.sleep(quick and 1 or 2) end },
  { name = "sweep", prepare = function() fill("old", EXPIRED, "-1 hour") end, work = function()
    local report, seconds = pass(0.25)
    assert(report.expired == EXPIRED)
    return report.expired / seconds
  end },
  { name = "sweep, no rests", prepare = function() fill("old", EXPIRED, "-1 hour") end, work = function()
    local report, seconds = pass(1)
    assert(report.expired == EXPIRED)
    return report.expired / seconds
  end },
  { name = "evict", prepare = function()
    fill("old", EXPIRED, "1 hour")
    quota(LIVE + EXPIRED // 2)
  end, work = function()
    local report, seconds = pass(0.25)
    assert(report.evicted > EXPIRED / 3, report.evicted)
    return report.evicted / seconds
  end, clean = function()
    sql("DELETE FROM fpcache_quotas; DELETE FROM cache WHERE key < 'p' AND key >= 'o' ")
  end },
}

sql("TRUNCATE cache")
fill("live", LIVE, "1 day")
local found = {}
for round = 1, ROUNDS do
  for i = 1, #SIDES do
    local side = SIDES[(round + i - 2) % #SIDES + 1]
    if side.prepare then side.prepare() end
    sql("VACUUM ANALYZE cache")
    local result = beside(side.work)
    if side.clean then side.clean() end
    local all = found[side.name] or { reads = {}, middle = {}, late = {}, rate = {} }
    found[side.name] = all
    for name, value in pairs(result) do table.insert(all[name], value) end
  end
end
print(("%d living entries, %d to go; %d rounds, medians"):format(LIVE, EXPIRED, ROUNDS))
for _, side in ipairs(SIDES) do
  local all = found[side.name]
  print(("%-16s %9s entries/s   %6.0f reads/s   median %6.1f us   p99 %7.1f us"):format(side.name,
    all.rate[1] and ("%.0f"):format(median(all.rate)) or "", median(all.reads), median(all.middle), median(all.late)))
end
sql("TRUNCATE cache")
superuser:close()
pool:close()

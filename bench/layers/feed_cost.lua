--- Question: what does telling the feed cost a set and a set_many?  And waking readers, with feed_listen?
--
-- The client's own statements (lua/fpcache/statements.lua) as they are with the feed on, with `fpcache admin feed off`, and then
-- on a table without any trigger, by 4 clients of pgbench as a plain role under row-level security; and the plain statements
-- while the feed is on, for which the triggers tell, as for any writer that is not ours.  Sides take turns.
-- The feed is emptied before each measurement, as its readers do every 10 s; none is connected.
-- set_many runs inside a PL/pgSQL function, which
-- takes its arrays from a table: pgbench would send the keys once for each place where they are named.
--
-- The bars are for transactions a second.  Transactions for a second of the server's processor time are told as well: they
-- move less with what else runs on the machine.
local common = require("common")
local core = require("fpcache.core")
local rounds = require("rounds")
local schema = require("fpcache.schema")

-- Many short rounds: what else runs on the machine comes and goes, and a ratio is taken within a round.
local ROUNDS = common.is_quick and 5 or 25
local CALLS = { set = 5000, set_many = 50 } -- of each client in a round
local KEYS, CLIENTS, BATCHES, ROWS = 100000, 4, 25, 1000 -- batches for each client, so that none waits for another
local BAR_ON, BAR_OFF = 0.85, 0.98
local TMP = common.environment("BENCH_TMP")
local TYPES = { t = "text", y = "bytea", c = '"char"', f = "float8", i = "bigint" }

local sql, conn = common.superuser()

local function client_statements(tells, wakes)
  local make = core.statement
  core.statement = function(text, types) return { text = text, types = types } end
  local texts = require("fpcache.statements").new('"public"', tells, false, wakes)
  core.statement = make
  return texts
end

local function set_script(statement)
  local values = { "'feed'", ":key", "NULL", ":value", "'s'", "3600", "NULL" }
  local text = statement.text:gsub("%$(%d)", function(digit)
    local i = tonumber(digit)
    return ("%s::%s"):format(values[i], TYPES[statement.types:sub(i, i)])
  end)
  return ("\\set key random(1000001, %d)\n%s;\n"):format(1000000 + KEYS, text)
end

local function set_many_script(statement, name)
  sql(([[
CREATE FUNCTION public.%s(text, bytea[], bytea[], bytea[], "char"[], float8[]) RETURNS void
LANGUAGE plpgsql AS $body$ BEGIN %s; END $body$]]):format(name, statement.text))
  return ([[
\set n :client_id * %d + random(1, %d)
SELECT public.%s('feed', keys, long_keys, vals, formats, ttls) FROM public.batches WHERE n = :n;
]]):format(BATCHES, BATCHES, name)
end

local function pgbench(file, calls)
  local command = "'%s/pgbench' -n -M prepared -c %d -j 1 -t %d -f '%s' -D value=%s"
    .. " '%s' 2>'%s/stderr'"
  local pipe = assert(io.popen(command:format(common.environment("BENCH_BINDIR"), CLIENTS, calls, file, ("x"):rep(100),
    common.url, TMP)))
  local output = pipe:read("a")
  local rate = tonumber(output:match("tps = ([%d.]+)"))
  local failed = tonumber(output:match("number of failed transactions: (%d+)") or 0)
  if not pipe:close() or not rate or failed > 0 then
    error(("pgbench failed:\n%s%s"):format(output, common.read_file(TMP .. "/stderr")), 0)
  end
  return rate
end

local function row(text)
  return assert(conn:query(text, 5))[1]
end

local function stat_fields(pid) -- from the third on: the second may hold spaces
  local fields = {}
  for field in common.read_file(("/proc/%d/stat"):format(pid)):match("%) (.*)"):gmatch("%S+") do fields[#fields + 1] = field end
  return fields
end

local postmaster = stat_fields(row("SELECT pg_backend_pid()::bigint AS pid").pid)[2]

--- Processor seconds of the server's processes that have ended, once those of app have.
local function server_seconds()
  local deadline = core.system.now() + 10
  while row("SELECT count(*) AS count FROM pg_stat_activity WHERE usename = 'app'").count > 0 do
    assert(core.system.now() < deadline, "sessions of app do not end")
    core.system.sleep(0.02)
  end
  core.system.sleep(0.1) -- the server notices that they ended
  local fields = stat_fields(postmaster)
  return (fields[14] + fields[15]) / 100 -- Linux counts in 1/100 s
end

local ON, OFF = schema.switch_sql('"public"', true), schema.switch_sql('"public"', false)
local trigger = conn:query([[
SELECT pg_get_triggerdef(oid) AS text FROM pg_trigger WHERE tgname = 'fpcache_tell_truncate']], 5)[1].text
local DROP, BACK = "DROP TRIGGER fpcache_tell_truncate ON public.cache", -- where it is off, the rows are called so
  (trigger:gsub(" ON [^ ]+ ", " ON public.cache "))

--- SQL before and after the measurement: how the feed is then.
local function side(name, script, calls, before_it, after_it)
  local file = common.write_file(("%s/%s.pgbench"):format(TMP, name:gsub("%W", "_")), script)
  local by_processor = {}
  return { name = name, by_processor = by_processor, measure = function()
    sql("TRUNCATE public.fpcache_feed")
    if before_it then sql(before_it) end
    local before = server_seconds()
    local rate = pgbench(file, calls)
    table.insert(by_processor, CLIENTS * calls / (server_seconds() - before))
    if after_it then sql(after_it) end
    return rate
  end }
end

sql("SET fpcache.tells = 'on'; TRUNCATE public.cache")
sql([[
CREATE TABLE public.batches (n integer PRIMARY KEY, keys bytea[], long_keys bytea[], vals bytea[], formats "char"[],
                             ttls float8[]);
ALTER TABLE public.batches ALTER COLUMN keys SET STORAGE EXTERNAL, ALTER COLUMN vals SET STORAGE EXTERNAL;
GRANT SELECT ON public.batches TO app]])
-- In no order, as from a Lua table, but always the same.
sql(([[
INSERT INTO public.batches
SELECT n, array_agg(key ORDER BY md5(key)), array_agg(NULL::bytea), array_agg(convert_to(repeat('x', 100), 'UTF8')),
       array_agg('s'::"char"), array_agg(3600::float8)
FROM (SELECT (i - 1) / %d + 1 AS n, convert_to((1000000 + i)::text, 'UTF8') AS key FROM generate_series(1, %d) AS i) AS k
GROUP BY n]]):format(ROWS, KEYS))
sql([[
INSERT INTO public.cache (user_id, namespace, key, value, format)
SELECT 'app', 'feed', key, convert_to(repeat('x', 100), 'UTF8'), 's' FROM public.batches, unnest(keys) AS key]])
sql("VACUUM ANALYZE public.cache")
sql("VACUUM ANALYZE public.batches")

local telling, silent, waking = client_statements(true), client_statements(false), client_statements(true, true)
assert(telling.set.text ~= silent.set.text and telling.set_many.text ~= silent.set_many.text, "both sides are the same")

local results = { rounds = ROUNDS, calls = CALLS, clients = CLIENTS, rows = ROWS, operations = {} }
for _, operation in ipairs { "set", "set_many" } do
  local function script(statements, name)
    if operation == "set" then return set_script(statements.set) end
    return set_many_script(statements.set_many, name)
  end
  local silent_script, calls = script(silent, "many_silent"), CALLS[operation]
  local sides = {
    side(operation .. " on", script(telling, "many_telling"), calls),
    side(operation .. " off", silent_script, calls, OFF, ON),
    side(operation .. " none", silent_script, calls, OFF .. ";" .. DROP, BACK .. ";" .. ON),
    side(operation .. " others", silent_script, calls),
    side(operation .. " waking", script(waking, "many_waking"), calls),
  }
  local rates = rounds.run(sides, ROUNDS)
  local with, without, none = rates[operation .. " on"], rates[operation .. " off"], rates[operation .. " none"]
  -- The median of what each round says, and the middle half of the rounds.
  local function compare(list, other)
    local each = {}
    for i = 1, ROUNDS do each[i] = list[i] / other[i] end
    table.sort(each)
    return { median = rounds.median(each), low = each[(ROUNDS + 3) // 4], high = each[(3 * ROUNDS + 1) // 4] }
  end
  local result = {
    operation = operation, with = with, without = without, no_feed = none, bar = BAR_ON, bar_switched_off = BAR_OFF,
    on = compare(with.all, without.all), switched_off = compare(without.all, none.all),
    waking = compare(rates[operation .. " waking"].all, without.all),
    others = compare(rates[operation .. " others"].all, without.all),
    on_by_processor = compare(sides[1].by_processor, sides[2].by_processor),
    switched_off_by_processor = compare(sides[2].by_processor, sides[3].by_processor),
  }
  results.operations[#results.operations + 1] = result
  local function tell(what, found, bar)
    print(("%-8s %-38s %.3f (half of the rounds %.2f to %.2f)%s"):format(operation, what, found.median, found.low, found.high,
      bar and (", bar %.2f: %s"):format(bar, found.median >= bar and "reached" or "MISSED") or ""))
  end
  print(("%-8s feed on %.0f/s, switched off %.0f/s, no triggers at all %.0f/s"):format(operation, with.median, without.median,
    none.median))
  tell("on / switched off", result.on, BAR_ON)
  tell("  by the server's processor time", result.on_by_processor)
  tell("on and feed_listen / switched off", result.waking)
  tell("on, told by triggers / switched off", result.others)
  tell("switched off / no triggers", result.switched_off, BAR_OFF)
  tell("  by the server's processor time", result.switched_off_by_processor)
end
common.keep("feed_cost", results)

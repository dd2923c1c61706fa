--- Drives the bench: sets up the server, lets the sides take turns, prints the table, writes the JSON.
--
-- Run by run.sh, which has started the servers and built the C programs; everything comes by environment.
-- With --plans it prints how the server plans each statement instead (see plans.lua).
local here = arg[0]:match("^(.*)/[^/]*$")
package.path = ("%s/?.lua;%s/../support/?.lua;"):format(here, here) .. package.path
local admin = require("fpcache.admin")
local codec = require("fpcache.codec")
local connection = require("fpcache.connection")
local core = require("fpcache.core")
local data = require("data")
local options = require("fpcache.options")
local rounds = require("rounds")

local function environment(name)
  return os.getenv(name) or error(name .. " is not set: use run.sh")
end

local SUPER = environment("BENCH_URL")
local URL = SUPER:gsub("user=[^&]*", "user=app") -- a role as users have it: row-level security holds for it
local TMP, BUILD, REDIS = environment("BENCH_TMP"), environment("BENCH_BUILD"), environment("BENCH_REDIS")
local IS_QUICK = os.getenv("BENCH_QUICK") == "1"

local ROUNDS = IS_QUICK and 3 or 7
local SINGLES = IS_QUICK and 3000 or 8000 -- get, set: operations in a round
local FRESH_SINGLES = IS_QUICK and 1000 or 5000
local LISTS = IS_QUICK and 50 or 200 -- get_many: calls in a round

-- --- the server ---

local super = assert(connection.open(options.read(connection.OPTIONS,
  { connection_string = SUPER, bulk_timeout = 120 }, 1), 1))
super = assert(super:acquire(5))

local function sql(text)
  assert(super:script(text, 120))
end

local function read_file(path)
  local file = assert(io.open(path))
  local text = file:read("a")
  file:close()
  return text
end

local function write_file(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

--- The client's own statements, as their text.
local function client_statements()
  local texts, make = {}, core.statement
  core.statement = function(text) return text end
  for name, text in pairs(require("fpcache.statements").new('"public"')) do texts[name] = text end
  core.statement = make
  return texts
end

--- A statement for pgbench: variables for the parameters, as many as it can give.
local function pgbench_script(text)
  local names = { "ns", "key", "NULL::bytea", "value", "format", "ttl", "NULL::float8" }
  text = text:gsub("%$(%d)", function(digit)
    local name = names[tonumber(digit)]
    return name:find("::", 1, true) and name or ":" .. name
  end)
  return ("\\set key random(%d, %d)\n%s;\n"):format(data.FIRST_KEY, data.FIRST_KEY + data.ROWS - 1, text)
end

-- --- the sides ---

--- Runs a command that prints a rate.
local function rate_of(command, pattern)
  local pipe = assert(io.popen(command .. " 2>" .. TMP .. "/stderr"))
  local output = pipe:read("a")
  local ok = pipe:close()
  local rate = tonumber(output:match(pattern or "^([%d.]+)"))
  if not ok or not rate then
    error(("failed: %s\n%s%s"):format(command, output, read_file(TMP .. "/stderr")), 0)
  end
  return rate
end

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

local LUA = {
  lua54 = { host = "lua5.4", abi = "lua5.4" },
  luajit = { host = BUILD .. "/luajit-host", abi = "lua5.1" },
}

local function lua(runtime, script, ...)
  local about = LUA[runtime]
  local words = {
    ("LUA_PATH=%s LUA_CPATH=%s"):format(quoted(here .. "/../../lua/?.lua;" .. here .. "/../../lua/?/init.lua;" .. here .. "/?.lua;;"),
      quoted(BUILD .. "/" .. about.abi .. "/?.so;;")),
    quoted(about.host), quoted(here .. "/" .. script),
  }
  for _, word in ipairs({ ... }) do words[#words + 1] = quoted(tostring(word)) end
  return table.concat(words, " ")
end

local function fpc(runtime, operation, count)
  return function() return rate_of(lua(runtime, "side_fpcache.lua", URL, operation, count)) end
end

local function pg(operation, file, count, url)
  local command = ("%s/side_libpq %s %s %s %d"):format(TMP, quoted(url or URL), operation, file, count)
  return function() return rate_of(command) end
end

local function pgbench(file)
  local command = table.concat({
    environment("BENCH_BINDIR") .. "/pgbench -n -M prepared -c 1 -j 1 --random-seed=42 -t", SINGLES, "-f", file,
    "-D ns=" .. data.NAMESPACE, "-D format=s", "-D ttl=" .. data.TTL, "-D value=" .. data.VALUE, "-D user=app",
    quoted(URL),
  }, " ")
  return function() return rate_of(command, "tps = ([%d.]+)") end
end

local function hiredis(operation)
  return function() return rate_of(("%s/side_hiredis %s %s %d"):format(TMP, REDIS, operation, SINGLES)) end
end

local function lua_redis(operation)
  return function() return rate_of(lua("luajit", "side_lua_redis.lua", REDIS, operation, SINGLES)) end
end

--- The same on an empty table.
local function fresh(measure)
  return function()
    sql("TRUNCATE public.cache")
    return measure()
  end
end

-- --- what is compared with what ---

local function main()
  sql("CREATE ROLE app LOGIN")
  assert(admin.setup({ connection_string = SUPER, grant = "app" }))
  local statements = client_statements()
  sql(read_file(here .. "/python.sql"))
  if arg[1] == "--plans" then return require("plans")(super, sql, statements, URL) end

  local files = {}
  for _, name in ipairs({ "get", "set", "get_many", "set_many" }) do
    files[name] = write_file(("%s/%s.sql"):format(TMP, name), statements[name])
  end
  files.insert = write_file(TMP .. "/insert.sql", (statements.set_many:gsub("ON CONFLICT.*", "")))
  files.copy = write_file(TMP .. "/copy.sql",
    "COPY public.cache (namespace, key, value, format, version, expires_at) FROM STDIN (FORMAT binary)")
  for _, name in ipairs({ "get", "set" }) do
    files["bench_" .. name] = write_file(("%s/%s.pgbench"):format(TMP, name), pgbench_script(statements[name]))
  end
  files.python_get = write_file(TMP .. "/python_get.pgbench",
    pgbench_script("SELECT python.cache_get(:user, :key)"))
  files.python_set = write_file(TMP .. "/python_set.pgbench",
    pgbench_script("SELECT python.cache_set(:user, :key, :value, :ttl)"))

  rate_of(lua("lua54", "side_fpcache.lua", URL, "load", data.ROWS))
  rate_of(("%s/side_hiredis %s load %d"):format(TMP, REDIS, data.ROWS))
  sql("VACUUM ANALYZE public.cache")
  sql("VACUUM ANALYZE python.cache")

  local sections = {}
  for _, operation in ipairs({ "get", "set" }) do
    sections[#sections + 1] = {
      name = "single " .. operation, unit = operation .. "s/s",
      sides = {
        { name = "fpcache lua5.4", measure = fpc("lua54", operation, SINGLES) },
        { name = "fpcache luajit", measure = fpc("luajit", operation, SINGLES) },
        { name = "pgbench", measure = pgbench(files["bench_" .. operation]) },
        { name = "libpq in C", measure = pg(operation, files[operation], SINGLES) },
        { name = "python design (pgbench)", measure = pgbench(files["python_" .. operation]) },
        { name = "redis, hiredis in C", measure = hiredis(operation) },
        { name = "redis, lua-redis luajit", measure = lua_redis(operation) },
      },
      bars = { { "pgbench", 0.90 } },
    }
  end
  sections[#sections + 1] = {
    name = ("get_many of %d"):format(data.LIST), unit = "keys/s",
    sides = {
      { name = "fpcache lua5.4", measure = fpc("lua54", "get_many", LISTS) },
      { name = "fpcache luajit", measure = fpc("luajit", "get_many", LISTS) },
      { name = "libpq = ANY", measure = pg("any", files.get_many, LISTS) },
    },
    bars = { { "libpq = ANY", 0.90 } },
  }
  -- COPY is refused under row-level security, so that side is the superuser's.
  sections[#sections + 1] = {
    name = ("set_many of %d fresh rows"):format(data.ROWS), unit = "rows/s",
    sides = {
      { name = "fpcache lua5.4", measure = fresh(fpc("lua54", "set_many", data.ROWS)) },
      { name = "fpcache luajit", measure = fresh(fpc("luajit", "set_many", data.ROWS)) },
      { name = "libpq INSERT unnest", measure = fresh(pg("many", files.insert, data.ROWS)) },
      { name = "libpq upsert unnest", measure = fresh(pg("many", files.set_many, data.ROWS)) },
      { name = "libpq COPY", measure = fresh(pg("copy", files.copy, data.ROWS, SUPER)) },
      { name = "single sets lua5.4", measure = fresh(fpc("lua54", "set_fresh", FRESH_SINGLES)) },
      { name = "single sets luajit", measure = fresh(fpc("luajit", "set_fresh", FRESH_SINGLES)) },
    },
    bars = { { "libpq INSERT unnest", 0.90 }, { "libpq COPY", 0.7 }, { "single sets %s", 30 } },
  }

  local report = { rounds = ROUNDS, quick = IS_QUICK, sections = {} }
  local started, missed = core.system.now(), 0
  for _, section in ipairs(sections) do
    local results = rounds.run(section.sides, ROUNDS)
    print(("\n%s, %s, medians of %d rounds (lowest, highest)"):format(section.name, section.unit, ROUNDS))
    for _, side in ipairs(section.sides) do
      local r = results[side.name]
      print(("  %-26s %10.0f  (%.0f, %.0f)"):format(side.name, r.median, r.min, r.max))
    end
    local verdicts = {}
    for _, bar in ipairs(section.bars) do
      for _, runtime in ipairs({ "lua5.4", "luajit" }) do
        local peer = bar[1]:format(runtime)
        local ratio = results["fpcache " .. runtime].median / results[peer].median
        local verdict = { runtime = runtime, peer = peer, ratio = ratio, bar = bar[2], reached = ratio >= bar[2] }
        verdicts[#verdicts + 1] = verdict
        if not verdict.reached then missed = missed + 1 end
        print(("  fpcache %s / %-20s %6.2f  bar %.2f  %s"):format(runtime, peer, ratio, bar[2],
          verdict.reached and "reached" or "MISSED"))
      end
    end
    report.sections[#report.sections + 1] = { name = section.name, unit = section.unit, sides = results, bars = verdicts }
  end
  report.seconds = core.system.now() - started
  report.missed = missed
  print(("\n%d bars missed; %.0f s"):format(missed, report.seconds))
  write_file(environment("BENCH_JSON"), assert(codec.json.encode(report)) .. "\n")
end

main()

--- Drives the bench: sets up the server, lets the sides take turns, prints the table, writes the JSON.  Run by run.sh.
local here = arg[0]:match("^(.*)/[^/]*$")
package.path = ("%s/?.lua;%s/../kv/?.lua;%s/../support/?.lua;"):format(here, here, here) .. package.path
local admin = require("fpcache.admin")
local codec = require("fpcache.codec")
local connection = require("fpcache.connection")
local core = require("fpcache.core")
local data = require("data")
local fpcache = require("fpcache")
local options = require("fpcache.options")
local rounds = require("rounds")

local function environment(name)
  return os.getenv(name) or error(name .. " is not set: use run.sh")
end

local SUPER = environment("BENCH_URL")
local URL = SUPER:gsub("user=[^&]*", "user=app") -- a role as users have it: row-level security holds for it
local TMP, BUILD = environment("BENCH_TMP"), environment("BENCH_BUILD")
local IS_QUICK = os.getenv("BENCH_QUICK") == "1"
local ROUNDS = IS_QUICK and 3 or 5
local BAR, BAR_DEPTH = 0.90, 64

local function write_file(name, text)
  local file = assert(io.open(TMP .. "/" .. name, "w"))
  file:write(text)
  file:close()
  return TMP .. "/" .. name
end

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- Runs a command that prints a rate.
local function rate_of(command, pattern)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local output = pipe:read("a")
  local ok = pipe:close()
  local rate = tonumber(output:match(pattern or "^([%d.]+)"))
  if not ok or not rate then error(("failed: %s\n%s"):format(command, output), 0) end
  return rate
end

local LUA = {
  ["lua5.4"] = { host = "lua5.4", abi = "lua5.4" },
  luajit = { host = BUILD .. "/luajit-host", abi = "lua5.1" },
}

local function lua(runtime, operation, count, depth)
  local about = LUA[runtime]
  return ("LUA_PATH=%s LUA_CPATH=%s %s %s %s %s %d %d"):format(
    quoted(("%s/../../lua/?.lua;%s/../../lua/?/init.lua;%s/../kv/?.lua;;"):format(here, here, here)),
    quoted(("%s/%s/?.so;;"):format(BUILD, about.abi)),
    about.host, here .. "/side_fpcache.lua", quoted(URL), operation, count, depth)
end

--- The client's own statements, as their text.
local function client_statements()
  local texts, make = {}, core.statement
  core.statement = function(text) return text end
  for name, text in pairs(require("fpcache.statements").new('"public"', true)) do texts[name] = text end
  core.statement = make
  return texts
end

--- A statement for pgbench: variables for the parameters, as many as it can give.
local function pgbench_script(text)
  local values = { ":ns", ":key::bytea", "NULL::bytea", ":value", ":format", ":ttl", "NULL::float8" }
  text = text:gsub("%$(%d)", function(digit) return values[tonumber(digit)] end)
  return ("\\set key random(%d, %d)\n%s;\n"):format(data.FIRST_KEY, data.FIRST_KEY + data.ROWS - 1, text)
end

local function pgbench(url, file, count, clients)
  return table.concat({
    environment("BENCH_BINDIR") .. "/pgbench -n -M prepared -c", clients, "-j 1 --random-seed=42 -t", count // clients,
    "-f", file, "-D ns=" .. data.NAMESPACE, "-D format=s", "-D ttl=" .. data.TTL, "-D value=" .. data.VALUE, quoted(url),
  }, " ")
end

local function set_up()
  local super = assert(connection.open(options.read(connection.OPTIONS,
    { connection_string = SUPER, bulk_timeout = 120 }, 1), 1))
  local conn = assert(super:acquire(5))
  assert(conn:script("CREATE ROLE app LOGIN", 120))
  assert(admin.setup({ connection_string = SUPER, grant = "app" }))
  local cache = assert(fpcache.new({ connection_string = URL, namespace = data.NAMESPACE, feed = false }))
  local i = 0
  assert(cache:set_many(function()
    i = i + 1
    if i <= data.ROWS then return data.key(i - 1), data.VALUE end
  end, data.TTL))
  cache:close()
  assert(conn:script("VACUUM ANALYZE public.cache", 120))
  conn:close()
  super:close()
end

local function main()
  set_up()
  local statements = client_statements()
  local files = {}
  for _, name in ipairs({ "get", "set", "get_merged", "set_merged" }) do
    files[name] = write_file(name .. ".sql", statements[name])
  end
  for _, name in ipairs({ "get", "set" }) do
    files["bench_" .. name] = write_file(name .. ".pgbench", pgbench_script(statements[name]))
  end
  -- A session as the client's: its setting keeps the feed's trigger from telling a second time.
  local peer = URL .. (URL:find("?", 1, true) and "&" or "?") .. "options=-c%20random_page_cost%3D0.05"

  local report = { rounds = ROUNDS, quick = IS_QUICK, sections = {} }
  local missed = 0
  for _, operation in ipairs({ "get", "set" }) do
    for _, depth in ipairs({ 1, 8, 64, 512 }) do
      local count = math.floor((IS_QUICK and 6000 or 20000) * (depth == 1 and 0.3 or 1) * (operation == "set" and 0.5 or 1))
      local function engine(merged, readers)
        return function()
          return rate_of(("%s/bench/pipeline_engine %s %s %s %s %d %d %d"):format(BUILD, quoted(peer), operation,
            files[operation], merged, count, depth, readers))
        end
      end
      local sides = {
        { name = "libpq pipeline in C", measure = function()
          return rate_of(("%s/side_libpq %s %s %s %d %d"):format(TMP, quoted(peer), operation, files[operation], count, depth))
        end },
        { name = "engine in C", measure = engine(files[operation .. "_merged"], 2) },
        { name = "fpcache lua5.4", measure = function() return rate_of(lua("lua5.4", operation, count, depth)) end },
        { name = "fpcache luajit", measure = function() return rate_of(lua("luajit", operation, count, depth)) end },
      }
      if depth >= 8 then table.insert(sides, 3, { name = "engine, not merged", measure = engine("-", 2) }) end
      if operation == "get" and depth >= 8 then
        table.insert(sides, 4, { name = "engine, not merged, 1 conn", measure = engine("-", 1) })
      end
      if depth <= 64 then
        sides[#sides + 1] = { name = ("pgbench, %d clients"):format(depth), measure = function()
          return rate_of(pgbench(peer, files["bench_" .. operation], count, depth), "tps = ([%d.]+)")
        end }
      end
      local results = rounds.run(sides, ROUNDS)
      local bare = results["libpq pipeline in C"]
      print(("\n%s, %d in flight, %ss/s, medians of %d rounds (lowest, highest), against bare libpq"):format(operation, depth,
        operation, ROUNDS))
      for _, side in ipairs(sides) do
        local r = results[side.name]
        local ratio, verdict = r.median / bare.median, ""
        if depth == BAR_DEPTH and side.name:find("^fpcache") then
          local reached = ratio >= BAR
          verdict = ("  bar %.2f  %s"):format(BAR, reached and "reached" or "MISSED")
          if not reached then missed = missed + 1 end
        end
        print(("  %-26s %8.0f  (%.0f, %.0f)  %5.2f%s"):format(side.name, r.median, r.min, r.max, ratio, verdict))
      end
      report.sections[#report.sections + 1] = { operation = operation, depth = depth, sides = results }
    end
  end
  report.missed = missed
  print(("\n%d bars missed"):format(missed))
  local file = assert(io.open(environment("BENCH_JSON"), "w"))
  file:write(assert(codec.json.encode(report)), "\n")
  file:close()
end

main()

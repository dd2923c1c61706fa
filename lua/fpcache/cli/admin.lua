--- `fpcache admin`: setup, status, upgrade, feed, drop; watch, unwatch, watches; quota, sweep.  And `fpcache-admin` with the
-- Python tool's flags.
local admin = require("fpcache.admin")
local answer = require("fpcache.cli.answer")
local argparse = require("argparse")
local connection_flags = require("fpcache.cli.connection_flags")
local core = require("fpcache.core")
local keeping = require("fpcache.cli.keeping")
local watch = require("fpcache.cli.watch")

local cli = {}

local FORCE_HELP = "Recreate without asking: DELETES ALL CACHED DATA."

local function make_parser()
  local parser = argparse("fpcache admin", "Set up the database for the cache.")
  local command = connection_flags.commands(parser, "Print the report as JSON.")
  local setup = command("setup", "Install or upgrade the schema; keeps the data; safe to repeat.")
  setup:flag("--logged", "A table that survives a crash, and is slower.")
  setup:option("--grant", "Role that may use the cache; public for everybody; may be repeated."):argname("ROLE"):count(
    "*")
  setup:flag("--force", FORCE_HELP)
  command("status", "Tell what is installed.")
  command("upgrade", "Run the missing migrations.")
  command("feed", "Switch the change feed on or off: off, writes cost less and every read asks the server."):argument(
    "switch", "on or off"):choices { "on", "off" }
  command("drop", "Remove the cache and all its data."):flag("--force", "Do not ask.")
  watch.add(command)
  keeping.add(command)
  return parser
end

--- Asks a person; nil, reason where there is none to ask.
local function confirm(question)
  if not core.system.isatty(0) then return nil, "there is no terminal to ask on; say --force to do it" end
  io.stderr:write(question, " [y/N] ")
  local typed = io.read("l")
  if typed and typed:lower():match("^y") then return true end
  return nil, "nothing was changed"
end

local function bytes(count)
  for _, unit in ipairs({ "bytes", "kB", "MB", "GB" }) do
    if count < 10000 or unit == "GB" then return ("%.0f %s"):format(count, unit) end
    count = count / 1024
  end
end

local function print_status(report)
  if report.version == 0 then
    print(("Schema %s of database %s: nothing is set up.  Run: fpcache admin setup"):format(
      report.schema, report.database))
    return
  end
  print(("Schema %s of database %s, version %d (this fpcache knows %d)"):format(
    report.schema, report.database, report.version, report.latest))
  print(("  table     %s.cache, %s, owned by %s"):format(report.schema,
    report.unlogged and "UNLOGGED" or "LOGGED", report.owner))
  print("  isolation " .. (report.isolated and "row-level security, forced" or "OFF: row-level security is disabled"))
  print("  feed      " .. (report.feed_on and "on" or "OFF: no near cache and no filter answers"))
  print(("  size      %s, about %d rows"):format(bytes(report.bytes), report.rows))
  print(("  server    %s"):format(report.server:match("^%S+ %S+") or report.server))
end

local function print_setup(report)
  if report.recreated then print("Dropped what was there before.") end
  if #report.applied == 0 then
    print("Nothing to do: the schema is up to date.")
  else
    for _, name in ipairs(report.applied) do print("Installed: " .. name) end
  end
  for _, role in ipairs(report.granted) do print("Granted to: " .. role) end
  print_status(report)
  print("Users connect and use it; nothing else is to set up:")
  print(('  local cache = assert(fpcache.new{ connection_string = "postgresql://USER@HOST/%s"%s })'):format(
    report.database, report.schema == "public" and "" or (", schema = %q"):format(report.schema)))
  if #report.granted == 0 then
    print("So far only the owner may; for others: fpcache admin setup --grant ROLE")
  end
end

--- Sets up; a table that is not ours is replaced only after a person or --force said so.
local function setup(opts, as_json)
  local report, err = connection_flags.call(admin.setup, opts)
  if not report and not opts.force and err:find("that fpcache did not make", 1, true) then
    local yes, reason = confirm(("Replace the table %s.cache and DELETE what it holds?"):format(opts.schema))
    if not yes then return answer.failed(err .. " (" .. reason .. ")") end
    opts.force = true
    report, err = connection_flags.call(admin.setup, opts)
  end
  if not report then return answer.failed(err) end
  return answer.found(report, as_json, print_setup)
end

local function drop(opts, as_json)
  if not opts.force then
    local yes, reason = confirm(("Drop %s.cache and DELETE all cached data?"):format(opts.schema))
    if not yes then return answer.failed(reason) end
  end
  local report, err = connection_flags.call(admin.drop, opts)
  if not report then return answer.failed(err) end
  return answer.found(report, as_json, function() print(("Dropped the cache in schema %s."):format(opts.schema)) end)
end

---@param words string[] the arguments after "admin"
---@return integer exit_code
function cli.run(words)
  local flags, code = connection_flags.parse(make_parser(), words)
  if not flags then return code end
  local opts = connection_flags.read(flags)
  if flags.command == "setup" then
    opts.logged, opts.grant, opts.force = flags.logged, flags.grant, flags.force
    return setup(opts, flags.json)
  elseif flags.command == "drop" then
    opts.force = flags.force
    return drop(opts, flags.json)
  elseif watch.has(flags.command) or keeping.has(flags.command) then
    local report, print_report = (watch.has(flags.command) and watch or keeping).run(flags, opts)
    if not report then return answer.failed(print_report) end
    return answer.found(report, flags.json, print_report)
  elseif flags.command == "feed" then
    local report, err = connection_flags.call(function(o) return admin.switch_feed(o, flags.switch == "on") end, opts)
    if not report then return answer.failed(err) end
    return answer.found(report, flags.json, print_status)
  end
  local report, err = connection_flags.call(admin[flags.command], opts)
  if not report then return answer.failed(err) end
  return answer.found(report, flags.json, flags.command == "upgrade" and print_setup or print_status)
end

--- `fpcache-admin`: the flags and defaults of the Python library's tool.
---@return integer exit_code
function cli.run_as_python_tool(words)
  local parser = argparse("fpcache-admin", "Set up the cache once; users then only connect.")
  parser:option("--host", "Database host (default: localhost; Databricks: the instance's).")
  parser:option("--port", "Database port.", "5432"):convert(tonumber)
  parser:option("--database", "Database name (default: postgres; Databricks: databricks_postgres).")
  parser:option("--user", "User with the right to create tables (default: postgres; Databricks: who you are there).")
  parser:option("--password", "Database password.")
  parser:option("--schema", "Schema for the cache table.", "public")
  parser:flag("--force", FORCE_HELP)
  parser:flag("--databricks", "Log in with a Databricks token; needs --instance-name.")
  parser:option("--instance-name", "Databricks instance name.")
  parser:option("--profile", "Databricks profile.")
  local flags, code = connection_flags.parse(parser, words)
  if not flags then return code end
  if flags.databricks and not flags.instance_name then return answer.failed("--databricks needs --instance-name") end
  if not flags.instance_name then
    flags.host, flags.user = flags.host or "localhost", flags.user or "postgres"
    flags.database = flags.database or "postgres"
  end
  local opts = connection_flags.read(flags)
  opts.force = flags.force
  return setup(opts, false)
end

return cli

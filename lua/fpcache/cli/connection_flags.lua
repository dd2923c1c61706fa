--- The flags by which every command names its server, and what they mean as options.
local connection_flags = {}

--- Adds the flags to an argparse command.
function connection_flags.add(command)
  command:option("--url", "Connection URL (default: FPCACHE_URL, else the private server)."):argname("URL")
  command:option("--host", "Database host, or a unix socket's directory."):argname("HOST")
  command:option("--port", "Database port (default: 5432)."):argname("PORT"):convert(tonumber)
  command:option("--database", "Database name (default: postgres)."):argname("NAME")
  command:option("--user", "Database user (default: postgres)."):argname("NAME")
  command:option("--password", "Password; better in ~/.pgpass or PGPASSWORD, since others can see arguments."):argname(
    "WORD")
  command:option("--schema", "Schema of the cache table.", "public"):argname("NAME")
end

--- Options for fpcache.new or admin from parsed flags.
function connection_flags.read(flags)
  return {
    connection_string = flags.url, host = flags.host, port = flags.port, database = flags.database,
    user = flags.user, password = flags.password, schema = flags.schema,
  }
end

--- Parses; on a wrong command line says so and returns nil and the exit code.
function connection_flags.parse(parser, words)
  local ok, result = parser:pparse(words)
  if ok then return result end
  io.stderr:write("fpcache: ", tostring(result), "; see --help\n")
  return nil, 2
end

--- Calls fpcache.new or a function of admin.  What they raise about an option comes from the command line here,
-- so it is an answer like the others.
---@return any value, string? err
function connection_flags.call(open, opts)
  local called, value, err = pcall(open, opts)
  if called then return value, err end
  local words = tostring(value):match("^options%.(.*)$") -- no place before it: pcall called
  if not words then error(value, 0) end
  return nil, "invalid: " .. words
end

return connection_flags

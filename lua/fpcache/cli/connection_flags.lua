--- The flags by which every command names its server, and what they mean as options.
local answer = require("fpcache.cli.answer")

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
  command:option("--auth", "Where passwords come from: databricks, aws, azure, google, password_command, password_file."
    ):argname("KIND")
  command:option("--auth-setting", "A setting of it; may be repeated."):argname("NAME=VALUE"):count("*")
  command:option("--password-file", "File with the password."):argname("PATH")
  command:option("--password-command", "Program that prints the password, and its arguments."):argname("WORD"):args("+")
  command:option("--instance-name", "Databricks: the instance."):argname("NAME")
  command:option("--endpoint", "Databricks: projects/P/branches/B/endpoints/E."):argname("PATH")
  command:option("--profile", "Databricks: section of ~/.databrickscfg."):argname("NAME")
  command:option("--schema", "Schema of the cache table.", "public"):argname("NAME")
end

--- For a parser with commands: what adds one, with these flags and --json.
---@param parser table
---@param about_json string
---@return fun(name: string, description: string): table
function connection_flags.commands(parser, about_json)
  parser:command_target("command")
  return function(name, description)
    local command = parser:command(name, description)
    connection_flags.add(command)
    command:flag("--json", about_json)
    return command
  end
end

--- --auth and its settings as the option `auth`; a name that is repeated becomes a list.
local function read_auth(flags)
  if not flags.auth then return nil end
  local auth = { flags.auth }
  for _, setting in ipairs(flags.auth_setting or {}) do
    local name, value = setting:match("^([^=]+)=(.*)$")
    name, value = name or setting, value or ""
    if type(auth[name]) == "table" then
      table.insert(auth[name], value)
    elseif auth[name] ~= nil then
      auth[name] = { auth[name], value }
    else
      auth[name] = value
    end
  end
  return auth
end

--- Options for fpcache.new or admin from parsed flags.
function connection_flags.read(flags)
  return {
    connection_string = flags.url, host = flags.host, port = flags.port, database = flags.database,
    user = flags.user, password = flags.password, schema = flags.schema, auth = read_auth(flags),
    password_file = flags.password_file, password_command = flags.password_command,
    instance_name = flags.instance_name, endpoint = flags.endpoint, profile = flags.profile,
  }
end

--- Parses; on a wrong command line says so and returns nil and the exit code.
function connection_flags.parse(parser, words)
  local ok, result = parser:pparse(words)
  if ok then return result end
  return nil, answer.misused(result)
end

--- Calls fpcache.new or a function of admin.  What they raise about an option comes from the command line here,
-- so it is an answer like the others.
---@return any value, string? err
function connection_flags.call(open, ...)
  local called, value, err = pcall(open, ...)
  if called then return value, err end
  local words = tostring(value):match("^options%.(.*)$") -- no place before it: pcall called
  if not words then error(value, 0) end
  return nil, "invalid: " .. words
end

return connection_flags

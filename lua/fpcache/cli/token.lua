--- `fpcache token show|test`: whether a source gives passwords, and whether the server takes them.
local answer = require("fpcache.cli.answer")
local argparse = require("argparse")
local auth = require("fpcache.auth")
local connection = require("fpcache.connection")
local connection_flags = require("fpcache.cli.connection_flags")
local options = require("fpcache.options")

local cli = {}

local function make_parser()
  local parser = argparse("fpcache token", "Look at the source of passwords.")
  local command = connection_flags.commands(parser, "Print JSON.")
  command("show", "Fetch a password and tell its state; never the password."):flag("--reveal",
    "Print the password too: who sees the screen or the log can use it.")
  command("test", "Fetch a password and log in with it.")
  return parser
end

local ROWS = { "source", "host", "user", "expires_in", "generation", "refreshes", "failures", "refusals", "last_error",
  "password", "logged_in_as" }

local function print_state(state, as_json)
  if as_json then
    answer.json(state)
    return
  end
  for _, name in ipairs(ROWS) do
    local value = state[name]
    if name == "expires_in" and state.source then value = value and ("%.0f s"):format(value) or "not known" end
    if value ~= nil then print(("%-13s%s"):format((name:gsub("_", " ")), tostring(value))) end
  end
end

local NO_SOURCE = "invalid: no source of passwords is named; see fpcache token --help"

--- Fetches; the state also when that failed.
local function show(opts, reveal)
  local found, err = connection_flags.call(connection.auth, opts, 1)
  if not found then return nil, err or NO_SOURCE end
  local ok
  ok, err = auth.await(found)
  local state = found.keeper:stats()
  if ok and reveal then state.password = found.keeper:get(0) end
  auth.release(found)
  return state, not ok and err or nil
end

--- Logs in.
local function test(opts)
  opts.maxconn = 1
  local pool, err = connection_flags.call(connection.open, opts, 1)
  if not pool then return nil, err end
  local state, conn = pool:token(), nil
  if state then conn, err = pool:acquire(opts.connect_timeout) else err = NO_SOURCE end
  if conn then
    state.logged_in_as = conn:user()
    conn:close()
  end
  pool:close()
  return state, err
end

---@param words string[] the arguments after "token"
---@return integer exit_code
function cli.run(words)
  local flags, code = connection_flags.parse(make_parser(), words)
  if not flags then return code end
  local opts, err = connection_flags.call(options.read, connection.OPTIONS, connection_flags.read(flags), 1)
  local state
  if not opts then return answer.failed(err) end
  if flags.command == "show" then state, err = show(opts, flags.reveal) else state, err = test(opts) end
  if state then print_state(state, flags.json) end
  if not err then return 0 end
  return answer.failed(err)
end

return cli

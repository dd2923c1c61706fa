--- From the options of a user to a pool of connections.
local auth = require("fpcache.auth")
local core = require("fpcache.core")
local loop = require("fpcache.loop")
local options = require("fpcache.options")
local sql = require("fpcache.sql")

local connection = {}

local MAX_CONNECTIONS = 100000
local MAX_SECONDS = 2000000 -- 23 days; the server counts its timeouts in 31 bits of milliseconds

local function seconds(value)
  if value ~= value or value <= 0 then return ("must be more than 0, got %s"):format(tostring(value)) end
  if value > MAX_SECONDS then return ("must be at most %d seconds, got %s"):format(MAX_SECONDS, tostring(value)) end
end

--- What a caller may say about the server.  Names and defaults of the first nine are the Python library's.
connection.OPTIONS = options.join({
  connection_string = { type = "string" }, -- a postgresql:// URL or key=value settings
  host = { type = "string" },              -- "localhost"; a path is a unix socket's directory
  port = { type = "integer", check = options.between(1, 65535, "") }, -- 5432
  database = { type = "string" },          -- "postgres"
  user = { type = "string" },              -- "postgres"
  password = { type = "string function", expected = "string or function" }, -- ""; a function is called when a new one is needed
  minconn = { type = "integer", default = 1, check = options.not_negative },
  maxconn = { type = "integer", default = 10, check = options.between(1, MAX_CONNECTIONS, "") },
  schema = { type = "string", default = "public" },
  connect_timeout = { type = "duration", default = 5, check = seconds },  -- seconds
  timeout = { type = "duration", default = 5, check = seconds },          -- seconds, a call on one key
  bulk_timeout = { type = "duration", default = 60, check = seconds },    -- seconds, a call on many
  idle_timeout = { type = "duration", default = 300, check = options.not_negative },  -- seconds; 0: never
  max_lifetime = { type = "duration", default = 3600, check = options.not_negative }, -- seconds; 0: no limit
  prepared = { type = "boolean", default = true }, -- false behind a transaction pooler
  pipeline_readers = { type = "integer", default = 2, check = options.between(1, 16, "") }, -- connections for reads of tasks
  pipeline_silence = { type = "duration", default = 2, check = seconds }, -- seconds until a silent one is replaced
  libpq = { type = "table" },                      -- further libpq settings, such as sslmode
}, auth.OPTIONS)

-- What the Python constructor assumes when it is told nothing.
local PYTHON_DEFAULTS = { host = "localhost", port = "5432", dbname = "postgres", user = "postgres" }

-- Ours, where this libpq knows them: no detour by Kerberos, and a dead peer is noticed.
local DEFAULTS = {
  application_name = "fpcache",
  client_encoding = "UTF8",
  gssencmode = "disable",
  keepalives_idle = "30",
  keepalives_interval = "10",
  keepalives_count = "3",
  tcp_user_timeout = "15000", -- milliseconds
}

--- The URL that is used when a caller names no server; the interpreter puts another function here.
---@return string? url
---@return string? err
function connection.default_url()
  local url = os.getenv("FPCACHE_URL")
  return url ~= "" and url or nil -- an empty variable counts as unset
end

local function names_a_server(o)
  return o.connection_string or o.host or o.port or o.database or o.user or o.password or o.libpq
    or auth.names_a_server(o)
end

--- The caller's settings in libpq's words; nil, err for a NUL byte.
local function explicit_settings(o, level)
  local settings = {
    host = o.host, port = o.port and ("%d"):format(o.port), dbname = o.database, user = o.user,
    password = type(o.password) == "string" and o.password ~= "" and o.password or nil,
  }
  for keyword, value in pairs(o.libpq or {}) do
    if type(keyword) ~= "string" or (type(value) ~= "string" and type(value) ~= "number") then
      error("options.libpq: a table of libpq keywords and strings is expected", level + 1)
    end
    settings[keyword] = tostring(value)
  end
  for keyword, value in pairs(settings) do
    if value:find("\0", 1, true) then return nil, ("invalid: %s holds a NUL byte"):format(keyword) end
  end
  if o.connection_string and o.connection_string:find("\0", 1, true) then
    return nil, "invalid: connection_string holds a NUL byte"
  end
  return settings
end

local function copy_missing(to, from)
  for name, value in pairs(from) do
    if to[name] == nil then to[name] = value end
  end
  return to
end

--- Settings for every session.  The timeouts end statements of which nobody waits for the answer any more.  The page cost
-- (usually 4) says that the cache's pages are in memory: a prepared statement keeps its plan, and a plan that was made while
-- the table was small must not be a walk over all of it when it has grown.
--- A pooler would give the settings to others.  So nothing is set where the server is not the process that answered the login,
-- and nothing is sent where a transaction pooler is known to be.
local function session_sql(o)
  if not o.prepared then return nil end
  return ([[
SELECT set_config('lock_timeout', '%d', false), set_config('statement_timeout', '%d', false),
       set_config('random_page_cost', '0.05', false)
WHERE pg_backend_pid() = $backend]]):format(
    math.ceil(o.timeout * 1000), math.ceil(math.max(o.timeout, o.bulk_timeout) * 1000))
end

--- A text that is the same for pools that may stand for each other: Lua states of one host program share them.
local function describe(text, settings, how)
  local parts = { text or "" }
  for _, list in ipairs { settings, how } do
    local names = {}
    for name in pairs(list) do
      if name ~= "token" then names[#names + 1] = name end -- which the core knows by its keeper
    end
    table.sort(names)
    for _, name in ipairs(names) do parts[#parts + 1] = name .. "=" .. tostring(list[name]) end
  end
  return table.concat(parts, "\0")
end

--- The pool, its minimum of connections open.  *found* is where the password comes from, or nil.
local function open_pool(o, text, settings, found)
  local host, user
  if found then
    host, user = not text and PYTHON_DEFAULTS.host or nil, not text and PYTHON_DEFAULTS.user or nil
  end
  if not text then
    -- With a token it is the core that fills in host and user: the token may know better than the defaults.
    copy_missing(settings, found and { port = PYTHON_DEFAULTS.port, dbname = found.database or PYTHON_DEFAULTS.dbname }
      or PYTHON_DEFAULTS)
  end
  local how = {
    min_connections = math.max(o.minconn, 1), max_connections = o.maxconn, connect_timeout = o.connect_timeout,
    idle_timeout = o.idle_timeout, max_lifetime = o.max_lifetime, prepared = o.prepared, session_sql = session_sql(o),
    pipeline_readers = o.pipeline_readers, pipeline_silence = o.pipeline_silence,
    token = found and found.keeper, token_host = host, token_user = user,
  }
  local pool, err = core.pool(text, settings, DEFAULTS, how, describe(text, settings, how))
  if not pool then return nil, err end
  if loop.is_nginx then return pool end -- its pipeline opens connections, and waits for tokens, beside the event loop
  local ok = true
  if found then ok, err = auth.await(found) end
  if ok then ok, err = pool:fill(o.connect_timeout * math.max(o.minconn, 1)) end
  if not ok then
    pool:close()
    return nil, err
  end
  return pool
end

--- Where the password of these options comes from, without a connection: see auth.open().
---@param o table as options.read() gives it for connection.OPTIONS
---@param level integer
---@return fpcache.Auth? auth, string? err
function connection.auth(o, level)
  local settings, err = explicit_settings(o, level + 1)
  if not settings then return nil, err end
  return auth.open(o, o.connection_string, settings)
end

--- A pool by these options; opens minconn connections, at least one, so that a mistake shows at once.
---@param o table as options.read() gives it for connection.OPTIONS
---@param level integer
---@return userdata? pool, string? err
function connection.open(o, level)
  local text, err
  if names_a_server(o) then
    text = o.connection_string
  else
    text, err = connection.default_url()
    if err then return nil, err end
  end
  -- A connection string wins over the single options, which then fill its gaps, as in Python.
  local settings
  settings, err = explicit_settings(o, level + 1)
  if not settings then return nil, err end
  if o.minconn > o.maxconn then
    return nil, ("invalid: minconn (%d) exceeds maxconn (%d)"):format(o.minconn, o.maxconn)
  end
  local found
  found, err = auth.open(o, text, settings)
  if err then return nil, err end
  local pool
  pool, err = open_pool(o, text, settings, found)
  auth.release(found) -- the pool has it now
  return pool, err
end

--- For a tool that looks at a cache: a pool of few connections, and the schema as SQL has it.
---@param o table as options.read() gives it for connection.OPTIONS; its minconn and maxconn are set
---@param connections integer at most
---@param level integer
---@return userdata? pool
---@return string quoted_or_err the quoted schema, or why there is no pool
function connection.open_few(o, connections, level)
  local quoted, err = sql.quote_identifier(o.schema)
  if not quoted then return nil, err end
  o.minconn, o.maxconn = 1, connections
  local pool
  pool, err = connection.open(o, level + 1)
  if not pool then return nil, err end
  return pool, quoted
end

return connection

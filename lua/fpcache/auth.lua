--- Where the password comes from, when it is not simply given: a token of a cloud, a program, a file, a function.
--
-- All become a keeper of the core, which fetches the next password in time; a pool asks it for every new connection.
local core = require("fpcache.core")
local options = require("fpcache.options")

local auth = {}

local FIRST_TOKEN_SECONDS = 30 -- how long fpcache.new waits for the first one: a login at a cloud, a program that asks one
local DATABRICKS_DATABASE = "databricks_postgres"

local function words(value)
  if #value == 0 then return "a list of the program and its arguments is expected" end
  for i = 1, #value do
    if type(value[i]) ~= "string" or value[i]:find("\0", 1, true) then
      return ("a list of texts is expected, element %d is none"):format(i)
    end
  end
end

--- Whether a value can be a source's setting: a text, a number, a boolean, or a list of texts.
local function is_setting(value)
  if type(value) == "table" then
    for i = 1, #value do
      if type(value[i]) ~= "string" then return false end
    end
    return true
  end
  return type(value) == "number" or type(value) == "boolean" or (type(value) == "string" and not value:find("\0", 1, true))
end

local function kind_and_settings(value)
  if type(value) == "string" then return end
  if type(value[1]) ~= "string" then return 'the kind is expected first, such as { "aws", region = "eu-west-1" }' end
  for name, setting in pairs(value) do
    local is_login = value[1] == "databricks" and name == "token" and type(setting) == "function"
    if name ~= 1 and (type(name) ~= "string" or not (is_setting(setting) or is_login)) then
      return ("%s: a text, a number, a boolean or a list of texts is expected"):format(tostring(name))
    end
  end
end

auth.OPTIONS = {
  -- "aws", or { "aws", region = "eu-west-1" }
  auth = { type = "string table", expected = "string or table", check = kind_and_settings },
  password_command = { type = "table", check = words },        -- program and arguments; no shell
  password_file = { type = "string" },                         -- read again for new connections
  instance_name = { type = "string" },                         -- Databricks, provisioned
  endpoint = { type = "string" },                              -- Databricks, autoscaling
  profile = { type = "string" },                               -- of ~/.databrickscfg
  token_provider = { type = "table" },                         -- a fpcache.DatabricksTokenProvider
}

local function from_auth(value)
  if type(value) == "string" then return value, {} end
  local settings = {}
  for name, setting in pairs(value) do
    if name ~= 1 then settings[name] = setting end
  end
  return value[1], settings
end

-- option = function(o) -> kind, settings
local SOURCES = {
  auth = function(o) return from_auth(o.auth) end,
  password_command = function(o) return "password_command", { argv = o.password_command } end,
  password_file = function(o) return "password_file", { path = o.password_file } end,
  instance_name = function(o) return "databricks", { instance_name = o.instance_name, profile = o.profile } end,
  endpoint = function(o) return "databricks", { endpoint = o.endpoint, profile = o.profile } end,
  token_provider = function(o) return o.token_provider end,
  password = function(o) return o.password end,
}

--- Which option names the source; nil, nil when the password is simply given, or none.
local function chosen(o)
  local found = {}
  for name in pairs(SOURCES) do
    local is_given = o[name] ~= nil
    if name == "password" then is_given = o.password ~= nil and o.password ~= "" end
    if is_given then found[#found + 1] = name end
  end
  table.sort(found)
  if #found > 1 then
    return nil, ("invalid: %s and %s each say where the password comes from; give one of them"):format(found[1], found[2])
  end
  local name = found[1]
  if o.profile and name ~= "instance_name" and name ~= "endpoint" then
    return nil, "invalid: profile belongs to instance_name or endpoint"
  end
  if name == "password" and type(o.password) == "string" then return nil end
  return name
end

--- Whether the source says itself where the database is.
---@param o table
---@return boolean
function auth.names_a_server(o)
  local kind = type(o.auth) == "table" and o.auth[1] or o.auth
  return o.instance_name ~= nil or o.endpoint ~= nil or o.token_provider ~= nil or kind == "databricks"
end

--- What the source wants to know of the connection.
local function add_server(kind, settings, server)
  if core.token_kind_is_of_server(kind) then
    for _, name in ipairs({ "host", "port", "user" }) do
      if settings[name] == nil then settings[name] = server[name] end
    end
  elseif kind == "databricks" then -- what is known need not be asked for
    if settings.database_host == nil then settings.database_host = server.host end
    if settings.database_user == nil then settings.database_user = server.user end
  end
end

--- A password function that mints at Databricks with the workspace's token, which the caller's function gives.  So all of it
-- happens on the caller's own thread.
local function with_login(settings)
  local login = settings.token
  return function()
    local token, err = login()
    if type(token) ~= "string" then return nil, err or "the function for the workspace's token returned none" end
    settings.token = token
    local source
    source, err = core.token_source("databricks", settings)
    settings.token = nil
    if not source then return nil, err end
    local minted
    minted, err = source:fetch(FIRST_TOKEN_SECONDS)
    source:close()
    if not minted then return nil, err end
    return { password = minted.password, expires_in = minted.valid_for, host = minted.host, user = minted.user }
  end
end

---@class fpcache.Auth
---@field keeper userdata
---@field is_borrowed boolean? it is somebody else's
---@field database string? the database where the caller named none

--- The keeper that these options ask for; nil, nil when they ask for none.
---@param o table
---@param text string? connection_string
---@param given table<string, string> single settings in libpq's words
---@return fpcache.Auth? auth
---@return string? err
function auth.open(o, text, given)
  local name, err = chosen(o)
  if not name then return nil, err end
  local kind, settings = SOURCES[name](o)
  if type(kind) == "table" then
    if not kind.keeper then return nil, "invalid: token_provider: a fpcache.DatabricksTokenProvider is expected" end
    return { keeper = kind.keeper, is_borrowed = true, database = DATABRICKS_DATABASE }
  end
  local keeper
  if type(kind) == "function" then
    keeper, err = core.token_keeper(kind)
  else
    local server
    server, err = core.server_of(text, given)
    if not server then return nil, err end
    add_server(kind, settings, server)
    if type(settings.token) == "function" then
      keeper, err = core.token_keeper(with_login(settings))
    else
      keeper, err = core.token_keeper(kind, settings)
    end
  end
  if not keeper then return nil, err end
  return { keeper = keeper, database = kind == "databricks" and DATABRICKS_DATABASE or nil }
end

--- Waits for the first password, longer than for a connection: it may need a login elsewhere.
---@return boolean? ok, string? err
function auth.await(found)
  return found.keeper:wait(FIRST_TOKEN_SECONDS)
end

--- Lets go of the keeper, unless it is a provider's; a pool that uses it keeps it.
function auth.release(found)
  if found and not found.is_borrowed then found.keeper:close() end
end

-- DatabricksTokenProvider ---------------------------------------------------------------------------------------------

local Provider = {}
Provider.__index = Provider

local PROVIDER_OPTIONS = {
  instance_names = { type = "table", check = words },
  endpoint = { type = "string" },
  profile = { type = "string" },
  refresh_interval = { type = "duration", default = 3600, check = options.positive }, -- seconds
  auto_refresh = { type = "boolean", default = true },
  auth = { type = "table" }, -- further settings of the kind "databricks"
}

--- Passwords for a Databricks database, as the Python library's class of this name gives them.
--
-- Tokens are renewed in time in any case, by their own end; `refresh_interval` and `auto_refresh` are accepted for the
-- Python library's sake and change nothing.
---@param opts table { instance_names: string[]?, endpoint: string?, profile: string?, refresh_interval: number?,
-- auto_refresh: boolean?, auth: table? }
---@return fpcache.DatabricksTokenProvider? provider
---@return string? err
function auth.DatabricksTokenProvider(opts)
  local o = options.read(PROVIDER_OPTIONS, opts, 2)
  local settings = { instance_names = o.instance_names, endpoint = o.endpoint, profile = o.profile }
  for name, value in pairs(o.auth or {}) do
    if type(name) ~= "string" or not is_setting(value) then
      error(("options.auth.%s: a text, a number, a boolean or a list of texts is expected"):format(tostring(name)), 2)
    end
    settings[name] = value
  end
  local keeper, err = core.token_keeper("databricks", settings)
  if not keeper then return nil, err end
  return setmetatable({ keeper = keeper }, Provider)
end

--- The password for a new connection; fetched only when the last one is near its end.
---@param timeout number? seconds, default 30
---@return string? token, string? err
function Provider:get_token(timeout)
  local token, err = self.keeper:get(timeout or FIRST_TOKEN_SECONDS)
  if not token then return nil, err end
  return token
end

--- Fetches a new one now.
---@param timeout number? seconds, default 30
---@return string? token, string? err
function Provider:refresh_token(timeout)
  local ok, err = self.keeper:refresh(timeout or FIRST_TOKEN_SECONDS)
  if not ok then return nil, err end
  return self:get_token(timeout)
end

--- Source, generation, expires_in, refreshes, failures, refusals, last_error; never the token.
---@return table stats
function Provider:stats()
  return self.keeper:stats()
end

--- Ends the refreshing, unless a cache that is open uses it.  Repeatable.
function Provider:stop()
  self.keeper:close()
end

Provider.__close = Provider.stop

return auth

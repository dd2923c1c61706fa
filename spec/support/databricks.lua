-- databricks.lua -- a token source of kind "databricks" that asks the stand-in workspace, in an environment
-- where nothing else of Databricks is set.
local core = require "fpcache.core"
local system = core.system

local VARIABLES = { "DATABRICKS_CONFIG_PROFILE", "DATABRICKS_CONFIG_FILE", "DATABRICKS_HOST", "DATABRICKS_ACCOUNT_ID",
  "DATABRICKS_WORKSPACE_ID", "DATABRICKS_AUTH_TYPE", "DATABRICKS_TOKEN", "DATABRICKS_CLIENT_ID",
  "DATABRICKS_CLIENT_SECRET", "DATABRICKS_DISCOVERY_URL", "DATABRICKS_OIDC_TOKEN_ENV", "DATABRICKS_OIDC_TOKEN",
  "DATABRICKS_OIDC_TOKEN_FILEPATH", "DATABRICKS_OIDC_TOKEN_FILE", "DATABRICKS_TOKEN_AUDIENCE", "DATABRICKS_CLI_PATH",
  "DATABRICKS_METADATA_SERVICE_URL", "ARM_CLIENT_ID", "ARM_CLIENT_SECRET", "ARM_TENANT_ID",
  "DATABRICKS_AZURE_RESOURCE_ID", "LAKEBASE_ENDPOINT", "PGUSER", "AZURE_AUTHORITY_HOST", "HOME", "PATH",
  "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "IS_IN_DB_MODEL_SERVING_ENV",
  "DATABRICKS_MODEL_SERVING_HOST_URL", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR", "MY_OIDC_TOKEN", "PGSSLROOTCERT",
  "PGPASSWORD", "PGPASSFILE", "https_proxy", "http_proxy", "all_proxy", "no_proxy", "NETRC" }

local databricks = {}

--- Runs `f` with these environment variables, and none else of VARIABLES but PATH.
function databricks.with(variables, f)
  local before = {}
  for _, name in ipairs(VARIABLES) do
    before[name] = system.getenv(name)
    if name ~= "PATH" then system.setenv(name, nil) end
  end
  for name, value in pairs(variables) do system.setenv(name, value) end
  local results = { pcall(f) }
  for _, name in ipairs(VARIABLES) do system.setenv(name, before[name]) end
  if not results[1] then error(results[2], 0) end
  return (unpack or table.unpack)(results, 2, 4) -- luacheck: ignore
end

--- A source of the workspace's instance "cache", with its CA; or nil, err.
function databricks.source(ws, settings)
  local all = { ca_file = ws.ca_file }
  if not (settings.endpoint or settings.instance_names) then all.instance_name = "cache" end
  for name, value in pairs(settings) do
    all[name] = value or nil -- false: not even the default
  end
  return core.token_source("databricks", all)
end

--- Makes a source in that environment, fetches once, and gives the token; or nil, err, {permanent, retry_after}.
function databricks.fetch(ws, settings, variables)
  return databricks.with(variables or {}, function()
    local source, err = databricks.source(ws, settings)
    if not source then return nil, err end
    local token, why, how = source:fetch(20)
    source:close()
    return token, why, how
  end)
end

--- Writes a file and returns its path.
function databricks.file(ws, name, text)
  local path = ws.dir .. "/" .. name
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

return databricks

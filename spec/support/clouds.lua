-- clouds.lua -- what the specs of the cloud sources share: sources made in a given environment, and the check
-- that no error says a secret.
local core = require "fpcache.core"
local system = core.system

local clouds = {}

-- Whatever this machine has set must not matter.
local VARIABLES = { "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CREDENTIAL_EXPIRATION",
  "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CONFIG_FILE",
  "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME",
  "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
  "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_EC2_METADATA_DISABLED",
  "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "AWS_ENDPOINT_URL_STS",
  "AWS_ENDPOINT_URL", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AZURE_CLIENT_ID", "AZURE_TENANT_ID",
  "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER",
  "AZURE_POD_IDENTITY_AUTHORITY_HOST", "GCE_METADATA_HOST" }

--- Calls `make` with these variables of the environment and no others of a cloud's.  What a source keeps of
--- them it copies when it is made.
---@param environment table<string, string>
---@param make function
---@return any? result
---@return string? err
function clouds.within(environment, make, ...)
  for name in pairs(environment) do assert(name == "HOME" or clouds.knows(name), name) end
  local before, home = {}, os.getenv("HOME")
  for _, name in ipairs(VARIABLES) do
    before[name] = os.getenv(name)
    assert(system.setenv(name, environment[name]))
  end
  assert(system.setenv("HOME", environment.HOME or "/nonexistent"))
  local ok, result, err = pcall(make, ...)
  for _, name in ipairs(VARIABLES) do assert(system.setenv(name, before[name])) end
  assert(system.setenv("HOME", home))
  if not ok then error(result, 0) end
  return result, err
end

--- A source made in this environment.
---@param kind string
---@param settings table
---@param environment table<string, string>
---@return userdata? source
---@return string? err
function clouds.source(kind, settings, environment)
  return clouds.within(environment, core.token_source, kind, settings)
end

local Desk = {}
Desk.__index = Desk

--- What a spec of sources works with: a folder for files, and sources that tidy() closes.
---@return table desk with dir
function clouds.desk()
  return setmetatable({ dir = assert(system.mkdtemp("/tmp/fpcache-clouds-")), sources = {} }, Desk)
end

--- Writes a file and returns its path.
function Desk:write(name, text)
  local file = assert(io.open(self.dir .. "/" .. name, "w"))
  file:write(text)
  file:close()
  return self.dir .. "/" .. name
end

--- A source as from clouds.source().
function Desk:make(kind, settings, environment)
  local source, err = clouds.source(kind, settings or {}, environment)
  self.sources[#self.sources + 1] = source
  return source, err
end

--- Makes one and fetches from it.
function Desk:fetch(kind, settings, environment)
  return assert(self:make(kind, settings, environment)):fetch(10)
end

--- The same where it must fail: the error, in which there is none of the secrets, and whether it stays.
---@return string err
---@return {permanent: boolean, retry_after: number} why
function Desk:refused(secrets, kind, settings, environment)
  local token, err, why = self:fetch(kind, settings, environment)
  if token then error("a token was given", 2) end
  clouds.has_no_secret(err, secrets)
  return err, why
end

function Desk:tidy()
  for _, source in ipairs(self.sources) do source:close() end
  self.sources = {}
end

function Desk:remove()
  assert(system.remove_tree(self.dir))
end

function clouds.knows(name)
  for _, one in ipairs(VARIABLES) do
    if one == name then return true end
  end
  return false
end

--- Fails when `text` holds one of the secrets.
function clouds.has_no_secret(text, secrets)
  for _, secret in ipairs(secrets) do
    if text:find(secret, 1, true) then error("a secret is in: " .. text:gsub(secret:gsub("%p", "%%%0"), "SECRET"), 2) end
  end
end

return clouds

-- clouds.lua -- what stands in for the identity services of AWS, Azure and Google, on the plain port of the
-- stand-in workspace: metadata services, a container's endpoint, STS and Entra.  control.clouds steers it.
local cjson = require "cjson"
local http = require "http"
local tokens = require "tokens"

local clouds = {}

local function json(value, headers)
  return { status = 200, type = "application/json", headers = headers, body = cjson.encode(value) }
end

local function refuse(status, code, message)
  return { status = status, type = "application/json", body = cjson.encode { error = code, error_description = message } }
end

local function time_of(at)
  return os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(at))
end

-- --- AWS ---

local function keys(server, session_name)
  local given = server.control.clouds.keys
  local ends = given.life and server.now() + given.life
  return { Code = "Success", Type = "AWS-HMAC", AccessKeyId = given.id, SecretAccessKey = given.secret,
    [session_name] = given.session, Expiration = ends and time_of(ends) or nil }
end

local function container(server, request)
  if request.headers.authorization ~= server.control.clouds.container_secret then
    return refuse(403, "AccessDenied", "not with " .. tostring(request.headers.authorization))
  end
  return json(keys(server, "Token"))
end

local METADATA_TOKEN = "imds-token-0123456789=="
local ROLES = "/latest/meta-data/iam/security-credentials/"

local function instance(server, request)
  if request.path == "/latest/api/token" then
    if request.method ~= "PUT" or request.headers["x-aws-ec2-metadata-token-ttl-seconds"] ~= "21600" then
      return refuse(400, "BadRequest", "")
    end
    return { status = 200, type = "text/plain", body = METADATA_TOKEN }
  end
  if request.method ~= "GET" or request.headers["x-aws-ec2-metadata-token"] ~= METADATA_TOKEN then
    return refuse(401, "Unauthorized", "")
  end
  local role = server.control.clouds.role
  if request.path == ROLES and role then return { status = 200, type = "text/plain", body = role .. "\n" } end
  if role and request.path == ROLES .. role then return json(keys(server, "Token")) end
  return refuse(404, "NotFound", "")
end

local function sts_error(status, code, message)
  return { status = status, type = "text/xml", body = ("<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code>"
    .. "<Message>%s</Message></Error></ErrorResponse>"):format(code, message) }
end

local function sts(server, request)
  local form = http.form(request.body)
  local action = form.Action
  if form.Version ~= "2011-06-15" or not form.RoleArn or not form.RoleSessionName then
    return sts_error(400, "ValidationError", "the form is not complete")
  elseif action == "AssumeRoleWithWebIdentity" then
    if form.WebIdentityToken ~= server.control.subject_token then
      return sts_error(400, "InvalidIdentityToken", "The token " .. tostring(form.WebIdentityToken) .. " is not known")
    end
  elseif action ~= "AssumeRole" or not (request.headers.authorization or ""):find("^AWS4%-HMAC%-SHA256 ") then
    return sts_error(403, "AccessDenied", "no signature")
  end
  local made = keys(server, "SessionToken")
  if server.control.clouds.sts_json then
    made.Expiration = server.now() + (server.control.clouds.keys.life or 3600)
    return json { [action .. "Response"] = { [action .. "Result"] = { Credentials = made } } }
  end
  return { status = 200, type = "text/xml", body = ("<%sResponse><%sResult><Credentials><AccessKeyId>%s</AccessKeyId>"
    .. "<SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>"
    .. "</%sResult></%sResponse>"):format(action, action, made.AccessKeyId, made.SecretAccessKey, made.SessionToken,
    made.Expiration, action, action) }
end

-- --- Azure and Google ---

--- A token that a real role has as its password from now on.
local function mint(server)
  local life = server.control.credential_life
  local ends = server.now() + life
  local token = tokens.new("cloud", ends)
  server.issued(token)
  local ok, why = server.rotate(token, ends)
  if not ok then return nil, refuse(500, "internal", why) end
  return token, life, ends
end

local function azure_managed(server, request)
  local query = request.query
  local asked_well = request.path == "/msi/token"
    and query["api-version"] == "2019-08-01" and request.headers["x-identity-header"] == server.control.clouds.identity_header
    or request.path ~= "/msi/token" and query["api-version"] == "2018-02-01" and request.headers.metadata == "true"
  if not asked_well or query.resource ~= "https://ossrdbms-aad.database.windows.net" then
    return refuse(400, "invalid_request", "header " .. tostring(request.headers["x-identity-header"]))
  end
  local token, life, ends = mint(server)
  if not token then return life end
  -- expires_in counts from when the token was made: a service that kept it says more than is left
  return json { access_token = token, expires_in = tostring(life + 1000), token_type = "Bearer",
    expires_on = tostring(math.floor(ends)), resource = query.resource, client_id = query.client_id }
end

local function entra(server, request)
  local form = http.form(request.body)
  if form.client_assertion ~= server.control.subject_token
    or form.client_assertion_type ~= "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    or form.grant_type ~= "client_credentials" or form.scope ~= "https://ossrdbms-aad.database.windows.net/.default" then
    return refuse(401, "invalid_client", "AADSTS700211: no match for the assertion " .. tostring(form.client_assertion))
  end
  local token, life = mint(server)
  if not token then return life end
  return json { access_token = token, token_type = "Bearer", expires_in = life, ext_expires_in = life }
end

local GOOGLE = "/computeMetadata/v1/instance/service-accounts/default/"

local function google(server, request)
  local headers = { ["Metadata-Flavor"] = server.control.clouds.flavor }
  if request.headers["metadata-flavor"] ~= "Google" then return refuse(403, "Forbidden", "") end
  if request.path == GOOGLE .. "email" then
    return { status = 200, type = "application/text", headers = headers, body = server.control.clouds.email }
  elseif request.path == GOOGLE .. "token" and request.query.scopes == "https://www.googleapis.com/auth/sqlservice.login" then
    local token, life = mint(server)
    if not token then return life end
    return json({ access_token = token, expires_in = life, token_type = "Bearer" }, headers)
  end
  return refuse(404, "NotFound", "")
end

--- The answer to a request, or nil when it is not for a cloud.
function clouds.answer(server, request)
  local path = request.path
  if path == "/ecs" then return container(server, request) end
  if path:find("^/latest/") then return instance(server, request) end
  if path == "/" and request.method == "POST" then return sts(server, request) end
  if path == "/metadata/identity/oauth2/token" or path == "/msi/token" then return azure_managed(server, request) end
  if path:find("^/[^/]+/oauth2/v2%.0/token$") then return entra(server, request) end
  if path:find("^/computeMetadata/") then return google(server, request) end
end

return clouds

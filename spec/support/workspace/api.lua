-- api.lua -- what the stand-in workspace answers: OAuth, both credential APIs, look-ups, and the identity
-- services around a workspace.  A request in, an answer {status, headers, body, type} out.
local cjson = require "cjson"
local clouds = require "clouds"
local http = require "http"
local tokens = require "tokens"

local api = {}

local function json(value, status, headers)
  return { status = status or 200, type = "application/json", headers = headers, body = cjson.encode(value) }
end

local function refuse(status, code, message)
  return json({ error_code = code, message = message }, status)
end

-- base64 of an Authorization header
local function unbase64(text)
  local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local bits, count, out = 0, 0, {}
  for char in text:gmatch("[%w+/]") do
    bits, count = (bits << 6) | (alphabet:find(char, 1, true) - 1), count + 6
    if count >= 8 then
      count = count - 8
      out[#out + 1] = string.char((bits >> count) & 255)
    end
  end
  return table.concat(out)
end

local function timestamp(server, at)
  local whole = math.floor(at)
  local style = server.control.time_style
  if style == "none" then return nil end
  if style == "odd" then return "next tuesday" end
  if style == "offset" then return os.date("!%Y-%m-%dT%H:%M:%S", whole + 5400) .. ".123456789+01:30" end
  return os.date("!%Y-%m-%dT%H:%M:%S", whole) .. (style == "whole" and "Z" or (".%03dZ"):format((at - whole) * 1000 // 1))
end

--- A new workspace token; it is known until its end.
local function workspace_token(server, subject)
  local life = server.control.token_life
  local token = tokens.new(subject, server.now() + life)
  server.workspace_tokens[token] = server.now() + life
  server.issued(token)
  return { access_token = token, token_type = "Bearer", expires_in = life }
end

local function is_logged_in(server, request)
  local token = (request.headers.authorization or ""):match("^Bearer (.+)$")
  local good_until = token and server.workspace_tokens[token]
  if token and server.control.pats[token] then return true end
  return good_until and good_until > server.now()
end

local function token_endpoint(server, request)
  local form = http.form(request.body)
  if form.grant_type == "client_credentials" then
    local user, password = unbase64((request.headers.authorization or ""):match("^Basic (.+)$") or ""):match("^(.-):(.*)$")
    if not user or server.control.clients[user] ~= password then
      return json({ error = "invalid_client", error_description = "no such client as " .. tostring(user) }, 401)
    end
    return json(workspace_token(server, user))
  elseif form.grant_type == "urn:ietf:params:oauth:grant-type:token-exchange" then
    if form.subject_token ~= server.control.subject_token
      or form.subject_token_type ~= "urn:ietf:params:oauth:token-type:jwt" or form.scope ~= "all-apis" then
      return json({ error = "invalid_grant", error_description = "the token " .. tostring(form.subject_token)
        .. " is not from a known issuer" }, 400)
    end
    return json(workspace_token(server, form.client_id or "federated"))
  end
  return json({ error = "unsupported_grant_type" }, 400)
end

-- Azure's login: a token for the workspace, or for the management plane.
local function azure_token(server, request)
  local form = http.form(request.body)
  if server.control.clients[form.client_id] ~= form.client_secret or form.client_secret == nil then
    return json({ error = "invalid_client", error_description = "AADSTS7000215: Invalid client secret provided" }, 401)
  end
  local answer = workspace_token(server, form.client_id)
  answer.expires_in = tostring(answer.expires_in)
  return json(answer)
end

local function mint(server, field)
  local life = server.control.credential_life
  local ends = server.now() + life
  local token = tokens.new("lake", ends)
  server.issued(token)
  local ok, why = server.rotate(token, ends)
  if not ok then return refuse(500, "INTERNAL_ERROR", why) end
  return json { token = token, [field] = timestamp(server, ends) }
end

local API = {
  ["POST /api/2.0/database/credentials"] = function(server, request)
    local ok, body = pcall(cjson.decode, request.body)
    local names = ok and type(body) == "table" and body.instance_names
    if type(names) ~= "table" or #names == 0 then
      return refuse(400, "INVALID_PARAMETER_VALUE", "instance_names or claims is needed")
    end
    if not tostring(body.request_id):match("^%x+%-%x+%-4%x+%-[89ab]%x+%-%x+$") then
      return refuse(400, "INVALID_PARAMETER_VALUE", "request_id is no UUID")
    end
    for _, name in ipairs(names) do
      if not server.control.instances[name] then
        return refuse(404, "RESOURCE_DOES_NOT_EXIST", "Database instance " .. name .. " does not exist")
      end
    end
    return mint(server, "expiration_time")
  end,
  ["POST /api/2.0/postgres/credentials"] = function(server, request)
    local ok, body = pcall(cjson.decode, request.body)
    local endpoint = ok and type(body) == "table" and body.endpoint
    if not server.control.endpoints[endpoint or ""] then
      return refuse(404, "NOT_FOUND", "endpoint " .. tostring(endpoint) .. " does not exist")
    end
    return mint(server, "expire_time")
  end,
  ["GET /api/2.0/preview/scim/v2/Me"] = function(server)
    return json({ userName = server.control.user, id = "1" }, 200, { ["X-Databricks-Org-Id"] = "4711" })
  end,
}

local function instance(server, request)
  local name = request.path:match("^/api/2%.0/database/instances/(.+)$")
  local found = server.control.instances[name]
  if not found then return refuse(404, "RESOURCE_DOES_NOT_EXIST", "Database instance " .. name .. " does not exist") end
  return json { name = "", read_write_dns = found.host, state = found.state or "AVAILABLE", pg_version = "PG_VERSION_16" }
end

local function endpoint_json(name, found)
  return { name = name, status = { endpoint_type = found.type or "ENDPOINT_TYPE_READ_WRITE",
    current_state = found.state or "ACTIVE", disabled = found.disabled,
    hosts = { host = found.host, read_write_pooled_host = "pooled." .. found.host } } }
end

local function endpoints(server, request)
  local name = request.path:match("^/api/2%.0/postgres/(.+)$")
  local found = server.control.endpoints[name]
  if found then return json(endpoint_json(name, found)) end
  local branch = name:match("^(projects/[^/]+/branches/[^/]+)/endpoints$")
  if not branch then return refuse(404, "NOT_FOUND", name .. " does not exist") end
  local list = {}
  for each, one in pairs(server.control.endpoints) do
    if each:sub(1, #branch) == branch then list[#list + 1] = endpoint_json(each, one) end
  end
  return json { endpoints = list }
end

-- The identity services that stand beside a workspace.
local function beside(server, request)
  local path, headers = request.path, request.headers
  if path:match("^/oidc/.*%.well%-known/oauth%-authorization%-server$") or path == "/discovery" then
    local account = path:match("^/oidc/accounts/([^/]+)/")
    return json { issuer = server.url .. "/oidc",
      token_endpoint = server.url .. (account and "/oidc/accounts/" .. account or "/oidc") .. "/v1/token" }
  elseif request.method == "POST" and path:match("^/oidc/.*v1/token$") then
    return token_endpoint(server, request)
  elseif request.method == "POST" and path:match("^/[^/]+/oauth2/token$") then
    return azure_token(server, request)
  elseif path == "/aad/auth" then
    return { status = 302, headers = { Location = "https://login.microsoftonline.com/tenant-9/oauth2/authorize?x=1" } }
  elseif path == "/github" then
    if headers.authorization ~= "Bearer " .. server.control.github_token then return refuse(401, "UNAUTHENTICATED", "no") end
    server.audience = request.query.audience
    return json { value = server.control.subject_token }
  elseif path == "/metadata" then
    if headers["x-databricks-metadata-version"] ~= "1" or not headers["x-databricks-host"] then
      return refuse(400, "INVALID_PARAMETER_VALUE", "wrong version or host")
    end
    local answer = workspace_token(server, "metadata")
    return json { access_token = answer.access_token, token_type = "Bearer",
      expires_on = math.floor(server.now() + answer.expires_in) }
  end
end

--- The answer to a request.
function api.answer(server, request)
  local answer = clouds.answer(server, request) or beside(server, request)
  if answer then return answer end
  if not request.path:match("^/api/") then
    return { status = 303, headers = { Location = "/login.html?next=x" } }
  end
  if not is_logged_in(server, request) then
    return refuse(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API: "
      .. tostring(request.headers.authorization))
  end
  local known = API[request.method .. " " .. request.path]
  if known then return known(server, request) end
  if request.path:match("^/api/2%.0/database/instances/.") then return instance(server, request) end
  if request.path:match("^/api/2%.0/postgres/projects/.") then return endpoints(server, request) end
  return refuse(404, "ENDPOINT_NOT_FOUND", "No API found for " .. request.method .. " " .. request.path)
end

return api

-- databricks_login_spec.lua -- every login to a workspace, through the real source over real TLS.
local cjson = require "cjson"
local core = require "fpcache.core"
local databricks = require "support.databricks"
local workspace = require "support.workspace"
local system = core.system

local CLIENT = { client_id = workspace.CLIENT_ID, client_secret = workspace.CLIENT_SECRET }

describe("a login to the workspace", function()
  local ws

  lazy_setup(function() ws = workspace.start() end)
  lazy_teardown(function() ws:stop() end)
  before_each(function() ws:reset() end)

  -- No error text may hold a secret, whatever it is about.
  local function clean(text)
    for _, secret in ipairs(ws:secrets()) do
      assert.is_nil(tostring(text):find(secret, 1, true), "a secret is in: " .. tostring(text))
    end
    return text
  end

  local function fetch(settings, variables)
    local token, err, how = databricks.fetch(ws, settings, variables)
    clean(err)
    return token, err, how
  end

  local function succeeds(settings, variables, user)
    if settings.host == nil then settings.host = ws.url end
    local token = assert(fetch(settings, variables))
    assert.equal("instance-1.database.example.com", token.host)
    assert.equal(user or "ann@example.com", token.user)
    assert.is_true(token.valid_for > 3590 and token.valid_for <= 3602, token.valid_for)
    return token
  end

  local function last_request(what)
    local requests = ws:report().requests
    for i = #requests, 1, -1 do
      if requests[i].method .. " " .. requests[i].path == what then return requests[i] end
    end
  end

  it("by pat", function()
    succeeds { token = workspace.PAT }
    succeeds({}, { DATABRICKS_TOKEN = workspace.PAT })
    local request = last_request "GET /api/2.0/preview/scim/v2/Me"
    assert.matches("^fpcache/[%d.]+ os/linux auth/pat$", request.headers["user-agent"])
    assert.is_nil(request.headers["x-databricks-workspace-id"])
  end)

  it("by oauth-m2m, whose client is the user", function()
    local before = ws:count "GET /api/2.0/preview/scim/v2/Me"
    succeeds(CLIENT, {}, workspace.CLIENT_ID)
    succeeds({}, { DATABRICKS_CLIENT_ID = workspace.CLIENT_ID, DATABRICKS_CLIENT_SECRET = workspace.CLIENT_SECRET },
      workspace.CLIENT_ID)
    assert.equal(before, ws:count "GET /api/2.0/preview/scim/v2/Me")
  end)

  it("by oauth-m2m when the discovery fails, and by a discovery_url", function()
    ws:fault { path = "well%-known", status = 404, body = "no" }
    succeeds(CLIENT, {}, workspace.CLIENT_ID)
    succeeds({ client_id = CLIENT.client_id, client_secret = CLIENT.client_secret, discovery_url = ws.url .. "/discovery" },
      {}, workspace.CLIENT_ID)
    ws:fault { path = "GET /discovery", status = 404 }
    local _, err = fetch { host = ws.url, client_id = CLIENT.client_id, client_secret = CLIENT.client_secret,
      discovery_url = ws.url .. "/discovery" }
    assert.matches("login oauth%-m2m: discovery_url answered 404 without a token_endpoint", err)
  end)

  it("sends no secret to an endpoint without TLS", function()
    ws:fault { path = "well%-known", status = 200, body = cjson.encode { token_endpoint = ws.plain_url .. "/oidc/v1/token" } }
    succeeds(CLIENT, {}, workspace.CLIENT_ID)
    assert.is_nil((last_request "POST /oidc/v1/token").headers.host:find(tostring(ws.plain_port), 1, true))
  end)

  it("by databricks-cli", function()
    local program = ([[
      [ "$1 $2" = "auth token" ] || exit 9
      echo "a warning" >&2
      echo '{"access_token": "%s", "token_type": "Bearer", "expiry": "2099-01-01T00:00:00.123456789+02:00"}'
      echo "$3 $4" >%s/cli.args]]):format(workspace.PAT, ws.dir)
    local folder = ws:cli(program)
    local path = folder .. ":" .. system.getenv "PATH"
    succeeds({}, { PATH = path })
    assert.equal("--host " .. ws.url .. "\n", ws:read "cli.args")
    succeeds({ databricks_cli_path = folder .. "/databricks", profile = "mine",
      config_file = databricks.file(ws, "cfg", "[mine]\nhost = " .. ws.url .. "\nauth_type = databricks-cli\n") })
    assert.equal("--profile mine\n", ws:read "cli.args")
  end)

  it("passes over an old databricks program, unless told how small it may be", function()
    local program = ("echo '{\"access_token\": \"%s\"}'"):format(workspace.PAT)
    local folder = ws:cli(program, 1000)
    local _, err = fetch({ host = ws.url }, { PATH = folder .. ":/usr/bin:/bin" })
    assert.matches("databricks%-cli: only the old CLI in PATH", err)
    succeeds({ databricks_cli_min_bytes = 0 }, { PATH = folder .. ":/usr/bin:/bin" })
  end)

  it("tells what the databricks program complains about", function()
    local folder = ws:cli "echo 'Error: cannot get access token: a new login is needed' >&2; exit 1"
    local _, err, how = fetch({ host = ws.url }, { PATH = folder })
    assert.matches("login databricks%-cli: the program failed: Error: cannot get access token", err)
    assert.is_true(how.permanent)
    folder = ws:cli("echo 'Error: databricks OAuth is not configured for this host' >&2; exit 1")
    _, err = fetch({ host = ws.url }, { PATH = folder })
    assert.matches("no login to the workspace applies: .*databricks%-cli: not logged in to this host", err)
    folder = ws:cli "echo nonsense"
    _, err, how = fetch({ host = ws.url }, { PATH = folder })
    assert.matches("gave no access_token", err)
    assert.is_false(how.permanent)
  end)

  it("by env-oidc and file-oidc, the file read each time", function()
    succeeds({}, { DATABRICKS_OIDC_TOKEN = workspace.SUBJECT_TOKEN })
    assert.is_nil((last_request "POST /oidc/v1/token").headers.authorization)
    succeeds({ client_id = "some-client" }, { DATABRICKS_OIDC_TOKEN_ENV = "MY_OIDC_TOKEN",
      MY_OIDC_TOKEN = workspace.SUBJECT_TOKEN }, "some-client")
    assert.matches("client_id=some%-client", (last_request "POST /oidc/v1/token").body)
    local path = databricks.file(ws, "oidc", "an old one")
    databricks.with({}, function()
      local source = assert(databricks.source(ws, { host = ws.url, oidc_token_filepath = path }))
      local _, err, how = source:fetch(20)
      assert.matches("^invalid: databricks: login file%-oidc: the workspace's token endpoint answered 400 invalid_grant", err)
      assert.is_true(how.permanent)
      databricks.file(ws, "oidc", "  " .. workspace.SUBJECT_TOKEN .. "\n")
      assert(source:fetch(20))
      source:close()
    end)
  end)

  it("by github-oidc", function()
    local job = { ACTIONS_ID_TOKEN_REQUEST_URL = ws.url .. "/github?v=1",
      ACTIONS_ID_TOKEN_REQUEST_TOKEN = workspace.GITHUB_TOKEN }
    succeeds({}, job)
    assert.equal(ws.url .. "/oidc/v1/token", (last_request "GET /github").query.audience)
    succeeds({ token_audience = "my audience" }, job)
    assert.equal("my audience", (last_request "GET /github").query.audience)
  end)

  it("by metadata-service, which must be on this machine", function()
    succeeds({}, { DATABRICKS_METADATA_SERVICE_URL = ws.plain_url .. "/metadata" })
    assert.equal(ws.url, (last_request "GET /metadata").headers["x-databricks-host"])
    local _, err = fetch { host = ws.url, metadata_service_url = "http://192.0.2.1/metadata" }
    assert.matches("metadata_service_url is not on this machine", err)
    _, err = fetch { host = ws.url, metadata_service_url = "http://127.0.0.1:1/metadata" }
    assert.matches("left over from an old terminal", err)
  end)

  it("by the file of model serving", function()
    local path = databricks.file(ws, "serving", cjson.encode { OAUTH_TOKEN = { { oauthTokenValue = workspace.PAT } } })
    succeeds({ host = false, model_serving_file = path },
      { IS_IN_DB_MODEL_SERVING_ENV = "true", DATABRICKS_MODEL_SERVING_HOST_URL = ws.url })
    databricks.file(ws, "serving", "{}")
    local _, err = fetch({ model_serving_file = path },
      { IS_IN_DB_MODEL_SERVING_ENV = "true", DATABRICKS_MODEL_SERVING_HOST_URL = ws.url })
    assert.matches("login model%-serving: .*/serving has no OAUTH_TOKEN%[0%]%.oauthTokenValue", err)
  end)

  it("by a service principal of Azure", function()
    local azure = { azure_client_id = workspace.CLIENT_ID, azure_client_secret = workspace.CLIENT_SECRET,
      azure_authority_host = ws.url .. "/", azure_workspace_resource_id = "/subscriptions/s" }
    succeeds(azure)
    local request = last_request "POST /api/2.0/database/credentials"
    assert.is_string(request.headers["x-databricks-azure-sp-management-token"])
    assert.equal("/subscriptions/s", request.headers["x-databricks-azure-workspace-resource-id"])
    assert.is_table(last_request "POST /tenant-9/oauth2/token")
    azure.azure_tenant_id, azure.azure_client_secret = "given", "wrong"
    local _, err = fetch(azure)
    assert.matches("login azure%-client%-secret: Entra answered 401 invalid_client: AADSTS7000215", err)
  end)

  it("takes the first that applies, or the one of auth_type", function()
    succeeds({ token = workspace.PAT, auth_type = "pat" }, { DATABRICKS_OIDC_TOKEN = "wrong" })
    local _, err = fetch({ host = ws.url, token = workspace.PAT, auth_type = "oauth-m2m" })
    assert.equal("invalid: databricks: no login to the workspace applies: oauth-m2m: no client_id", err)
    _, err = fetch { host = ws.url, token = workspace.PAT, auth_type = "basic" }
    assert.matches("^invalid: auth databricks: auth_type \"basic\" is not one of: pat, oauth%-m2m, .*databricks%-cli$", err)
  end)

  it("says of every login why it does not apply", function()
    local _, err, how = fetch({ host = ws.url }, { PATH = "/nowhere" })
    assert.equal("invalid: databricks: no login to the workspace applies: pat: no token; oauth-m2m: no client_id; "
      .. "env-oidc: DATABRICKS_OIDC_TOKEN is not set; file-oidc: no oidc_token_filepath; "
      .. "github-oidc: ACTIONS_ID_TOKEN_REQUEST_URL is not set; azure-client-secret: no azure_client_id; "
      .. "metadata-service: no metadata_service_url; model-serving: IS_IN_DB_MODEL_SERVING_ENV is not true; "
      .. "databricks-cli: no program databricks in PATH", err)
    assert.is_true(how.permanent)
  end)

  it("ends at the first that applies and fails", function()
    local _, err, how = fetch({ host = ws.url, client_id = workspace.CLIENT_ID, client_secret = "wrong" },
      { DATABRICKS_OIDC_TOKEN = workspace.SUBJECT_TOKEN })
    assert.equal("auth: databricks: login oauth-m2m: the workspace's token endpoint answered 401 invalid_client: "
      .. "no such client as " .. workspace.CLIENT_ID, err)
    assert.is_true(how.permanent)
  end)

  it("goes over verified TLS only", function()
    databricks.with({}, function()
      local source = assert(core.token_source("databricks", { host = ws.url, token = workspace.PAT, instance_name = "cache" }))
      local _, err, how = source:fetch(20)
      assert.matches("^connect: databricks: the workspace: no answer from localhost:%d+/api/.*certificate", err)
      assert.is_true(how.permanent)
      source:close()
      source = assert(databricks.source(ws, { host = ws.url:gsub("localhost", "127.0.0.2"), token = workspace.PAT }))
      _, err = source:fetch(20)
      assert.matches("^connect: ", err) -- nobody there, or a name that the certificate has not
      source:close()
      source = assert(databricks.source(ws, { host = ws.url, token = workspace.PAT, ca_file = "/no/such/file" }))
      _, err = source:fetch(20)
      assert.matches("^invalid: .*/no/such/file", err)
      source:close()
    end)
    assert(databricks.fetch(ws, { host = ws.url, token = workspace.PAT, ca_file = false },
      { SSL_CERT_FILE = ws.ca_file }))
    assert(databricks.fetch(ws, { host = ws.url, token = workspace.PAT, ca_file = false },
      { CURL_CA_BUNDLE = ws.ca_file }))
  end)
end)

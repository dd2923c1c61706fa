-- The sources "azure" and "google": every way to a token, every fault, and a login with what they give.
local clouds = require "support.clouds"
local core = require "fpcache.core"
local lakebase = require "support.lakebase"
local workspace = require "support.workspace"

describe("the token sources", function()
  local lake, ws, desk

  setup(function()
    lake, desk = lakebase.start(), clouds.desk()
    ws = lake.ws
  end)
  teardown(function()
    lake:stop()
    desk:remove()
  end)
  before_each(function() lake:reset() end)
  after_each(function() desk:tidy() end)

  local function write(name, text) return desk:write(name, text) end
  local function make(kind, environment, settings) return desk:make(kind, settings, environment) end
  local function fetch(kind, environment, settings) return desk:fetch(kind, settings, environment) end
  local function refused(kind, environment, settings) return desk:refused(ws:secrets(), kind, settings, environment) end

  -- Logs in at the real server, which asks for a clear-text password inside TLS.
  local function login(password)
    return core.run { argv = { lake.srv.psql, "-XAtq", "-w", "-c",
        "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()" },
      env = { "PGHOST=" .. lake.host, "PGPORT=" .. lake.port, "PGUSER=" .. lake.role, "PGDATABASE=" .. lake.database,
        "PGPASSWORD=" .. password, "PGSSLMODE=verify-full", "PGSSLROOTCERT=" .. lake.ca_file } }
  end

  local function assert_logs_in(token)
    local result = assert(login(token.password))
    assert.equal("cache_user|t\n", result.output)
    result = assert(login(token.password .. "x"))
    assert.truthy(result.output:find("password authentication failed", 1, true), result.output)
  end

  local function workload(more)
    local environment = { AZURE_CLIENT_ID = "client-1", AZURE_TENANT_ID = "tenant-1", AZURE_AUTHORITY_HOST = ws.plain_url,
      AZURE_FEDERATED_TOKEN_FILE = write("jwt", workspace.SUBJECT_TOKEN .. "\n") }
    for name, value in pairs(more or {}) do environment[name] = value ~= "" and value or nil end
    return environment
  end
  local function app_service() return { IDENTITY_ENDPOINT = ws.plain_url .. "/msi/token",
      IDENTITY_HEADER = ws.control.clouds.identity_header } end
  local function imds() return { AZURE_POD_IDENTITY_AUTHORITY_HOST = ws.plain_url .. "/" } end
  local function google() return { GCE_METADATA_HOST = ws.plain_url:match("//(.*)") } end

  describe("azure", function()
    it("gets a password by each way, and logs in with it", function()
      for _, environment in ipairs { workload(), app_service(), imds() } do
        ws:set { credential_life = 1800 }
        local token = assert(fetch("azure", environment))
        assert.is_true(token.valid_for > 1790 and token.valid_for <= 1801, token.valid_for) -- not its expires_in
        assert.is_nil(token.user)
        assert_logs_in(token)
      end
    end)

    it("chooses the way by the environment, or as it is told", function()
      local all = workload(app_service())
      all.AZURE_POD_IDENTITY_AUTHORITY_HOST = ws.plain_url
      local function asked(settings, environment)
        assert(fetch("azure", environment or all, settings))
        local requests = ws:report().requests
        return requests[#requests]
      end
      assert.equal("/tenant-1/oauth2/v2.0/token", asked().path)
      assert.equal("/msi/token", asked({ method = "app-service", client_id = "other" }).path)
      assert.equal("other", asked({ method = "app-service", client_id = "other" }).query.client_id)
      local request = asked { method = "imds" }
      assert.same({ "/metadata/identity/oauth2/token", "client-1" }, { request.path, request.query.client_id })
      all.AZURE_TENANT_ID = nil
      assert.equal("/msi/token", asked().path)
      assert.equal("/tenant-2/oauth2/v2.0/token", asked({ tenant_id = "tenant-2" }).path)
      local source, err = make("azure", all, { method = "workload-identity" })
      assert.is_nil(source)
      assert.equal("invalid: auth azure: method workload-identity needs AZURE_TENANT_ID, which is not set", err)
      source, err = make("azure", all, { method = "magic" })
      assert.is_nil(source)
      assert.truthy(err:find("there is no method \"magic\"", 1, true))
    end)

    it("reads the federated token anew each time", function()
      local source = make("azure", workload())
      assert(source:fetch())
      write("jwt", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ3cm9uZyJ9.c2ln")
      local token, err, why = source:fetch()
      assert.is_nil(token)
      assert.truthy(err:find("^auth: Entra") and err:find("AADSTS700211", 1, true), err)
      assert.is_nil(err:find("eyJhbGci", 1, true))
      assert.is_true(why.permanent)
      write("jwt", workspace.SUBJECT_TOKEN)
      assert(source:fetch())
      write("jwt", " \n")
      assert.truthy(select(2, source:fetch()):find(desk.dir .. "/jwt is empty", 1, true))
      assert(os.remove(desk.dir .. "/jwt"))
      assert.truthy(select(2, source:fetch()):find("could not read " .. desk.dir .. "/jwt", 1, true))
    end)
  end)

  describe("google", function()
    it("gets a password, and the user from the account's address, once", function()
      ws:set { credential_life = 77 }
      local source = make("google", google())
      for _ = 1, 2 do
        local token = assert(source:fetch())
        assert.equal("cache@project.iam", token.user)
        assert.is_true(token.valid_for > 70 and token.valid_for <= 77.5) -- as given, not an hour
        assert_logs_in(token)
      end
      assert.equal(1, ws:count("GET /computeMetadata/v1/instance/service-accounts/default/email"))
      local token = assert(fetch("google", google(), { user = "ann@example.com" }))
      assert.is_nil(token.user)
      assert.equal(1, ws:count("GET /computeMetadata/v1/instance/service-accounts/default/email"))
      ws.control.clouds.email = "1234-compute@developer.gserviceaccount.com\n"
      ws:apply()
      assert.equal("1234-compute@developer", assert(fetch("google", google())).user)
    end)

    it("trusts only an answer that says it is Google's", function()
      for _, flavor in ipairs { "", "google", "Amazon" } do
        ws.control.clouds.flavor = flavor
        ws:apply()
        local err, why = refused("google", google(), { user = "x" })
        assert.truthy(err:find("is not the Google metadata server", 1, true), err)
        assert.is_true(why.permanent)
      end
    end)

    it("knows at once that there is no such server", function()
      local err, why = refused("google", {}, { user = "x" })
      if err:find("Could not resolve host", 1, true) then assert.is_true(why.permanent) end -- not in Google's cloud
    end)

    it("wants an address of an account, and one of this machine to ask", function()
      ws.control.clouds.email = "<html>login</html>"
      ws:apply()
      assert.truthy(refused("google", google()):find("no e-mail address", 1, true))
      assert.truthy(refused("google", { GCE_METADATA_HOST = "metadata.example.com" }, { user = "x" }):find("^invalid: "))
      local err, why = refused("google", google(), { user = "x", service_account = "no/body" })
      assert.truthy(err:find("404", 1, true), err)
      assert.is_true(why.permanent)
    end)
  end)

  it("say what went wrong at the other side, and whether to come again", function()
    local ways = { { "azure", workload(), "v2%.0/token" }, { "azure", app_service(), "/msi/" }, { "azure", imds(), "/metadata/" },
      { "google", google(), "/token" } }
    for _, way in ipairs(ways) do
      local kind, environment, path = way[1], way[2], way[3]
      for _, case in ipairs { { status = 400, permanent = true }, { status = 401, permanent = true }, { status = 500 },
        { status = 404, permanent = path ~= "/metadata/" }, { status = 410, permanent = path ~= "/metadata/" },
        { status = 429, headers = { ["Retry-After"] = "7" }, after = 7 },
        { status = 302, headers = { Location = "/" }, permanent = true },
        { status = 200, body = '{"access_token":' }, { status = 200, body = '{"access_token":"a b"}' },
        { status = 200, body = '{"access_token":7}' }, { body_size = 3 * 1024 * 1024 },
        { cut = "before", times = 2 }, { cut = "middle" } } do
        if kind == "google" and case.status == 200 then case.headers = { ["Metadata-Flavor"] = "Google" } end
        case.path = path
        ws:fault(case)
        local err, why = refused(kind, environment, kind == "google" and { user = "x" } or {})
        local what = ("%s %s: %s"):format(path, case.status or case.cut or "huge", err)
        assert.equal(case.permanent or false, why.permanent, what)
        assert.equal(case.after or 0, why.retry_after, what)
        lake:reset()
      end
      ws:fault { path = path, delay = 20 }
      local token, err = make(kind, environment, kind == "google" and { user = "x" } or {}):fetch(0.3)
      assert.is_nil(token)
      assert.truthy(err:find("^timeout: "), err)
      lake:reset()
    end
  end)
end)

-- databricks_config_spec.lua -- settings, environment and ~/.databrickscfg: which one counts, and what is refused.
local databricks = require "support.databricks"
local workspace = require "support.workspace"
local system = require("fpcache.core").system

describe("the configuration of Databricks", function()
  local ws

  lazy_setup(function() ws = workspace.start() end)
  lazy_teardown(function() ws:stop() end)
  before_each(function() ws:reset() end)

  -- An environment whose home has this file.
  local function home(text, variables)
    databricks.file(ws, ".databrickscfg", (text:gsub("@HOST", ws.url):gsub("@PAT", workspace.PAT)))
    local all = { HOME = ws.dir, PATH = "/nowhere" }
    for name, value in pairs(variables or {}) do all[name] = value end
    return all
  end

  local function user(settings, variables)
    local token, err = databricks.fetch(ws, settings, variables)
    assert.is_nil(tostring(err):find(workspace.PAT, 1, true))
    return token and token.user, err
  end

  it("is the profile DEFAULT, the default of the file, or the one asked for", function()
    assert.equal("ann@example.com", user({}, home "\239\187\191[DEFAULT]\r\nhost = @HOST\r\ntoken = @PAT\r\n"))
    assert.equal("ann@example.com", user({}, home("[__settings__]\ndefault_profile = b\n[DEFAULT]\n"
      .. "host = https://no.invalid\n[b]\nhost = @HOST # mine\ntoken = '@PAT'\nunknown = 1\n")))
    assert.equal("ann@example.com", user({ profile = "c" }, home "[DEFAULT]\nhost=x\n[c]\nhost = \"@HOST\"\n; a\ntoken = @PAT\n"))
    assert.equal("ann@example.com", user({}, home("[d]\nhost = @HOST/?o=1\ntoken = @PAT", { DATABRICKS_CONFIG_PROFILE = "d" })))
  end)

  it("may stand in another file, also below the home", function()
    local there = home("[DEFAULT]\nhost = @HOST\ntoken = @PAT\n", { DATABRICKS_CONFIG_FILE = "~/other" })
    local _, err = user({}, there)
    assert.matches("^invalid: databricks: no workspace: give host, DATABRICKS_HOST or a profile", err)
    databricks.file(ws, "other", ("[DEFAULT]\nhost = %s\ntoken = %s\n"):format(ws.url, workspace.PAT))
    assert.equal("ann@example.com", user({}, there))
  end)

  it("inherits nothing from DEFAULT", function()
    local _, err = user({ profile = "a" }, home "[DEFAULT]\nhost = @HOST\ntoken = @PAT\n[a]\nhost = @HOST\n")
    assert.matches("no login to the workspace applies: pat: no token", err)
  end)

  it("lets settings win over the environment, and that over the file", function()
    local there = home("[a]\nhost = https://no.invalid\ntoken = dapi0\n", { DATABRICKS_HOST = ws.url,
      DATABRICKS_TOKEN = "dapi1" })
    assert.equal("ann@example.com", user({ profile = "a", token = workspace.PAT }, there))
    there.DATABRICKS_TOKEN = workspace.PAT
    assert.equal("ann@example.com", user({ profile = "a" }, there))
    there.DATABRICKS_HOST = "" -- counts as not set
    local _, err = user({ profile = "a" }, there)
    assert.matches("no answer from no%.invalid/", err)
  end)

  it("does not look into the file when a login is there already", function()
    local there = home("this is no file of settings")
    assert.equal("ann@example.com", user({ host = ws.url, token = workspace.PAT }, there))
    local _, err = user({}, there)
    assert.matches("^invalid: auth databricks: .*/%.databrickscfg: line 1 is neither", err)
  end)

  it("refuses a profile that is missing, but not a default that is", function()
    local _, err = user({ profile = "z" }, home "[a]\nhost = @HOST\n")
    assert.matches('^invalid: auth databricks: .*/%.databrickscfg has no profile "z"$', err)
    _, err = user({ profile = "z" }, { HOME = "/nowhere" })
    assert.matches('has no profile "z": the file is not there or empty$', err)
    _, err = user({ profile = "__settings__" }, home "[__settings__]\nx = 1\n")
    assert.matches("reserved", err)
    _, err = user({}, home "[a]\nhost = @HOST\n")
    assert.matches("no workspace: give host", err)
  end)

  it("refuses two kinds of login unless auth_type chooses", function()
    local there = home("[a]\nhost = @HOST\ntoken = @PAT\n", { DATABRICKS_CLIENT_SECRET = workspace.CLIENT_SECRET })
    local _, err = user({ profile = "a" }, there)
    assert.equal("invalid: auth databricks: more than one login is configured: token (from the profile) and client_secret "
      .. "(from DATABRICKS_CLIENT_SECRET); set auth_type to choose one, or remove one", err)
    there.DATABRICKS_AUTH_TYPE = "pat"
    assert.equal("ann@example.com", user({ profile = "a" }, there))
  end)

  it("cleans the host, and refuses what is none", function()
    assert.equal("ann@example.com", user({ host = ws.url:sub(9) .. "///", token = workspace.PAT }))
    for _, host in ipairs { "http://localhost", "https://", "ftp://x", "https://user:pw@host", "a b" } do
      local _, err = user { host = host, token = workspace.PAT }
      assert.matches("^invalid: auth databricks: host: ", err)
      assert.is_nil(err:find("pw", 1, true))
    end
  end)

  it("sees a changed file at the next fetch", function()
    databricks.with(home "[DEFAULT]\nhost = @HOST\ntoken = dapi0000\n", function()
      local source = assert(databricks.source(ws, {}))
      local _, err, how = source:fetch(20)
      assert.matches("^auth: databricks: the workspace answered 401 UNAUTHENTICATED: Credential was not sent", err)
      assert.is_nil(err:find("dapi0000", 1, true))
      assert.is_true(how.permanent)
      home "[DEFAULT]\nhost = @HOST\ntoken = @PAT\n"
      assert(source:fetch(20))
      os.remove(ws.dir .. "/.databrickscfg")
      _, err, how = source:fetch(20)
      assert.matches("no workspace", err)
      assert.is_true(how.permanent)
      source:close()
    end)
  end)

  it("names the database: an instance, several, or an endpoint of a project", function()
    local function host(settings, variables)
      settings.host, settings.token = ws.url, workspace.PAT
      local token, err = databricks.fetch(ws, settings, variables)
      return token and token.host, err
    end
    ws:set { instances = { one = { host = "h1" }, two = { host = "h2" } } }
    assert.equal("h2", host { instance_names = { "two", "one" } })
    assert.matches('"instance_names":%["two","one"%]', ws:report().requests[#ws:report().requests].body)
    assert.equal("ep-1.database.example.com", host { endpoint = "projects/p/branches/b/endpoints/rw" })
    assert.equal("ep-1.database.example.com", host { endpoint = "projects/p/branches/b" }) -- the one that can write
    local requests = ws:report().requests
    assert.equal('{"endpoint":"projects/p/branches/b/endpoints/rw"}', requests[#requests].body)
    assert.equal("ep-1.database.example.com", host({ instance_name = false }, { LAKEBASE_ENDPOINT = "projects/p/branches/b" }))
    assert.equal("h1", host({ instance_name = "one" }, { LAKEBASE_ENDPOINT = "projects/p/branches/b" }))
    local _, err = host { endpoint = "projects/p/branches/none" }
    assert.matches("projects/p/branches/none has no endpoint that can write", err)
    _, err = host { endpoint = "ep-1" }
    assert.matches('^invalid: auth databricks: endpoint "ep%-1" is not projects/P/branches/B/endpoints/E', err)
    _, err = host { instance_name = "one", endpoint = "projects/p/branches/b" }
    assert.matches("give either instance_name or endpoint", err)
    _, err = host { instance_name = false }
    assert.matches("instance_name or endpoint .* is missing", err)
    _, err = host { instance_name = "three" }
    assert.equal("invalid: databricks: the workspace answered 404 RESOURCE_DOES_NOT_EXIST: "
      .. "Database instance three does not exist", err)
    _, err = host { instance_nam = "one" }
    assert.matches('it has no setting "instance_nam"', err)
  end)

  it("asks neither for a host nor for a user that are given", function()
    local before = ws:count "GET /api/2.0/database/instances/cache"
    local me = ws:count "GET /api/2.0/preview/scim/v2/Me"
    local token = assert(databricks.fetch(ws, { host = ws.url, token = workspace.PAT, database_host = "h",
      database_user = "u" }))
    assert.equal("h", token.host)
    assert.equal("u", token.user)
    token = assert(databricks.fetch(ws, { host = ws.url, token = workspace.PAT }, { PGUSER = "pg" }))
    assert.equal("pg", token.user)
    assert.equal(before + 1, ws:count "GET /api/2.0/database/instances/cache")
    assert.equal(me, ws:count "GET /api/2.0/preview/scim/v2/Me")
  end)

  it("says which workspace is meant only when told", function()
    assert(databricks.fetch(ws, { host = ws.url, token = workspace.PAT, workspace_id = "123" }))
    local requests = ws:report().requests
    assert.equal("123", requests[#requests].headers["x-databricks-workspace-id"])
  end)

  it("waits for an instance that starts, and not for one that is stopped", function()
    for state, permanent in pairs { STARTING = false, UPDATING = false, FAILING_OVER = false, STOPPED = true, DELETING = true } do
      ws:set { instances = { cache = { host = "h", state = state } } }
      local _, err, how = databricks.fetch(ws, { host = ws.url, token = workspace.PAT })
      assert.matches("the instance cache is " .. state, err)
      assert.equal(permanent, how.permanent)
    end
    ws:set { endpoints = { ["projects/p/branches/b/endpoints/e"] = { host = "h", state = "IDLE" } } }
    assert(databricks.fetch(ws, { host = ws.url, token = workspace.PAT, endpoint = "projects/p/branches/b/endpoints/e" }))
    ws:set { endpoints = { ["projects/p/branches/b/endpoints/e"] = { host = "h", disabled = true } } }
    local _, err = databricks.fetch(ws, { host = ws.url, token = workspace.PAT,
      endpoint = "projects/p/branches/b/endpoints/e" })
    assert.matches("is disabled", err)
  end)

  it("reads a file that only its owner may read", function()
    local there = home "[DEFAULT]\nhost = @HOST\ntoken = @PAT\n"
    if system.geteuid() == 0 then return end -- root reads everything
    assert(system.chmod(ws.dir .. "/.databrickscfg", 0))
    local _, err = user({}, there)
    assert.matches("^denied: ", err)
  end)
end)

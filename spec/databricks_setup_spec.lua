-- databricks_setup_spec.lua -- Databricks from end to end, as a user meets it: `fpcache-admin --databricks` sets the
-- database up, and programs use it, with nothing but an instance's or endpoint's name; the rest comes from the environment
-- and the profile.
local core = require "fpcache.core"
local database = require "support.database"
local databricks = require "support.databricks"
local fpcache = require "fpcache"
local lakebase = require "support.lakebase"
local workspace = require "support.workspace"
local system = core.system

local BUILD = require "support.build"
local ENDPOINT = "projects/p/branches/b/endpoints/rw"

describe("Databricks", function()
  local lake, ws

  setup(function()
    lake = lakebase.start()
    ws = lake.ws
  end)
  teardown(function() lake:stop() end)
  after_each(database.assert_nothing_open)
  before_each(function()
    lake:reset()
    lake.srv:sql "DROP DATABASE IF EXISTS databricks_postgres"
    lake.srv:sql("CREATE DATABASE databricks_postgres OWNER " .. lake.role)
  end)

  --- What a machine of a Databricks user has: a profile, and where the stand-ins' certificates are.
  local function environment(more)
    databricks.file(ws, ".databrickscfg", ("[DEFAULT]\nhost = %s\ntoken = wrong\n[lake]\nhost = %s\ntoken = %s\n"):format(
      ws.url, ws.url, workspace.PAT))
    local variables = { HOME = ws.dir, SSL_CERT_FILE = ws.ca_file, PGSSLROOTCERT = lake.ca_file }
    for name, value in pairs(more or {}) do variables[name] = value or nil end
    return variables
  end

  local function run(variables, program, ...)
    local env = { "PATH=" .. os.getenv "PATH" }
    for name, value in pairs(variables) do env[#env + 1] = name .. "=" .. value end
    return assert(core.run { argv = { BUILD .. "/" .. program, ... }, env = env, clear_env = true, timeout = 60 })
  end

  if system.stat(BUILD .. "/fpcache-admin") then -- a sanitizer's tree has none
    it("is set up by fpcache-admin --databricks, again too, and used by name", function()
      local result = run(environment(), "fpcache-admin", "--databricks", "--instance-name", "cache", "--profile", "lake")
      assert.equal(0, result.status, result.output)
      assert.matches("Installed: ", result.output)
      assert.matches("Schema public of database databricks_postgres", result.output)
      assert.matches("owned by " .. lake.role, result.output)
      result = run(environment(), "fpcache-admin", "--databricks", "--instance-name", "cache", "--profile", "lake")
      assert.equal(0, result.status, result.output)
      assert.matches("Nothing to do", result.output)
      databricks.with(environment(), function()
        local cache = assert(fpcache.new { instance_name = "cache", profile = "lake" })
        assert(cache:set("k", { 1, 2 }))
        assert.same({ 1, 2 }, cache:get "k")
        local token = assert(cache:stats()).token
        assert.same({ "databricks", lake.host, lake.role }, { token.source, token.host, token.user })
        cache:close()
      end)
      result = run(environment(), "fpcache", "get", "k", "--endpoint", ENDPOINT, "--profile", "lake")
      assert.equal(0, result.status, result.output)
      assert.matches("%[1,2%]", result.output)
      result = run(environment(), "fpcache", "token", "test", "--instance-name", "cache", "--profile", "lake")
      assert.equal(0, result.status, result.output)
      assert.matches("logged in as *" .. lake.role, result.output)
    end)

    it("says why the set-up cannot be done", function()
      for words, said in pairs {
        ["--databricks"] = "^fpcache: %-%-databricks needs %-%-instance%-name",
        ["--databricks --instance-name cache"] = "^fpcache: auth: no password from databricks: .*401",
        ["--databricks --instance-name none --profile lake"] = "Database instance none does not exist",
        ["--databricks --instance-name cache --profile no"] = "has no profile \"no\"",
        ["--databricks --instance-name cache --profile lake --user nobody"] = "password authentication failed",
      } do
        local list = {}
        for word in words:gmatch "%S+" do list[#list + 1] = word end
        local result = run(environment(), "fpcache-admin", (unpack or table.unpack)(list)) -- luacheck: ignore
        assert.equal(1, result.status, result.output)
        assert.matches(said, result.output)
      end
      local result = run(environment { HOME = "/nonexistent" }, "fpcache-admin", "--databricks", "--instance-name", "cache")
      assert.equal(1, result.status)
      assert.matches("no workspace", result.output)
    end)
  end

  it("is an endpoint with a service principal of the environment, as in Databricks Apps", function()
    ws:set { clients = { [lake.role] = workspace.CLIENT_SECRET } } -- the client's id is the role
    local before = ws:count "POST /api/2.0/database/credentials"
    local app = environment { HOME = "/nonexistent", DATABRICKS_HOST = ws.url, DATABRICKS_CLIENT_ID = lake.role,
      DATABRICKS_CLIENT_SECRET = workspace.CLIENT_SECRET }
    databricks.with(app, function()
      assert(fpcache.setup_cache { endpoint = ENDPOINT })
      local cache = assert(fpcache.new { endpoint = ENDPOINT })
      assert(cache:set("k", "v"))
      assert.equal("v", cache:get "k")
      assert.equal(lake.role, assert(cache:stats()).token.user)
      cache:close()
      system.setenv("LAKEBASE_ENDPOINT", ENDPOINT)
      cache = assert(fpcache.new { auth = "databricks" })
      assert.equal("v", cache:get "k")
      cache:close()
    end)
    assert.is_true(ws:count "POST /api/2.0/postgres/credentials" > 0)
    assert.equal(before, ws:count "POST /api/2.0/database/credentials")
  end)

  it("takes the user of the login that was used, not an id that happens to be set", function()
    -- The password belongs to whoever logged in: with the id of somebody else it would be refused.
    local token = assert(databricks.fetch(ws, { host = ws.url, token = workspace.PAT, auth_type = "pat" },
      { DATABRICKS_CLIENT_ID = "somebody-else" }))
    assert.equal(lake.role, token.user)
    token = assert(databricks.fetch(ws, { host = ws.url, token = workspace.PAT, auth_type = "pat" },
      { DATABRICKS_CLIENT_ID = "somebody-else", PGUSER = "given" }))
    assert.equal("given", token.user)
  end)
end)

-- token_network_spec.lua -- what else may speak up on the way to a token: proxies, ~/.netrc, libpq's own password files.
local clouds = require "support.clouds"
local core = require "fpcache.core"
local databricks = require "support.databricks"
local fpcache = require "fpcache"
local lakebase = require "support.lakebase"
local workspace = require "support.workspace"
local system = core.system

describe("on the way to a token", function()
  local lake, ws

  setup(function()
    lake = lakebase.start()
    assert(fpcache.setup_cache { connection_string = lake.srv.url, grant = "public" })
    ws = lake.ws
  end)
  teardown(function() lake:stop() end)
  before_each(function() lake:reset() end)

  local function m2m(more)
    local settings = ws:m2m(more)
    settings[1] = nil
    return settings
  end

  --- One fetch in that environment.
  local function fetch(settings, variables)
    return databricks.fetch(ws, settings, variables)
  end

  --- How many requests so far match a Lua pattern.
  local function count(pattern)
    local sum = 0
    for request, times in pairs(ws:report().counts) do
      if request:find(pattern) then sum = sum + times end
    end
    return sum
  end

  --- The requests since `first`, in order.
  local function requests(first)
    return { (unpack or table.unpack)(ws:report().requests, first) } -- luacheck: ignore
  end

  it("a proxy of the environment passes on what it cannot read", function()
    local before = #ws:report().requests + 1
    assert(fetch(m2m(), { https_proxy = ws.plain_url }))
    local first = requests(before)[1]
    assert.equal("CONNECT", first.method)
    assert.equal("localhost:" .. ws.port, first.path)
    assert.is_nil(first.headers.authorization)
    assert.is_nil(first.headers["proxy-authorization"])
    local passed = ws:read "tunnelled"
    assert.is_true(#passed > 1000)
    for _, secret in ipairs(ws:secrets()) do assert.is_nil(passed:find(secret, 1, true), "the proxy saw a secret") end
    assert.is_true(count "^POST /oidc/v1/token" > 0)
  end)

  it("a proxy that leads to somebody else gives him nothing", function()
    local tokens = count "/oidc/"
    local _, err, how = fetch(m2m { host = "https://other.example:" .. ws.port }, { https_proxy = ws.plain_url })
    assert.matches("^connect: databricks: login oauth%-m2m: .*other%.example", err)
    assert.matches("certificate", err)
    assert.is_true(how.permanent)
    assert.equal(tokens, count "/oidc/")
  end)

  it("no_proxy counts", function()
    local before = count "^CONNECT"
    assert(fetch(m2m(), { https_proxy = ws.plain_url, no_proxy = "localhost" }))
    assert.equal(before, count "^CONNECT")
  end)

  it("a proxy is not asked for what is on this machine", function()
    local proxies = { http_proxy = "http://127.0.0.1:1", https_proxy = ws.plain_url, all_proxy = "http://127.0.0.1:1" }
    proxies.DATABRICKS_METADATA_SERVICE_URL = ws.plain_url .. "/metadata"
    proxies.no_proxy = "localhost" -- the workspace itself is reached without one
    assert(fetch({ host = ws.url }, proxies))
    local keys = ws.control.clouds
    databricks.with({ http_proxy = "http://127.0.0.1:1", all_proxy = "http://127.0.0.1:1" }, function()
      for kind, case in pairs {
        azure = { {}, { AZURE_POD_IDENTITY_AUTHORITY_HOST = ws.plain_url } },
        google = { {}, { GCE_METADATA_HOST = ws.plain_url:match "//(.*)" } },
        aws = { { host = "h", user = "u", region = "eu-west-1" }, { AWS_EC2_METADATA_SERVICE_ENDPOINT = ws.plain_url } },
      } do
        local source = assert(clouds.source(kind, case[1], case[2]))
        assert(source:fetch(20))
        source:close()
      end
      local source = assert(clouds.source("aws", { host = "h", user = "u", region = "eu-west-1" },
        { AWS_CONTAINER_CREDENTIALS_FULL_URI = ws.plain_url .. "/ecs",
          AWS_CONTAINER_AUTHORIZATION_TOKEN = keys.container_secret }))
      assert(source:fetch(20))
      source:close()
    end)
    assert.equal(0, count " http://")
  end)

  it("~/.netrc says nothing", function()
    local netrc = databricks.file(ws, ".netrc", "machine localhost login evil password evil-password\n"
      .. "default login evil password evil-password\n")
    assert(system.chmod(netrc, tonumber("600", 8)))
    local before = #ws:report().requests + 1
    assert(fetch(m2m(), { HOME = ws.dir, NETRC = netrc }))
    assert(fetch({ host = ws.url, token = workspace.PAT }, { HOME = ws.dir, NETRC = netrc }))
    local seen = {}
    for _, request in ipairs(requests(before)) do
      local scheme = (request.headers.authorization or "none"):match "^%S+"
      seen[scheme] = (seen[scheme] or 0) + 1
      if scheme == "Basic" then assert.matches("^POST /oidc", request.method .. " " .. request.path) end
    end
    assert.same({ none = 1, Basic = 1, Bearer = 5 }, seen) -- discovery; the client's login; the API, with our tokens
  end)

  it("a redirect leads nowhere", function()
    local before = count "^%u+ /elsewhere"
    ws:fault { path = "credentials$", status = 302, headers = { Location = ws.url .. "/elsewhere" } }
    ws:fault { path = "GET /oidc/.well", status = 307, headers = { Location = ws.url .. "/elsewhere" } }
    assert.is_nil((fetch(m2m())))
    assert.equal(before, count "^%u+ /elsewhere")
  end)

  it("PGPASSWORD and ~/.pgpass say nothing where a token is the password", function()
    local file = databricks.file(ws, ".pgpass", "*:*:*:*:wrong\n")
    assert(system.chmod(file, tonumber("600", 8)))
    databricks.with({ HOME = ws.dir, PGPASSWORD = "wrong", PGPASSFILE = file }, function()
      local cache = assert(fpcache.new(lake:options { auth = ws:m2m() }))
      assert.is_true(cache:ping())
      assert.equal(0, assert(cache:stats()).token.refusals)
      cache:close()
    end)
  end)
end)

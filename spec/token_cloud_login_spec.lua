-- Caches that log in by AWS, Azure and Google at a real PostgreSQL, which asks for a clear-text password in TLS.
local clouds = require "support.clouds"
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local lakebase = require "support.lakebase"
local sigv4 = require "support.sigv4"

describe("a cache logs in", function()
  local lake, ws

  setup(function()
    lake = lakebase.start()
    ws = lake.ws
    assert(fpcache.setup_cache { connection_string = lake.srv.url, grant = "public" })
  end)
  teardown(function() lake:stop() end)
  before_each(function() lake:reset() end)
  after_each(database.assert_nothing_open)

  local function options(auth, more)
    local all = lake:options(more)
    all.auth = auth
    return all
  end

  --- Every connection of the role ends; the next call has to log in again.
  local function kick(cache)
    lake:kick()
    return cache:ping()
  end

  local WAYS = {
    azure = { { "azure" }, function() return { AZURE_POD_IDENTITY_AUTHORITY_HOST = ws.plain_url } end },
    google = { { "google" }, function() return { GCE_METADATA_HOST = ws.plain_url:match("//(.*)") } end },
  }
  for kind, way in pairs(WAYS) do
    it("by " .. kind .. ", and again after its password was replaced", function()
      local cache = assert(clouds.within(way[2](), fpcache.new, options(way[1])))
      assert.is_true(cache:set("k", kind))
      assert.equal(kind, cache:get("k"))
      assert.is_true(kick(cache))
      assert.equal(1, cache:stats().token.refreshes)
      lake.srv:sql(("ALTER ROLE %s PASSWORD 'something else'"):format(lake.role))
      assert.is_true(kick(cache)) -- refused once, and a new one is fetched
      local token = cache:stats().token
      assert.same({ kind, 2, 1 }, { token.source, token.refreshes, token.refusals })
      cache:close()
    end)
  end

  it("by aws, with a token that verifies", function()
    local secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    local environment = { AWS_ACCESS_KEY_ID = "AKIA1", AWS_SECRET_ACCESS_KEY = secret }
    -- The same settings mean the same keeper, so this is the token that the cache will log in with.
    local keeper = assert(clouds.within(environment, core.token_keeper, "aws", { region = "eu-west-1", host = lake.host,
      port = "5432", user = lake.role }))
    local token = assert(keeper:get(10))
    local fields = sigv4.check_url(token, secret)
    assert.same({ lake.host .. ":5432", lake.role, "AKIA1" }, { fields.host, fields.DBUser, fields.id })
    local o = options({ "aws", region = "eu-west-1" }, { port = 5432 })
    lake.srv:sql(("ALTER ROLE %s PASSWORD '%s' VALID UNTIL 'infinity'"):format(lake.role, token))
    local cache = assert(fpcache.new(o))
    assert.is_true(cache:set("k", "aws"))
    assert.is_true(kick(cache))
    local state = cache:stats().token
    assert.same({ "aws", 1, 0 }, { state.source, state.refreshes, state.refusals })
    cache:close()
    -- A server that does not know the token says no, and nobody repeats it.
    lake.srv:sql(("ALTER ROLE %s PASSWORD 'something else'"):format(lake.role))
    local none, err = fpcache.new(o)
    assert.is_nil(none)
    assert.matches("^auth: ", err)
    clouds.has_no_secret(err, { token, secret, (token:match("Signature=(.*)")) })
    keeper:close()
  end)

  it("not without keys, and says where they were looked for", function()
    local cache, err = clouds.within({ AWS_EC2_METADATA_DISABLED = "true" }, fpcache.new,
      options { "aws", region = "eu-west-1" })
    assert.is_nil(cache)
    assert.matches("^invalid: no password from aws: no AWS keys were found: AWS_ACCESS_KEY_ID is not set; ", err)
  end)
end)

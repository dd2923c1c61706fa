-- databricks_fault_spec.lua -- a workspace in trouble: what passes, what stays, what is tried once more; and a
-- real PostgreSQL that demands the passwords.
local core = require "fpcache.core"
local databricks = require "support.databricks"
local lakebase = require "support.lakebase"
local workspace = require "support.workspace"
local system = core.system

local CREDENTIALS = "POST /api/2.0/database/credentials"
local TOKEN = "POST /oidc/v1/token"

describe("a workspace", function()
  local lake, ws

  lazy_setup(function()
    lake = lakebase.start()
    ws = lake.ws
  end)
  lazy_teardown(function() lake:stop() end)
  before_each(function() lake:reset() end)

  local function m2m(more)
    local settings = { host = ws.url, client_id = workspace.CLIENT_ID, client_secret = workspace.CLIENT_SECRET }
    for name, value in pairs(more or {}) do settings[name] = value end
    return settings
  end

  -- A source in an empty environment, for `f`.
  local function with_source(settings, f)
    return databricks.with({ PATH = system.getenv "PATH" }, function()
      local source = assert(databricks.source(ws, settings))
      local ok, err = pcall(f, source)
      source:close()
      if not ok then error(err, 0) end
    end)
  end

  -- The fetch fails; its error holds no secret.
  local function fails(pattern, permanent, settings, timeout)
    local how
    with_source(settings or m2m(), function(source)
      local token, err
      token, err, how = source:fetch(timeout or 20)
      assert.is_nil(token, "no failure: " .. pattern)
      assert.matches(pattern, err)
      for _, secret in ipairs(ws:secrets()) do assert.is_nil(err:find(secret, 1, true), err) end
      assert.equal(permanent, how.permanent, err)
    end)
    return how
  end

  local function login(password)
    local conninfo = ("host=%s user=%s dbname=%s sslmode=verify-full sslrootcert=%s"):format(lake.host, lake.role,
      lake.database, lake.ca_file)
    local result = assert(core.run { argv = { lake.srv.psql, "-XAtqw", "-c", "SELECT current_user", "-d", conninfo },
      env = { "PGPASSWORD=" .. password } })
    return result.status == 0, result.output
  end

  it("gives a password that PostgreSQL takes, until the next one", function()
    with_source(m2m { database_user = lake.role }, function(source)
      local first = assert(source:fetch(20))
      assert.equal(lake.host, first.host)
      assert.equal(lake.role, first.user)
      assert.is_true(login(first.password))
      local second = assert(source:fetch(20))
      assert.not_equal(first.password, second.password)
      assert.is_true(login(second.password))
      local ok, output = login(first.password)
      assert.is_false(ok)
      assert.matches("password authentication failed", output)
    end)
  end)

  it("ends a password at login when it is too old", function()
    ws:set { credential_life = 60 }
    with_source(m2m(), function(source)
      local token = assert(source:fetch(20))
      assert.is_true(token.valid_for > 0 and token.valid_for <= 61, token.valid_for)
      assert.is_true(login(token.password))
      lake.srv:sql("ALTER ROLE " .. lake.role .. " VALID UNTIL '2001-01-01'") -- instead of waiting
      assert.is_false((login(token.password)))
    end)
  end)

  it("can refuse the first login with every new password", function()
    ws:set { refuse_first = true }
    with_source(m2m(), function(source)
      assert.is_false((login(assert(source:fetch(20)).password)))
      assert.is_true((login(assert(source:fetch(20, true)).password)))
      assert.is_false((login(assert(source:fetch(20)).password)))
    end)
  end)

  it("keeps its own token for the next password, unless that was refused", function()
    with_source(m2m(), function(source)
      local before = ws:count(TOKEN)
      local looked = ws:count "GET /api/2.0/database/instances/cache"
      for _ = 1, 3 do assert(source:fetch(20)) end
      assert.equal(before + 1, ws:count(TOKEN))
      assert.equal(looked + 1, ws:count "GET /api/2.0/database/instances/cache")
      assert(source:fetch(20, true))
      assert.equal(before + 2, ws:count(TOKEN))
      assert.equal(looked + 2, ws:count "GET /api/2.0/database/instances/cache")
    end)
  end)

  it("is not asked with a token of its own that is near its end", function()
    ws:set { token_life = 0 }
    ws:fault { path = "none" }
    with_source(m2m(), function(source)
      local before = ws:count(TOKEN)
      assert.is_nil((source:fetch(20))) -- 401 at once, and once more
      assert.equal(before + 2, ws:count(TOKEN))
      ws:set { token_life = 3600 }
      assert(source:fetch(20))
      assert.equal(before + 3, ws:count(TOKEN))
    end)
  end)

  it("is asked once more with a new token after a 401, and not twice", function()
    with_source(m2m(), function(source)
      local before, minted = ws:count(TOKEN), ws:count(CREDENTIALS)
      ws:fault { path = CREDENTIALS, status = 401, body = '{"error_code":"UNAUTHENTICATED","message":"no"}' }
      assert(source:fetch(20))
      assert.equal(before + 2, ws:count(TOKEN))
      assert.equal(minted + 2, ws:count(CREDENTIALS))
      ws:fault { path = CREDENTIALS, status = 401, times = 5 }
      local _, err, how = source:fetch(20)
      assert.equal("auth: databricks: the workspace answered 401: not logged in", err)
      assert.is_true(how.permanent)
      assert.equal(minted + 4, ws:count(CREDENTIALS))
    end)
  end)

  it("does not change a token that is fixed after a 401", function()
    local before = ws:count "GET /api/2.0/database/instances/cache"
    fails("^auth: databricks: the workspace answered 401", true, { host = ws.url, token = "dapiffffffff" })
    assert.equal(before + 1, ws:count "GET /api/2.0/database/instances/cache")
  end)

  it("says when to come back", function()
    ws:fault { path = CREDENTIALS, status = 429, headers = { ["Retry-After"] = "7" },
      body = '{"error_code":"RESOURCE_EXHAUSTED","message":"slow down"}' }
    assert.equal(7, fails("^server: databricks: the workspace answered 429 RESOURCE_EXHAUSTED: slow down$", false).retry_after)
    local date = os.date("!%a, %d %b %Y %H:%M:%S GMT", math.floor(system.wall()) + 60)
    ws:fault { path = TOKEN, status = 503, headers = { ["Retry-After"] = date } }
    local how = fails("login oauth%-m2m: the workspace's token endpoint answered 503: unavailable$", false)
    assert.is_true(how.retry_after >= 40 and how.retry_after <= 61, how.retry_after)
  end)

  it("is in trouble that passes or stays", function()
    ws:fault { path = CREDENTIALS, status = 503 }
    assert.equal(0, fails("answered 503: unavailable$", false).retry_after)
    ws:fault { path = CREDENTIALS, status = 502, type = "text/html",
      body = "<html><head><title>502 Bad Gateway</title></head><body>eyJsecret</body></html>" }
    fails("answered 502: 502 Bad Gateway$", false)
    ws:fault { path = CREDENTIALS, status = 403, body = '{"error_code":"PERMISSION_DENIED","message":"not yours"}' }
    fails("^denied: databricks: the workspace answered 403 PERMISSION_DENIED: not yours$", true)
    ws:fault { path = CREDENTIALS, status = 302, headers = { Location = "https://elsewhere.example/login.html?next=eyJx" } }
    fails('a redirect to "https://elsewhere%.example/login%.html", which is not followed', true)
    ws:fault { path = CREDENTIALS, status = 302,
      headers = { Location = "/login.html?error=private-link-validation-error:1" } }
    fails("this network may not reach it %(Private Link%)", true)
    ws:fault { path = CREDENTIALS, status = 200, body = '{"token": "eyJ' }
    fails("answered 200 without a JSON object that can be read", false)
    ws:fault { path = CREDENTIALS, status = 200, body = '{"token": ""}' }
    fails("answered 200 without token that can be read", false)
    ws:fault { path = CREDENTIALS, status = 200, body = '{"token": "with\\nline"}' }
    fails("answered 200 without token that can be read", false)
    ws:fault { path = CREDENTIALS, body_size = 3 * 1024 * 1024 }
    fails("sent an answer of more than 1048576 bytes", false)
    ws:fault { path = CREDENTIALS, cut = "before", times = 2 } -- libcurl asks again on a connection of its own
    fails("^connect: databricks: the workspace: no answer from localhost:", false)
    ws:fault { path = CREDENTIALS, cut = "middle" }
    fails("^connect: databricks: the workspace: no answer from localhost:", false)
    ws:fault { path = CREDENTIALS, delay = 5 }
    fails("^timeout: databricks: the workspace: localhost:.* did not answer in time", false, nil, 0.2)
    ws:down(20)
    fails("^connect: databricks: login oauth%-m2m: no answer from localhost:", false)
  end)

  it("quotes no token that came back in a message", function()
    ws:fault { path = CREDENTIALS, status = 400,
      body = '{"error_code":"BAD","message":"token ' .. workspace.SUBJECT_TOKEN .. " and " .. workspace.PAT .. ' are bad"}' }
    fails("^invalid: databricks: the workspace answered 400 BAD: token %*%*%* and %*%*%* are bad$", true)
  end)

  it("may have a wrong clock, or ours may be", function()
    for _, skew in ipairs { 0, -3000, 1800 } do
      ws:set { date_skew = skew }
      with_source(m2m(), function(source)
        local valid = assert(source:fetch(20)).valid_for
        local expected = 3600 - math.max(skew, 0) -- of the two clocks, the one by which it ends earlier
        assert.is_true(math.abs(valid - expected) < 3, ("%s %s"):format(skew, valid))
      end)
    end
    ws:set { date_skew = 7200 } -- by this clock it would be dead already
    with_source(m2m(), function(source)
      local valid = assert(source:fetch(20)).valid_for
      assert.is_true(math.abs(valid - 3600) < 3, valid)
    end)
  end)

  it("may write times as it likes", function()
    for _, style in ipairs { "whole", "offset", "odd", "none" } do -- the last two: the password says it itself
      ws:set { time_style = style, credential_life = 600 }
      with_source(m2m(), function(source)
        local valid = assert(source:fetch(20)).valid_for
        assert.is_true(math.abs(valid - 600) < 3, ("%s %s"):format(style, valid))
      end)
    end
    ws:fault { path = CREDENTIALS, status = 200, body = '{"token": "opaque"}' }
    with_source(m2m(), function(source)
      local valid = assert(source:fetch(20)).valid_for
      assert.is_true(math.abs(valid - 3600) < 3, valid)
    end)
  end)

  it("works with the other API too", function()
    with_source(m2m { endpoint = "projects/p/branches/b/endpoints/rw", database_user = lake.role }, function(source)
      local token = assert(source:fetch(20))
      assert.equal(lake.host, token.host)
      assert.is_true(login(token.password))
    end)
    fails("^invalid: databricks: the workspace answered 404 NOT_FOUND", true,
      m2m { endpoint = "projects/p/branches/b/endpoints/x" })
  end)
end)

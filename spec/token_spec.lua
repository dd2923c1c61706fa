-- token_spec.lua -- passwords that come from somewhere: options, logins, refusals, TLS, the provider, the command line.
local core = require "fpcache.core"
local database = require "support.database"
local databricks = require "support.databricks"
local files = require "support.files"
local fpcache = require "fpcache"
local lakebase = require "support.lakebase"
local workspace = require "support.workspace"
local system = core.system

describe("passwords from a source", function()
  local lake, dir

  setup(function()
    lake = lakebase.start()
    assert(fpcache.setup_cache { connection_string = lake.srv.url, grant = "public" })
    dir = assert(system.mkdtemp("/tmp/fpcache-token-"))
  end)
  teardown(function()
    lake:stop()
    assert(system.remove_tree(dir))
  end)
  before_each(function() lake:reset() end)
  after_each(database.assert_nothing_open)

  local function write(name, text, mode)
    local path = files.write(dir .. "/" .. name, text)
    assert(system.chmod(path, tonumber(mode or "600", 8)))
    return path
  end

  local function rotate(password) lake:rotate(password) end
  local function options(more) return lake:options(more) end

  --- Opens, calls, closes.
  local function with(more, f)
    local cache = assert(fpcache.new(options(more)))
    local ok, err = pcall(f, cache)
    cache:close()
    if not ok then error(err, 0) end
  end

  local function dbx(more) return lake.ws:m2m(more) end

  --- Every connection of the role ends; the next call has to log in again.
  local function kick(cache)
    lake:kick()
    return cache:ping()
  end

  it("are read from a file, again for each new connection", function()
    rotate("first")
    local path = write("pw", "first\n")
    with({ password_file = path }, function(cache)
      assert.is_true(kick(cache))
      rotate("second")
      write("pw", "second\n")
      assert.is_true(kick(cache))
      local token = assert(cache:stats()).token
      assert.equal("password_file", token.source)
      assert.is_nil(token.last_error)
    end)
    assert(system.chmod(path, tonumber("644", 8)))
    local cache, err = fpcache.new(options { password_file = path })
    assert.is_nil(cache)
    assert.matches("^denied: no password from password_file: .*open to others %(mode 0644%)", err)
    cache, err = fpcache.new(options { password_file = dir .. "/absent" })
    assert.is_nil(cache)
    assert.matches("^invalid: no password from password_file: .*/absent could not be read: No such file", err)
  end)

  it("are asked of a program, which is told nothing of a shell", function()
    rotate("it's $HOME")
    with({ password_command = { "printf", "%s\n", "it's $HOME" } }, function(cache) assert.is_true(cache:ping()) end)
    rotate("json")
    local path = write("program", '#!/bin/sh\necho \'{"token": "json", "expires_in": 900}\'\n', "700")
    with({ password_command = { path } }, function(cache)
      local token = assert(cache:stats()).token
      assert.is_true(token.expires_in > 800 and token.expires_in <= 900)
    end)
    for output, expected in pairs {
      ["exit 3"] = "^auth: no password from password_command: password_command .*/program failed with exit code 3",
      ["echo dapi0123456789abcdef0123456789abcdef >&2; exit 1"] = "exit code 1: %*%*%*",
      ["echo a; echo b"] = "it wrote more than one line", ["true"] = "it wrote nothing",
      ["echo '{\"token\": \"x\", \"expires_in\": \"soon\"}'"] = 'its "expires_in" is no seconds',
      ["echo '{\"token\": \"x\", \"expires_at\": \"soon\"}'"] = 'or its "expires_at" no time',
      ["echo '{}'"] = "it wrote neither one line nor JSON with a \"token\"", ["kill -9 $$"] = "was ended by signal 9",
    } do
      write("program", "#!/bin/sh\n" .. output .. "\n", "700")
      local cache, err = fpcache.new(options { password_command = { path } })
      assert.is_nil(cache)
      assert.matches(expected, err)
    end
  end)

  it("are over when a program says that they are", function()
    for _, said in ipairs { '"expires_in": -1', '"expires_in": 0', '"expires_at": 1', '"expires_at": "2001-01-01T00:00:00Z"' } do
      local source = assert(core.token_source("password_command", { argv = { "printf", '{"token": "over", ' .. said .. "}" } }))
      assert.equal(0, assert(source:fetch(10)).valid_for, said)
      source:close()
    end
  end)

  it("are asked of a function, when one is needed and not before", function()
    local calls, answer = 0, "first"
    local function password()
      calls = calls + 1
      return answer, 3600
    end
    rotate("first")
    with({ password = password }, function(cache)
      assert.equal(1, calls)
      assert.is_true(kick(cache))
      assert.equal(1, calls) -- good for an hour
      rotate("second")
      answer = "second"
      assert.is_true(kick(cache)) -- refused, asked for, taken
      assert.equal(2, calls)
      local token = assert(cache:stats()).token
      assert.equal(2, token.generation)
      assert.equal(1, token.refusals)
    end)
  end)

  it("a function that fails, or closes the cache, does no harm", function()
    rotate("right")
    for _, case in ipairs {
      { function() error("no vault") end, "^auth: no password from the password function: .*no vault" },
      { function() return nil, "the vault is shut" end, "the vault is shut" },
      { function() return 5 end, "it returned no password" },
      { function() return "wrong" end, "^auth: password authentication failed for user .*28P01" },
    } do
      local cache, err = fpcache.new(options { password = case[1] })
      assert.is_nil(cache)
      assert.matches(case[2], err)
    end
    local cache
    cache = assert(fpcache.new(options { password = function()
      if cache then cache:close() end
      return "right", 3600
    end }))
    rotate("other")
    local ok, err = kick(cache)
    assert.is_nil(ok)
    assert.matches("^closed: ", err)
    cache:close()
  end)

  it("come from Databricks, host and user too", function()
    databricks.with({}, function()
      local auth = dbx { database_user = lake.role }
      with({ auth = auth, host = false or nil }, function(cache)
        assert.is_true(kick(cache))
        local token = assert(cache:stats()).token
        assert.equal("databricks", token.source)
        assert.equal(lake.host, token.host)
        assert.equal(1, token.refreshes)
      end)
    end)
  end)

  it("are minted at Databricks with what a caller's function gives", function()
    databricks.with({}, function()
      local calls = 0
      local auth = dbx { token = function()
        calls = calls + 1
        return workspace.PAT
      end }
      auth.client_id, auth.client_secret = nil, nil
      with({ auth = auth }, function(cache)
        assert.is_true(kick(cache))
        assert.equal(1, calls)
        rotate("something else")
        assert.is_true(kick(cache))
        assert.equal(2, calls)
        assert.equal(lake.host, assert(cache:stats()).token.host)
      end)
      auth.token = function() return nil, "no notebook here" end
      local cache, err = fpcache.new(options { auth = auth })
      assert.is_nil(cache)
      assert.matches("no notebook here", err)
    end)
  end)

  it("a refused one costs one refresh, and one more login", function()
    databricks.with({}, function()
      with({ auth = dbx() }, function(cache)
        rotate("something else")
        assert.is_true(kick(cache))
        local token = assert(cache:stats()).token
        assert.equal(2, token.generation)
        assert.equal(1, token.refusals)
        local text = assert(cache:prometheus())
        assert.matches("\nfpcache_token_refusals_total{[^}]*} 1\n", text)
        assert.matches("\nfpcache_token_expires_seconds{[^}]*} 3[56]%d%d", text)
        lake.ws:set { instances = { cache = { host = lake.host } }, credential_life = 0 } -- ended before it is used
        rotate("something else again")
        local ok, err = kick(cache)
        assert.is_nil(ok)
        assert.matches("^auth: ", err)
        assert.is_true(cache:stats() ~= nil)
      end)
    end)
  end)

  it("are shared by all caches with the same source", function()
    databricks.with({}, function()
      with({ auth = dbx() }, function(first)
        with({ auth = dbx(), feed = true }, function(second)
          assert(second:set("k", 1))
          assert(second:wait_ready(20))
          assert.equal(1, second:get("k"))
          assert.equal(1, assert(second:stats()).token.refreshes)
        end)
        assert.equal(1, assert(first:stats()).token.generation)
      end)
    end)
  end)

  it("travel over verified TLS only", function()
    rotate("pw")
    local path = write("pw", "pw")
    local function opening(libpq, more)
      local o = options { password_file = path, libpq = libpq }
      for name, value in pairs(more or {}) do o[name] = value end
      local cache, err = fpcache.new(o)
      if cache then cache:close() end
      return cache ~= nil, err
    end
    local ok, err = opening({})
    assert.is_false(ok) -- the private CA is not among the system's
    assert.matches("certificate verify failed", err)
    assert.is_true(opening({ sslrootcert = lake.ca_file }))
    assert.is_true(opening({ sslmode = "require" }))
    assert.is_true(opening({ sslmode = "verify-ca", sslrootcert = lake.ca_file }))
    for _, mode in ipairs { "disable", "allow", "prefer" } do
      ok, err = opening({ sslmode = mode })
      assert.is_false(ok)
      assert.equal("invalid: sslmode=" .. mode .. " would show the password of password_file to whoever is on the way; "
        .. "use verify-full (the default) or at least require", err)
    end
    assert.is_true(opening({}, { host = lake.srv.host, user = "fpcache" })) -- a unix socket needs none
  end)

  it("one source only", function()
    for _, case in ipairs {
      { { password = "x", password_file = "y" }, "password and password_file each say" },
      { { auth = "aws", instance_name = "y" }, "auth and instance_name each say" },
      { { profile = "x" }, "profile belongs to instance_name or endpoint" },
      { { auth = "frob" }, 'auth: there is no kind "frob"' },
      { { auth = { "password_file", path = "x", pth = "y" } }, 'auth password_file: it has no setting "pth"' },
      { { token_provider = {} }, "a fpcache.DatabricksTokenProvider is expected" },
      { { password_file = "x", connection_string = "postgresql://u:p@h/d" }, "a password beside password_file" },
    } do
      local cache, err = fpcache.new(case[1])
      assert.is_nil(cache)
      assert.matches(case[2], err, 1, true)
    end
    assert.has_error(function() fpcache.new { auth = { 5 } } end)
    assert.has_error(function() fpcache.new { password_command = {} } end)
    assert.has_error(function() fpcache.new { password_command = "sh -c x" } end)
  end)

  it("a provider gives them to everybody, as in Python", function()
    databricks.with({}, function()
      local auth = dbx()
      auth[1], auth.instance_name = nil, nil
      local provider = assert(fpcache.DatabricksTokenProvider { instance_names = { "cache" }, refresh_interval = 3600,
        auto_refresh = true, auth = auth })
      local first = assert(provider:get_token())
      assert.equal(first, assert(provider:get_token()))
      local second = assert(provider:refresh_token())
      assert.are_not.equal(first, second)
      with({ token_provider = provider }, function(cache)
        assert.is_true(cache:ping())
        assert.equal(2, assert(cache:stats()).token.generation)
      end)
      assert.equal(2, provider:stats().generation)
      provider:stop()
      provider:stop()
      local token, err = provider:get_token()
      assert.is_nil(token)
      assert.equal("closed: the token provider was stopped", err)
      local cache, why = fpcache.new(options { token_provider = provider })
      assert.is_nil(cache)
      assert.equal(err, why)
    end)
  end)

  it("fpcache token shows the state, and the password only when told to", function()
    rotate("hush-hush")
    local path = write("pw", "hush-hush")
    local program = (os.getenv("FPC_BUILD_DIR") or "build") .. "/fpcache"
    if not system.stat(program) then return end -- a sanitizer's tree has none
    local function run(...)
      local ran = assert(core.run { argv = { program, "token", ... } })
      return ran.status, ran.output
    end
    local code, text = run("show", "--password-file", path)
    assert.equal(0, code)
    assert.matches("source +password_file", text)
    assert.matches("generation +1", text)
    assert.is_nil(text:find("hush", 1, true))
    code, text = run("show", "--password-file", path, "--reveal")
    assert.equal(0, code)
    assert.matches("password +hush%-hush", text)
    local url = ("postgresql://%s@%s/%s?sslrootcert=%s"):format(lake.role, lake.host, lake.database, lake.ca_file)
    code, text = run("test", "--url", url, "--auth", "password_file", "--auth-setting", "path=" .. path)
    assert.equal(0, code, text)
    assert.matches("logged in as +" .. lake.role, text)
    assert.is_nil(text:find("hush", 1, true))
    rotate("other")
    code, text = run("test", "--url", url, "--password-file", path)
    assert.equal(1, code)
    assert.matches("^fpcache: auth: password authentication failed", text)
    code, text = run("show", "--password-file", dir .. "/absent")
    assert.equal(1, code)
    assert.matches("last error +invalid: ", text)
    code, text = run("show")
    assert.equal(1, code)
    assert.matches("no source of passwords is named", text)
  end)
end)

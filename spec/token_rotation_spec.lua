-- token_rotation_spec.lua -- what changes when a password does: the next login, and nothing else.  Calls in tasks too, whose
-- connections are others.
local core = require "fpcache.core"
local database = require "support.database"
local databricks = require "support.databricks"
local fpcache = require "fpcache"
local lakebase = require "support.lakebase"
local system = core.system

describe("a new password", function()
  local lake

  setup(function()
    lake = lakebase.start()
    assert(fpcache.setup_cache { connection_string = lake.srv.url, grant = "public" })
  end)
  teardown(function() lake:stop() end)
  before_each(function() lake:reset() end)
  after_each(database.assert_nothing_open)

  --- Runs f(cache) on a cache at the lake, in an environment without anything of Databricks.
  local function with(more, f)
    databricks.with({}, function()
      local cache = assert(fpcache.new(lake:options(more)))
      local ok, err = pcall(f, cache)
      cache:close()
      if not ok then error(err, 0) end
    end)
  end

  local function token(cache) return assert(cache:stats()).token end

  local READS = {}
  for i = 1, 100 do READS[i] = i end

  --- That many gets at once; the errors, or nil.
  local function read_all(cache)
    local results, errors = fpcache.parallel { jobs = 32, each = READS, run = function() return cache:get("k") end }
    assert.equal(#READS, results.n)
    return errors
  end

  it("closes no connection that is open", function()
    databricks.with({}, function()
      local auth = lake.ws:m2m()
      auth[1] = nil
      local provider = assert(fpcache.DatabricksTokenProvider { auth = auth })
      with({ token_provider = provider, minconn = 3, feed = true }, function(cache)
        assert(cache:set("k", "v"))
        assert(cache:wait_ready(20))
        assert.is_nil(read_all(cache)) -- opens the connections of tasks
        local before = lake:backends()
        local _, connections = before:gsub("|", "")
        assert.is_true(connections >= 4, before) -- the pool's, the feed's, the tasks'
        for _ = 1, 5 do assert(provider:refresh_token()) end
        lake:rotate("none of them") -- the old passwords are worth nothing any more
        assert.equal("v", cache:get("k"))
        assert(cache:set("k", "v"))
        assert.is_nil(read_all(cache))
        assert.equal(before, lake:backends())
        assert.equal(6, token(cache).generation)
        assert.equal(0, token(cache).refusals)
      end)
      provider:stop()
    end)
  end)

  it("is asked for once by all connections of tasks that were refused", function()
    with({ auth = lake.ws:m2m() }, function(cache)
      assert(cache:set("k", "v"))
      assert.is_nil(read_all(cache))
      lake:rotate("something else")
      lake:kick()
      local errors = read_all(cache)
      assert.is_nil(errors, errors and select(2, next(errors)))
      local _, failed = fpcache.parallel { jobs = 8, each = { 1, 2, 3, 4 },
        run = function(i) return cache:set("k" .. i, i) end }
      assert.is_nil(failed)
      local now = token(cache)
      assert.same({ 2, 2, 1 }, { now.refreshes, now.generation, now.refusals })
    end)
  end)

  it("is in time for tasks whose connections come and go", function()
    lake.ws:set { credential_life = 3 }
    with({ auth = lake.ws:m2m(), max_lifetime = 1 }, function(cache)
      assert(cache:set("k", "v"))
      local began, reads = system.now(), 0
      local function seen_enough() return reads > 500 and token(cache).refreshes >= 3 and cache:stats().pipeline.opened > 4 end
      while system.now() < began + 5 or not seen_enough() and system.now() < began + 30 do
        local errors = read_all(cache)
        assert.is_nil(errors, errors and select(2, next(errors)))
        reads = reads + #READS
      end
      assert.is_true(cache:stats().pipeline.opened > 4, cache:stats().pipeline.opened .. " connections")
      assert.is_true(token(cache).refreshes >= 3, "passwords ended")
      assert.equal(0, token(cache).failures)
      assert.is_true(reads > 500, reads)
    end)
  end)

  it("is not asked for where it would not help", function()
    with({ auth = lake.ws:m2m() }, function(cache)
      local before = token(cache).refreshes
      local other, err = fpcache.new(lake:options { auth = lake.ws:m2m(), database = "no_such_database" })
      assert.is_nil(other)
      assert.matches("^connect: .*no_such_database", err)
      lake.srv:sql("CREATE DATABASE closed_to_all; REVOKE CONNECT ON DATABASE closed_to_all FROM public")
      other, err = fpcache.new(lake:options { auth = lake.ws:m2m(), database = "closed_to_all" })
      assert.is_nil(other)
      assert.matches("^denied: ", err)
      assert.equal(before, token(cache).refreshes)
      assert.equal(0, token(cache).refusals)
    end)
  end)

  it("is asked for too when the server says 28000", function()
    with({ auth = lake.ws:m2m() }, function(cache)
      lake.srv:sql("ALTER ROLE " .. lake.role .. " NOLOGIN")
      lake:kick()
      local ok, err = cache:ping()
      lake.srv:sql("ALTER ROLE " .. lake.role .. " LOGIN")
      assert.is_nil(ok)
      assert.matches("^auth: .*not permitted to log in.*28000.*; new passwords from databricks were refused too", err)
      assert.equal(2, token(cache).refusals) -- of the first one and of the one that was fetched then
      assert.is_true(cache:ping())
    end)
  end)

  it("that is refused as well is the last one for a while, and the error says both", function()
    with({ auth = lake.ws:m2m() }, function(cache)
      lake.ws:set { credential_life = 0 } -- ended before it is used
      lake:rotate("something else")
      lake:kick()
      local asked, start = lake.ws:count "POST /api/2.0/database/credentials", system.now()
      local ok, err = cache:ping()
      assert.is_nil(ok)
      assert.matches("^auth: password authentication failed for user \"cache_user\".*28P01", err)
      asked = lake.ws:count "POST /api/2.0/database/credentials" - asked
      assert.is_true(asked <= 2 + (system.now() - start), asked .. " were asked for: more than one a second")
    end)
  end)

  it("is one of several that are good, each until its own end, where the server says so", function()
    local shared = lakebase.start { shared = true }
    local function logs_in(password)
      return core.run { argv = { shared.srv.psql, "-XAtqw", "-c", "SELECT current_user" }, env = { "PGHOST=" .. shared.host,
        "PGUSER=" .. shared.role, "PGDATABASE=" .. shared.database, "PGPASSWORD=" .. password, "PGSSLMODE=verify-full",
        "PGSSLROOTCERT=" .. shared.ca_file } }.output
    end
    databricks.with({}, function()
      local settings = shared.ws:m2m()
      settings[1] = nil
      local source = assert(core.token_source("databricks", settings))
      local first, second = assert(source:fetch(20)), assert(source:fetch(20))
      assert.equal(shared.role .. "\n", logs_in(first.password))
      assert.equal(shared.role .. "\n", logs_in(second.password))
      assert.matches("authentication failed", logs_in(first.password .. "x"))
      shared.ws:set { credential_life = 0 }
      assert.matches("authentication failed", logs_in(assert(source:fetch(20)).password))
      assert.equal(shared.role .. "\n", logs_in(first.password))
      source:close()
    end)
    shared.ws:set { credential_life = 3600 }
    local cache, err = fpcache.new(shared:options { auth = shared.ws:m2m(), user = "fpcache" })
    assert.is_nil(cache)
    assert.matches("^auth: RADIUS authentication failed.*28000", err) -- as other servers say it who ask a service
    shared:stop()
  end)
end)

-- The calls of a cache inside nginx: they yield, and are right.
local database = require "support.database"
local nginx = require "support.nginx"

if not nginx.is_testable then return end

describe("a cache inside nginx", function()
  local db, server

  setup(function()
    db = database.new()
    db:url_of("with_password", "secret")
    server = nginx.start {
      init_worker = ([[
        local asked = 0
        require("fpcache.nginx").init_worker { name = "login", host = %q, database = %q, user = "with_password",
          feed = false, password = function()
            asked = asked + 1
            ngx.shared.counts:set("asked", asked)
            return "secret"
          end }]]):format(db.srv.host, db.name),
      http = "lua_shared_dict counts 1m;",
      cache = { connection_string = db:url_of(), max_staleness = 0.5, feed_interval = 0.02 },
      server = nginx.RUN,
    }
  end)

  teardown(function()
    assert.is_true(server:stop())
    db:close_all()
  end)

  local function run(code) return server:run(code) end

  it("stores and reads, and says who answered", function()
    assert.equal("true", run 'assert(cache:wait_ready(10)) assert(cache:set("a", { n = 1, s = "x" }, 60))')
    assert.equal("true 1 db", run 'assert(cache:wait_ready(10)) local v, _, from = cache:get("a") return v.n, from')
    assert.equal("true 1 near", run 'local v, _, from = cache:get("a") return v.n, from')
    assert.equal("true nil nil filter", run 'return cache:get("nobody")')
    assert.equal("true nil nil db", run 'return cache:get("nobody", { near = false })')
  end)

  it("has the other calls too", function()
    assert.equal("true true 3", run 'return cache:set("n", 1) and cache:incr("n") and cache:incr("n") == 3, (cache:get("n"))')
    assert.equal("true 2", run 'return cache:set_many { b = 1, c = false }')
    assert.equal("true 1 false nil",
      run 'local found = cache:get_many { "b", "c", "d" } return found.b, found.c, found.d')
    assert.equal("true true false", run 'return cache:delete("b"), cache:exists("b")')
    assert.equal("true true -1 nil", run 'return cache:ttl("c") == -1, cache:ttl("c")')
    assert.equal("true 7 loader", run [[
      local v, _, from = cache:fetch("f", 60, function() ngx.sleep(0.01) return 7 end)
      return v, from]])
    assert.equal("true 7 db", run 'local v, _, from = cache:fetch("f", { ttl = 60, near = false }, error) return v, from')
    assert.equal("true c", run 'local all = {} for key in cache:scan { prefix = "c" } do all[#all + 1] = key end return all[1]')
    assert.equal("true true", run 'return (cache:namespace("other"):set("a", 1))')
    assert.equal("true 1", run 'return (cache:namespace("other"):clear())')
    assert.equal("true nil", run 'return (cache:get("b"))')
  end)

  it("keeps binary values and 64-bit integers", function()
    assert.equal("true true", run 'local s = "\\0\\255" .. ("x"):rep(100000) cache:set("bin", s) return cache:get("bin") == s')
    assert.equal("true 9007199254740993LL", run 'cache:set("big", 9007199254740993LL) return (cache:get("big"))')
  end)

  it("answers programmers' errors as elsewhere", function()
    assert.matches("^false .*bad key", run 'return cache:get(1)')
    assert.equal("true nil invalid: a key must not be empty", run 'return cache:get("")')
    assert.equal("true nil nil", run "return cache:transaction(function() end)") -- and see nginx_transaction_spec.lua
    assert.matches("^true nil invalid: nginx has its event loop", run 'return fpcache.run()')
  end)

  it("logs in by a password that a function gives", function()
    assert.equal("true true 1", run [[
      local login = require("fpcache.nginx").cache("login")
      assert(login:set("mine", 1))
      return ngx.shared.counts:get("asked") >= 1, (login:get("mine"))]])
    assert.matches("no cache is called", run 'return require("fpcache.nginx").cache("none")')
  end)

  it("lets others go on while one waits", function()
    local locker = assert(require("fpcache").new { connection_string = db:url_of(), feed = false })
    run 'cache:set("locked", 1)'
    local slow
    assert(locker:transaction(function(tx)
      assert(tx:set("locked", 2))
      slow = server:open("/run", { method = "POST", body = 'local ok, err = cache:set("locked", 3) return ok, err' })
      for _ = 1, 20 do assert.equal("true nil", run 'return (cache:get("nobody here", { near = false }))') end
      return true
    end))
    assert.equal("true true nil", slow:read().body)
    assert.equal("true 3", run 'return (cache:get("locked", { near = false }))')
    locker:close()
  end)

  it("runs many in one request", function()
    assert.equal("true 100 5050", run [[
      local sum, keys = 0, {}
      for i = 1, 100 do keys[i] = i end
      local results, errors = fpcache.parallel { jobs = 16, each = keys, run = function(i)
        assert(cache:set("p" .. i, i))
        return (cache:get("p" .. i))
      end }
      assert(not errors)
      for i = 1, 100 do sum = sum + results[i] end
      return results.n, sum]])
    assert.equal("true 5 true nil raised: x", run [[
      local task = fpcache.spawn(function(a, b) fpcache.sleep(0.01) return a + b end, 2, 3)
      local bad = fpcache.spawn(function() error("x", 0) end)
      local slow = fpcache.spawn(function() fpcache.sleep(5) end)
      local late = select(2, fpcache.await(slow, 0.01)):find("^timeout:")
      fpcache.cancel(slow)
      assert(select(2, fpcache.await(slow)):find("^interrupted:"))
      return (fpcache.await(task)), late == 1, fpcache.await(bad)]])
  end)

  it("cannot wait inside a C function", function()
    assert.matches("^true invalid: .*table.sort", run [[
      local err
      table.sort({ 2, 1 }, function(a, b) err = select(2, cache:get("x", { near = false })) return a < b end)
      return err]])
  end)

  it("is right under load", function()
    run 'for i = 1, 50 do cache:set("load" .. i, "value " .. i) end'
    local result = server:load { path = "/run", connections = 32, seconds = 1, script = [[
      local n = 0
      request = function()
        n = n % 50 + 1
        return wrk.format("POST", nil, nil, ([=[
          local v, err = cache:get("load%d", { near = %s })
          if v ~= "value %d" then ngx.status = 500 ngx.log(ngx.ERR, tostring(v), " ", tostring(err)) end]=])
          :format(n, tostring(n % 2 == 0), n))
      end]] }
    assert.equal(0, result.not_2xx, server:log():sub(-2000))
    assert.equal(0, result.timeout + result.read + result.connect)
    assert.is_true(result.requests > 32, result.text)
    assert.is_truthy(database.eventually(function() -- what wrk left behind is answered
      return run 'local stats = require("fpcache.nginx").stats() return stats.channel, stats.in_flight' == "true open 0"
    end))
  end)
end)

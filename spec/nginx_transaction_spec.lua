-- Transactions inside nginx: they yield, and whatever becomes of the request, nothing of them stays open.
local core = require "fpcache.core"
local database = require "support.database"
local nginx = require "support.nginx"

if not nginx.is_testable then return end

local system = core.system

local LOCATIONS = [[
  location = /alive2 { content_by_lua_block { ngx.print("alive") } }
  location = /count { content_by_lua_block {
    local cache = require("fpcache.nginx").cache()
    local ok, err = cache:transaction(function(tx)
      assert(tx:query("SELECT 1 FROM pg_advisory_xact_lock(7)"))
      return tx:set("count", (tx:get("count") or 0) + 1)
    end)
    if not ok then ngx.status = 503 ngx.print(err) end
  } }
  location = /log {
    content_by_lua_block { ngx.print("logged") }
    log_by_lua_block {
      package.loaded.seen = table.concat({ tostring((require("fpcache.nginx").cache():transaction(error))),
        (select(2, require("fpcache.nginx").cache():transaction(error))) }, " ")
    }
  }
]]

describe("a transaction inside nginx", function()
  local db, server

  setup(function()
    db = database.new()
    db:sql("CREATE TABLE orders (id bigint PRIMARY KEY, note text); GRANT ALL ON orders TO PUBLIC")
    server = nginx.start {
      cache = { connection_string = db:url_of(), max_staleness = 0.5, feed_interval = 0.02, maxconn = 3, timeout = 15 },
      server = nginx.RUN .. LOCATIONS,
      init_worker = [[ -- the time of nginx/transport.lua is 10 s
        local core = require("fpcache.core")
        local pin = core.pin
        core.pin = function(pool, idle) return pin(pool, package.loaded.idle_of_pins or idle) end]],
    }
  end)
  teardown(function()
    assert.is_true(server:stop())
    db:close_all()
  end)
  before_each(function() db:sql("TRUNCATE cache, orders") end)

  local function run(code) return server:run(code) end

  local function open(code) return server:open("/run", { method = "POST", body = code }) end

  --- Waits until no transaction of the role is open; more than the deadline of an idle one is not waited for.
  local function await_none(what)
    assert.is_truthy(database.eventually(function()
      return db:sql([[SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND datname = current_database()
        AND (state LIKE 'idle in transaction%' OR (state = 'active' AND query LIKE '%advisory%'))]]) == "0"
    end), what)
    assert.equal("0", db:sql("SELECT count(*) FROM orders"), what)
  end

  --- Runs `meanwhile` while nobody else can have the lock 99: who asks for it waits.
  local function hold_99(meanwhile)
    local holder = assert(db:open():transaction(function(tx)
      assert(tx:query("SELECT 1 AS x FROM pg_advisory_xact_lock(99)"))
      meanwhile(function()
        assert.is_truthy(database.eventually(function()
          return db:sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() " ..
            "AND wait_event = 'advisory' AND query LIKE '%lock(99)%'") == "1"
        end))
      end)
      return true
    end))
    assert.is_true(holder)
  end

  it("commits, rolls back, and passes values and errors", function()
    assert.equal("true 5 nil three", run [[
      return cache:transaction(function(tx, a, b)
        assert(tx:set("k", a + b, 60))
        assert(tx:query("INSERT INTO orders VALUES ($1, $2)", 7, "seven") == 1)
        assert(tx:query("SELECT note FROM orders")[1].note == "seven")
        assert(not cache:get("k", { near = false }))
        return tx:get("k"), nil, "three"
      end, 2, 3)]])
    assert.equal("true 5 true", run 'return (cache:get("k")), cache:ttl("k") > 50')
    assert.equal("true nil not today", run [[
      return cache:transaction(function(tx) tx:set("k", 6) return nil, "not today" end)]])
    assert.equal("false raised", run 'return cache:transaction(function(tx) tx:set("k", 6) error("raised", 0) end)')
    assert.equal("true 5", run 'return (cache:get("k", { near = false }))')
    assert.matches("^true nil conflict: the transaction was rolled back", run [[
      return cache:transaction(function(tx) tx:query("SELECT 1 / 0") return true end)]])
    assert.equal("true 2 nil", run [[
      return cache:transaction(function(tx)
        tx:transaction(function(inner) inner:set("inner", 1) return nil, "no" end)
        tx:set("k", 2)
        return tx:count() + (tx:get("inner") and 100 or 1)
      end)]])
    assert.matches("^true invalid: .*table.sort", run [[
      return cache:transaction(function(tx)
        local err
        table.sort({ 2, 1 }, function(a, b) err = select(2, tx:get("k")) return a < b end)
        return err
      end)]])
    assert.equal("true 1", run [[
      local got
      ngx.timer.at(0, function() got = cache:transaction(function(tx) return tx:incr("timer") end) end)
      for _ = 1, 500 do ngx.sleep(0.01) if got then break end end
      return got]])
    assert.equal("logged", server:body("/log"))
    assert.is_truthy(database.eventually(function()
      return run('return package.loaded.seen'):find("^true nil invalid: only the server knows the answer, and nginx's phase log")
    end))
  end)

  it("waits without blocking its worker", function()
    local locker = db:open()
    assert(locker:set("locked", 1))
    local going
    assert(locker:transaction(function(tx)
      assert(tx:set("locked", 2))
      going = open 'return cache:transaction(function(tx) return tx:incr("locked", 10) end)'
      assert.is_truthy(database.eventually(function()
        return db:sql([[SELECT count(*) FROM pg_stat_activity
          WHERE wait_event_type = 'Lock' AND datname = current_database()]]) == "1"
      end))
      for _ = 1, 10 do assert.equal("alive", server:body("/alive2")) end
      for _ = 1, 10 do assert.equal("true nil", run 'return (cache:get("nobody", { near = false }))') end
      return true
    end))
    assert.equal("true 12 nil", going:read().body)
  end)

  it("sends a large set_many in batches, all or nothing, while others are served", function()
    local big = open [[
      local i = 0
      return cache:set_many(function() i = i + 1 if i <= 60000 then return "many" .. i, ("x"):rep(50) end end)]]
    local served, slowest = 0, 0
    big.connection:settimeout(0)
    repeat
      local began = system.now()
      assert.equal("alive", server:body("/alive2"))
      slowest, served = math.max(slowest, system.now() - began), served + 1
      local line, err = big.connection:receive(0)
    until line or err ~= "timeout" or served > 100000
    big.connection:settimeout(60)
    assert.equal("true 60000", big:read().body)
    assert.is_true(served >= 3, served)
    assert.equal("60000", db:sql("SELECT count(*) FROM cache"))
    assert.equal("true 60000", run 'return cache:clear()')
    assert.matches("^true nil invalid: .*item 25000", run [[
      local i = 0
      return cache:set_many(function() i = i + 1 if i <= 30000 then return i == 25000 and "" or "many" .. i, 1 end end)]])
    assert.equal("0", db:sql("SELECT count(*) FROM cache"))
  end)

  it("is rolled back when its request goes away", function()
    run 'package.loaded.idle_of_pins = 0 collectgarbage("stop")' -- neither time nor the collector helps
    local begin = 'return cache:transaction(function(tx) assert(tx:query("INSERT INTO orders VALUES (1)")) '
    local wait = 'return tx:query("SELECT 1 AS x FROM pg_advisory_xact_lock(99)") end)'
    hold_99(function(await_waiter)
      local client = open(begin .. wait)
      await_waiter()
      client:abort() -- the coroutine vanishes; its statement ends, and nobody is there
    end)
    await_none("client gone")

    hold_99(function(await_waiter)
      local going = open([[
        local thread = ngx.thread.spawn(function() ]] .. begin .. wait .. [[ end)
        package.loaded.may_kill = false
        while not package.loaded.may_kill do ngx.sleep(0.005) end
        ngx.thread.kill(thread)
        return "gone"]])
      await_waiter()
      run 'package.loaded.may_kill = true'
      assert.equal("true gone", going:read().body)
    end)
    await_none("thread killed")

    run [[ -- taken at any moment, also between being woken and running
      package.loaded.idle_of_pins = nil
      for i = 1, 60 do
        local thread = ngx.thread.spawn(function()
          cache:transaction(function(tx) for _ = 1, 50 do tx:set("k" .. i, 1) end return nil, "undone" end)
        end)
        ngx.sleep(0.001 * (i % 6))
        ngx.thread.kill(thread)
      end]]
    assert.is_truthy(database.eventually(function() return run 'return cache:stats().pool.lent' == "true 0" end))

    run 'collectgarbage("restart") package.loaded.idle_of_pins = 2' -- of this one only the time tells
    local answer = server:get("/run", { method = "POST", body = begin .. "ngx.exit(403) end)" })
    assert.equal(403, answer.status)
    run 'package.loaded.idle_of_pins = nil'
    await_none("ngx.exit")
  end)

  it("is rolled back when it asks nothing for too long", function()
    assert.equal("true true closed: the transaction was rolled back: it asked nothing for 0.7 s", run [[
      package.loaded.idle_of_pins = 0.7
      local is_broken, err
      cache:transaction(function(tx)
        package.loaded.idle_of_pins = nil
        assert(tx:query("INSERT INTO orders VALUES (1)"))
        for _ = 1, 2000 do
          ngx.sleep(0.01)
          is_broken = tx.db:is_broken()
          if is_broken then break end
        end
        err = select(2, tx:set("k", 1))
        return nil, err
      end)
      return is_broken, err]])
    await_none("idle")
  end)

  it("goes on when its connection is cut, or the server refuses", function()
    assert.matches("^true nil connect: ", run [[
      return cache:transaction(function(tx)
        assert(tx:query("INSERT INTO orders VALUES (1)"))
        tx:query("SELECT pg_terminate_backend(pg_backend_pid())")
        return tx:set("k", 1)
      end)]])
    await_none("cut")
    assert.matches("^true true", run 'return cache:transaction(function(tx) return tx:set("k", 1) end)')
  end)

  it("takes turns when there are more than connections, and loses no count", function()
    local result = server:load { path = "/count", connections = 24, seconds = 1 }
    assert.equal(0, result.not_2xx + result.timeout + result.connect + result.read, result.text)
    assert.is_true(result.requests > 3, result.text) -- as many as have a connection, and more
    assert.is_truthy(database.eventually(function() -- what wrk left behind ends too
      return run 'local s = require("fpcache.nginx").stats() return s.in_flight, cache:stats().pool.lent' == "true 0 0"
    end))
    local count = tonumber(run 'return (cache:get("count", { near = false }))':match("%d+"))
    assert.is_true(count >= result.requests and count <= result.requests + 24, count .. " " .. result.text)
    assert.is_true(tonumber(db:sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")) <= 3 + 4 + 2)
  end)

  it("ends in time on a reload under load", function()
    local load = server:start_load { path = "/count", connections = 8, seconds = 2 }
    assert.is_truthy(server:reload(20))
    local result = load:read()
    assert.equal(0, result.not_2xx + result.timeout + result.connect, result.text)
    assert.is_nil(server:log():match("exited on signal"), server:log())
  end)
end)

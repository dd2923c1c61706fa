-- Transactions in tasks: they yield, and keep all that transaction_spec.lua asks of those that block.
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"

describe("a transaction in a task", function()
  local db, cache

  setup(function()
    db = database.new()
    db:sql("CREATE TABLE orders (id bigint PRIMARY KEY, note text); GRANT ALL ON orders TO PUBLIC")
  end)
  before_each(function()
    db:sql("TRUNCATE cache, orders")
    cache = db:open { maxconn = 3, timeout = 60 } -- however busy the machine is
  end)
  after_each(function() db:close_all() end)

  --- Runs fn in a task and gives what it returned; what it raised is raised.
  local function in_task(fn)
    local task = fpcache.spawn(fn)
    local first, second, third = fpcache.await(task)
    if task.raised then error(task.raised, 0) end
    return first, second, third
  end

  local function eventually_free()
    assert.is_truthy(database.eventually(function() return cache:stats().pool.lent == 0 end))
  end

  local function nothing_stays()
    eventually_free()
    assert.equal("0|0", db:sql("SELECT (SELECT count(*) FROM cache), (SELECT count(*) FROM orders)"))
  end

  it("commits what its function did, and gives what it returned", function()
    local first, second, third = in_task(function()
      return cache:transaction(function(tx, x, y)
        assert(tx:set("k", x + y, 60))
        assert(tx:set("l", { deep = { "x" } }))
        assert.equal(2, tx:query("INSERT INTO orders VALUES ($1, $2), (8, $3)", 7, "seven", nil))
        assert.same({ { id = 7, note = "seven" }, { id = 8 } }, tx:query("SELECT * FROM orders ORDER BY id"))
        assert.is_nil((cache:get("k")), "nobody sees it before")
        assert.equal(5, tx:get("k"))
        assert.same({ k = 5, l = { deep = { "x" } } }, tx:get_many { "k", "l", "m" })
        assert.equal(6, tx:incr("k"))
        assert.is_true(tx:ttl("k") > 50)
        assert.equal(6, tx:get_delete("k"))
        assert.same({ "l" }, tx:keys())
        return 1, false, "three"
      end, 2, 3)
    end)
    assert.same({ 1, false, "three" }, { first, second, third })
    assert.equal("7", db:sql("SELECT min(id) FROM orders"))
    eventually_free()
    assert.same({ 1, 1 }, { cache:stats().pool.opened, cache:stats().pool.idle }, "its connection lives on")
  end)

  it("is rolled back where its function raises, or gives nil and an error", function()
    local mistake = { "any value" }
    local raised = in_task(function()
      return select(2, pcall(cache.transaction, cache, function(tx)
        assert(tx:set("k", 1))
        error(mistake)
      end))
    end)
    assert.equal(mistake, raised)
    nothing_stays()
    local value, err, more = in_task(function()
      return cache:transaction(function(tx)
        assert(tx:query("INSERT INTO orders VALUES (1, 'x')"))
        return nil, "not today", 5
      end)
    end)
    assert.is_nil(value)
    assert.equal("not today", err)
    assert.equal(5, more)
    nothing_stays()
  end)

  it("has savepoints inside, and says that a failed statement spoils it", function()
    assert.is_true(in_task(function()
      return cache:transaction(function(tx)
        assert(tx:set("outer", 1))
        local _, err = tx:transaction(function(inner)
          assert(inner:set("inner", 1))
          return inner:query("SELECT 1 / 0")
        end)
        assert.matches("division by zero", err)
        return tx:transaction(function(inner) return inner:set("second", 1) end)
      end)
    end))
    assert.same({ outer = 1, second = 1 }, cache:get_many { "outer", "inner", "second" })
    local _, err = in_task(function()
      return cache:transaction(function(tx)
        tx:query("SELECT 1 / 0")
        return true
      end)
    end)
    assert.equal("conflict: the transaction was rolled back, because a statement in it had failed", err)
    _, err = in_task(function() return cache:transaction(function(tx) return tx:query("COMMIT") end) end)
    assert.equal("invalid: this SQL ended the transaction, which ends when its function returns", err)
    eventually_free()
  end)

  it("lets others run while it waits for a lock", function()
    local ticks, got = 0, nil
    assert(cache:set("locked", 1))
    local holder = db:open()
    local has_lock, may_end = false, false
    local first = fpcache.spawn(function()
      return holder:transaction(function(tx)
        assert(tx:set("locked", 2))
        has_lock = true
        while not may_end do fpcache.sleep(0.002) end
        return true
      end)
    end)
    local second = fpcache.spawn(function()
      while not has_lock do fpcache.sleep(0.001) end
      return cache:transaction(function(tx)
        got = tx:incr("locked", 10) -- waits for the first one
        return got
      end)
    end)
    local ticker = fpcache.spawn(function()
      while not has_lock do fpcache.sleep(0.001) end
      for _ = 1, 20 do
        fpcache.sleep(0.002)
        ticks = ticks + 1
      end
      assert.is_nil(got)
      may_end = true
    end)
    assert.is_nil(select(2, fpcache.await(ticker, 20)))
    assert.is_true((fpcache.await(first, 20)))
    assert.equal(12, (fpcache.await(second, 20)))
    assert.equal(20, ticks)
  end)

  it("waits its turn when there are more than connections", function()
    assert(cache:set("n", 0))
    local running, most, deadline = 0, 0, core.system.now() + 20
    local results, errors = fpcache.parallel { jobs = 40, each = (function()
      local i = 0
      return function() i = i + 1 return i <= 60 and i or nil end
    end)(), run = function()
      return cache:transaction(function(tx)
        running = running + 1
        most = math.max(most, running)
        while most < 3 and core.system.now() < deadline do fpcache.sleep(0.001) end -- the first three meet
        local n = tx:query("SELECT 1 AS x FROM pg_advisory_xact_lock(7)") and tx:get("n")
        fpcache.sleep(0)
        assert(tx:set("n", n + 1))
        running = running - 1
        return true
      end)
    end }
    assert.is_nil(errors)
    assert.equal(60, results.n)
    assert.equal(60, cache:get("n"))
    assert.equal(3, most)
    eventually_free()
    local held = db:open { maxconn = 1, timeout = 0.1 }
    local _, err = in_task(function()
      return held:transaction(function(tx)
        assert(tx:ping())
        local task = fpcache.spawn(function() return held:transaction(function() return true end) end)
        return fpcache.await(task)
      end)
    end)
    assert.equal("busy: all 1 connections stayed in use (see maxconn)", err)
  end)

  it("waits for one of its own where the server has no room for more", function()
    db:url_of("limited")
    db:sql("ALTER ROLE limited CONNECTION LIMIT 1")
    local narrow = db:open { as = "limited", timeout = 60 }
    local order = {}
    local tasks = {}
    for i = 1, 3 do
      tasks[i] = fpcache.spawn(function()
        return narrow:transaction(function(tx)
          while i == 1 and narrow:stats().pool.waiting < 2 do assert(fpcache.sleep(0.002)) end -- both found no room
          order[#order + 1] = i
          return tx:ping()
        end)
      end)
      while i == 1 and narrow:stats().pool.lent == 0 do fpcache.step(0.01) end
    end
    for i = 1, 3 do assert.same({ true }, { fpcache.await(tasks[i]) }) end
    assert.equal(3, #order)
    assert.equal(1, order[1])
    assert.equal(1, narrow:stats().pool.opened)
  end)

  it("lets the next one go on when the first in the queue is cancelled", function()
    local one = db:open { maxconn = 1, timeout = 60 } -- longer than anybody waits below
    local has_begun, may_end, cancelled = false, false, nil
    local holder = fpcache.spawn(function()
      local name = one:transaction(function()
        has_begun = true
        while not may_end do fpcache.sleep(0.001) end
        return "held"
      end)
      fpcache.cancel(cancelled) -- which was told already that there is a place
      return name
    end)
    assert.is_true(database.eventually(function() fpcache.sleep(0.001) return has_begun end))
    local function waiter(name) return fpcache.spawn(function() return one:transaction(function() return name end) end) end
    cancelled = waiter("cancelled")
    local second, third = waiter("second"), waiter("third")
    fpcache.sleep(0.01)
    may_end = true
    assert.same({ "held", "second", "third" },
      { (fpcache.await(holder, 20)), (fpcache.await(second, 20)), (fpcache.await(third, 20)) })
    assert.matches("^interrupted:", (select(2, fpcache.await(cancelled))))
  end)

  it("takes what many tasks tell it, one after the other", function()
    assert.equal(20, in_task(function()
      return cache:transaction(function(tx)
        local items = {}
        for i = 1, 20 do items[i] = i end
        local results, errors = fpcache.parallel { jobs = 20, each = items, run = function(i)
          assert(tx:set("p" .. i, i))
          return (tx:get("p" .. i))
        end }
        assert(not errors)
        for i = 1, 20 do assert.equal(i, results[i]) end
        return tx:count()
      end)
    end))
  end)

  it("ends with its connection", function()
    local _, err = in_task(function()
      return cache:transaction(function(tx)
        assert(tx:set("k", 1))
        local pid = tx:query("SELECT pg_backend_pid() AS p")[1].p
        assert.equal("t", db:sql("SELECT pg_terminate_backend(" .. tostring(pid):gsub("LL", "") .. ", 10000)"))
        local ok, reason = tx:set("l", 2)
        assert.is_nil(ok)
        return nil, reason
      end)
    end)
    assert.matches("^connect: ", err)
    nothing_stays()
    assert.is_true(in_task(function() return cache:transaction(function(tx) return tx:set("k", 1) end) end))
  end)

  it("keeps its deadlines, and a cancelled one is rolled back", function()
    local quick = db:open { bulk_timeout = 0.2 }
    local _, err = in_task(function()
      return quick:transaction(function(tx)
        assert(tx:set("k", 1))
        return tx:query("SELECT pg_sleep(60)")
      end)
    end)
    assert.matches("^timeout: ", err)
    local asked = false
    local task = fpcache.spawn(function()
      return cache:transaction(function(tx)
        assert(tx:set("k", 1))
        asked = true
        return tx:query("SELECT pg_sleep(60)")
      end)
    end)
    in_task(function()
      while not asked do fpcache.sleep(0.001) end
      fpcache.sleep(0.02)
      fpcache.cancel(task)
    end)
    assert.equal("interrupted: the task was cancelled", (select(2, fpcache.await(task, 20))))
    task = fpcache.spawn(function()
      return cache:transaction(function(tx)
        assert(tx:set("k", 1))
        asked = "asleep"
        return fpcache.sleep(60)
      end)
    end)
    in_task(function()
      while asked ~= "asleep" do fpcache.sleep(0.001) end
      fpcache.cancel(task)
    end)
    assert.equal("interrupted: the task was cancelled", (select(2, fpcache.await(task, 20))))
    nothing_stays()
  end)

  it("blocks where Lua cannot yield, and is right", function()
    assert.same({ 1, 2, 3 }, in_task(function()
      return cache:transaction(function(tx)
        local list = { 3, 1, 2 }
        for i = 1, 3 do assert(tx:set("sort" .. i, i)) end
        table.sort(list, function(a, b) return tx:get("sort" .. a) < tx:get("sort" .. b) end)
        return list
      end)
    end))
  end)

  it("sends a large set_many in batches, while others run, all or nothing", function()
    local function items(n, bad)
      local i = 0
      return function()
        i = i + 1
        if i == bad then return "" end
        if i <= n then return "many" .. i, i end
      end
    end
    local ticks, done = 0, false
    local ticker = fpcache.spawn(function()
      while not done do
        ticks = ticks + 1
        fpcache.sleep(0)
      end
    end)
    assert.equal(1000, in_task(function()
      local count = assert(cache:set_many(items(1000), { batch = 100 }))
      done = true
      return count
    end))
    fpcache.await(ticker, 20)
    assert.is_true(ticks >= 5, ticks)
    assert.equal(1000, cache:count())
    assert(cache:clear())
    local _, err = in_task(function() return cache:set_many(items(1000, 555), { batch = 100 }) end)
    assert.matches("^invalid: .*item 555", err)
    eventually_free()
    assert.equal(0, cache:count())
  end)

  it("is rolled back when nothing refers to it any more, or the cache is closed", function()
    local queue = assert(core.completions(10))
    local function ask(pin, what, kind)
      local id, err = pin:submit(queue, what, 20, kind)
      if not id then return nil, err end
      while not queue:next() do assert(queue:wait(20)) end
      return kind == "script" and queue:script() or queue:done()
    end
    do
      local pin = assert(core.pin(cache.pool, 0))
      assert.is_true(ask(pin))
      assert.equal("BEGIN", ask(pin, "BEGIN", "script"))
      assert.equal(1, cache:stats().pool.lent)
      pin = nil -- luacheck: ignore 311
    end
    collectgarbage()
    collectgarbage()
    eventually_free()
    local pin = assert(core.pin(cache.pool, 0.05)) -- or asked for nothing for too long
    assert.equal("BEGIN", ask(pin, "BEGIN", "script"))
    eventually_free()
    assert.same({ nil, "closed: the transaction was rolled back: it asked nothing for 0.05 s" },
      { ask(pin, "COMMIT", "script") })
    pin:close()
    local _, err = in_task(function()
      return cache:transaction(function(tx)
        assert(tx:set("k", 1))
        cache:close()
        return tx:set("l", 2)
      end)
    end)
    assert.is_nil(err) -- the connection was lent before
    assert.equal("2", db:sql("SELECT count(*) FROM cache"))
    assert.matches("^closed: ", (select(2, in_task(function() return cache:transaction(error) end))))
    queue:close()
  end)
end)

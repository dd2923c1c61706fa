-- transaction_spec.lua -- all or nothing, with the caller's own SQL.
local core = require "fpcache.core"
local database = require "support.database"
local exact = require "support.exact"
local fpcache = require "fpcache"
local raises = require "support.raises"

local ABORTED = "conflict: the transaction was rolled back, because a statement in it had failed"

describe("a transaction", function()
  local db, cache

  setup(function()
    db = database.new()
    db:sql("CREATE TABLE orders (id bigint PRIMARY KEY, note text); GRANT ALL ON orders TO PUBLIC")
  end)
  before_each(function()
    db:sql("TRUNCATE cache, orders")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function nothing_stays()
    assert.equal(0, cache:stats().pool.lent)
    assert.equal("0|0", db:sql("SELECT (SELECT count(*) FROM cache), (SELECT count(*) FROM orders)"))
  end

  it("commits what its function did, and gives what it returned", function()
    local a, b, c, d = cache:transaction(function(tx, x, y)
      assert(tx:set("k", x + y))
      assert.equal(1, tx:query("INSERT INTO orders VALUES ($1, $2)", 7, "seven"))
      assert.is_nil((cache:get("k")), "nobody sees it before")
      assert.equal(5, tx:get("k"))
      return 1, nil, false, "d"
    end, 2, 3)
    assert.same({ 1, false, "d" }, { a, c, d })
    assert.is_nil(b)
    assert.equal(5, cache:get("k"))
    assert.equal("7|seven", db:sql("SELECT * FROM orders"))
    assert.equal(2, cache:stats().pool.idle, "both connections live on")
  end)

  it("commits also where nothing, nil or false is returned", function()
    assert.is_nil((cache:transaction(function(tx) tx:set("a", 1) end)))
    assert.is_nil((cache:transaction(function(tx) tx:set("b", 1) return nil end)))
    assert.is_false((cache:transaction(function(tx) tx:set("c", 1) return false end)))
    assert.equal(3, cache:count())
  end)

  it("is rolled back where its function raises, and the error goes on", function()
    local mistake = { "any value" }
    local ok, problem = pcall(cache.transaction, cache, function(tx)
      assert(tx:set("k", 1))
      assert(tx:query("INSERT INTO orders VALUES (1, 'x')"))
      error(mistake)
    end)
    assert.is_false(ok)
    assert.equal(mistake, problem)
    nothing_stays()
    raises("with a place", function() cache:transaction(function() error("with a place") end) end)
    nothing_stays()
  end)

  it("is rolled back where its function gives nil and an error", function()
    local value, err, more = cache:transaction(function(tx)
      assert(tx:set("k", 1))
      return nil, "not today", 5
    end)
    assert.is_nil(value)
    assert.equal("not today", err)
    assert.equal(5, more)
    nothing_stays()
  end)

  it("has every call of a cache", function()
    assert(cache:transaction(function(tx)
      assert(tx:set("a", 1, 100))
      assert(tx:add("b", 1))
      assert(tx:replace("b", 2))
      assert(tx:cas("b", tx:entry("b").version, 3))
      assert.equal(4, tx:incr("b"))
      assert.equal(3, tx:decr("b"))
      assert.equal(3, tx:get_set("b", "x"))
      assert.equal("x", tx:get_delete("b"))
      assert.is_true(tx:exists("a"))
      assert.is_true(tx:ttl("a") > 0)
      assert.is_true(tx:expire("a", 10))
      assert.is_true(tx:touch("a", 20))
      assert.is_true(tx:persist("a"))
      assert.equal(2, tx:set_many { c = 1, d = 2 })
      assert.same({ c = 1, d = 2 }, tx:get_many { "c", "d" })
      assert.equal(1, tx:delete_many { "c" })
      assert.is_true(tx:delete("d"))
      assert.same({ "a" }, tx:keys())
      assert.equal(1, tx:count())
      for key, value in tx:scan() do assert.same({ "a", 1 }, { key, value }) end
      assert.is_true(tx:ping())
      assert.equal("table", type(tx:stats().pool))
      assert.equal(0, tx:cleanup())
      assert(tx:namespace("n"):set("in n", 1))
      return tx:clear()
    end))
    assert.same({ "in n" }, cache:namespace("n"):keys())
    assert.equal(0, cache:count())
  end)

  it("is one of one connection only", function()
    local one = db:open { maxconn = 1, timeout = 0.7 }
    local err
    assert(one:transaction(function(tx)
      assert(tx:set("k", 1))
      local _
      _, err = one:get("k")
      return true
    end))
    assert.equal("busy: all 1 connections stayed in use (see maxconn)", err)
    assert.equal(1, one:get("k"))
  end)

  it("tells its counts to the cache's stats", function()
    cache:transaction(function(tx)
      tx:set("k", 1)
      tx:get("k")
    end)
    assert.equal(1, cache:stats().sets)
    assert.equal(1, cache:stats().hits)
  end)

  describe("in a transaction", function()
    it("is rolled back alone", function()
      assert(cache:transaction(function(tx)
        assert(tx:set("outer", 1))
        local ok, err = tx:transaction(function(inner)
          assert(inner:set("inner", 1))
          return nil, "no"
        end)
        assert.is_nil(ok)
        assert.equal("no", err)
        assert.is_false((pcall(tx.transaction, tx, function(inner)
          inner:set("raised", 1)
          error("no")
        end)))
        assert.equal("done", tx:transaction(function(inner)
          assert(inner:set("kept", 1))
          inner:transaction(function(deepest)
            deepest:set("lost", 1)
            return nil, "no"
          end)
          return "done"
        end))
        return true
      end))
      assert.same({ "kept", "outer" }, cache:keys())
    end)

    it("goes with the outer one", function()
      cache:transaction(function(tx)
        assert(tx:transaction(function(inner) return inner:set("k", 1) end))
        return nil, "no"
      end)
      nothing_stays()
    end)

    it("heals a failed statement", function()
      assert(cache:transaction(function(tx)
        assert(tx:set("k", 1))
        local rows, err = tx:transaction(function(inner) return inner:query("SELECT 1/0") end)
        assert.is_nil(rows)
        assert.equal("server: division by zero (SQLSTATE 22012)", err)
        local _, why = tx:transaction(function(inner)
          inner:query("SELECT 1/0")
          return true -- and says nothing of it
        end)
        assert.matches("current transaction is aborted", why)
        return tx:set("l", 2)
      end))
      assert.equal(2, cache:count())
    end)
  end)

  it("with a failed statement cannot commit, and says so", function()
    local ok, err = cache:transaction(function(tx)
      assert(tx:set("k", 1))
      local rows, why = tx:query("SELECT * FROM nowhere")
      assert.is_nil(rows)
      assert.equal('server: relation "nowhere" does not exist (SQLSTATE 42P01)', why)
      local _, aborted = tx:get("k")
      assert.matches("^server: current transaction is aborted", aborted)
      return true
    end)
    assert.is_nil(ok)
    assert.equal(ABORTED, err)
    nothing_stays()
  end)

  it("that the caller's SQL ended says that it did not commit", function()
    for _, sql in ipairs { "ROLLBACK", "COMMIT" } do
      local ok, err = cache:transaction(function(tx)
        local value, why = tx:query(sql)
        assert.is_nil(value)
        assert.equal("invalid: this SQL ended the transaction, which ends when its function returns", why)
        value, why = tx:set("k", 1)
        assert.is_nil(value)
        assert.equal("closed: the transaction has ended", why)
        return true
      end)
      assert.is_nil(ok)
      assert.equal("closed: the transaction has ended", err)
      nothing_stays()
    end
  end)

  it("that ended cannot be used any more", function()
    local kept, nested
    assert(cache:transaction(function(tx)
      kept, nested = tx, tx:namespace("n")
      return true
    end))
    for _, tx in ipairs { kept, nested } do
      for name, args in pairs { get = { "k" }, set = { "k", 1 }, query = { "SELECT 1" }, transaction = { print },
        set_many = { { a = 1 } }, keys = {} } do
        local value, err = tx[name](tx, (table.unpack or unpack)(args))
        assert.is_nil(value)
        assert.equal("closed: the transaction has ended", err)
      end
    end
    nothing_stays()
  end)

  it("cannot be closed: it ends by itself", function()
    cache:transaction(function(tx)
      raises("a transaction ends when its function returns", function() tx:close() end)
    end)
  end)

  it("goes on when its cache is closed meanwhile", function()
    local other = db:open()
    assert(other:transaction(function(tx)
      assert(tx:set("k", 1))
      other:close()
      assert.equal("closed: the cache was closed", select(2, other:get("k")))
      return tx:set("l", 1)
    end))
    assert.equal(2, cache:count())
    assert.equal(1, core.open_objects(), "the connection went with it; `cache` has its pool")
  end)

  it("may yield in a coroutine", function()
    local run = coroutine.wrap(function()
      return cache:transaction(function(tx)
        assert(tx:set("k", 1))
        coroutine.yield("in the middle")
        return tx:set("l", 1)
      end)
    end)
    assert.equal("in the middle", run())
    assert.equal(0, cache:count())
    assert.is_true(run())
    assert.equal(2, cache:count())
  end)

  it("is rolled back when its coroutine is forgotten", function()
    local run = coroutine.wrap(function()
      cache:transaction(function(tx)
        assert(tx:set("k", 1))
        coroutine.yield()
      end)
    end)
    run()
    run = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    nothing_stays()
  end)

  it("wants a function", function()
    raises("bad fn (function expected, got nil)", function() cache:transaction() end)
    raises("bad fn (function expected, got table)", function() cache:transaction {} end)
  end)

  it("that the server ends is lost, and the cache lives on", function()
    local ok, err = cache:transaction(function(tx)
      assert(tx:set("k", 1))
      local pid = tx:query("SELECT pg_backend_pid() AS pid")[1].pid
      db:sql(("SELECT pg_terminate_backend(%d, 5000)"):format(pid))
      local value, why = tx:get("k")
      assert.is_nil(value)
      assert.matches("^connect: ", why)
      return true
    end)
    assert.is_nil(ok)
    assert.matches("^connect: ", err)
    nothing_stays()
    assert.is_true((cache:set("k", 1)))
  end)

  describe("query", function()
    local function query(...)
      local args, count = { ... }, select("#", ...)
      return cache:transaction(function(tx) return tx:query((table.unpack or unpack)(args, 1, count)) end)
    end

    it("gives rows by column, and counts what was written", function()
      assert.same({ { a = 1, b = "x", c = true, d = 0.5 }, { a = 2, b = "y", c = false, d = -1 } },
        query("SELECT * FROM (VALUES (1, 'x', true, 0.5::float8), (2, 'y', false, -1)) AS t (a, b, c, d) ORDER BY a"))
      assert.same({}, query("SELECT 1 WHERE false"))
      assert.equal(3, query("INSERT INTO orders SELECT generate_series(1, 3)"))
      assert.equal(0, query("DELETE FROM orders WHERE id > 100"))
      assert.same({ {} }, query("SELECT NULL AS a"))
    end)

    it("passes parameters of every kind", function()
      assert.same({ { a = "x'; --", b = 5, c = true, d = 0.1, f = true } },
        query("SELECT $1 AS a, $2::int AS b, $3::bool AS c, $4::float8 AS d, $5::text IS NULL AS f", "x'; --", 5, true,
          0.1, nil))
      assert.same({ { f = true } }, query("SELECT $1::text IS NULL AS f", fpcache.null))
      local row = query("SELECT $1::bigint AS n", exact.int "9223372036854775807")[1]
      assert.is_true(exact.same(exact.int "9223372036854775807", row.n))
    end)

    it("keeps numbers whatever the locale's decimal point is", function()
      local folder = assert(core.system.mkdtemp("/tmp/fpcache-locale-"))
      finally(function()
        os.setlocale("C", "numeric")
        core.system.setenv("LOCPATH", nil)
        core.system.remove_tree(folder)
      end)
      os.execute(("localedef -i de_DE -f UTF-8 '%s/de_DE.UTF-8' 2>/dev/null"):format(folder))
      core.system.setenv("LOCPATH", folder)
      if not os.setlocale("de_DE.UTF-8", "numeric") then
        pending("localedef has no de_DE (Debian: locales)")
        return
      end
      assert.equal("de_DE.UTF-8", os.setlocale(nil, "numeric"))
      local rows, err = query("SELECT $1::float8 AS a, 2.25::float8 AS b, $2::int AS c", 1.5, 7.0)
      assert.is_nil(err)
      assert.same({ { a = 1.5, b = 2.25, c = 7 } }, rows)
    end)

    it("refuses what SQL text cannot hold instead of cutting it", function()
      local value, err = query("SELECT $1::text AS a", "a\0b")
      assert.is_nil(value)
      assert.equal("invalid: parameter 1 holds a NUL byte, which SQL text cannot (encode it, or store it in the cache)",
        err)
      value, err = query("SELECT 1 AS a\0, 2")
      assert.is_nil(value)
      assert.equal("invalid: the SQL holds a NUL byte", err)
    end)

    it("blames the caller for parameters that are no values", function()
      cache:transaction(function(tx)
        raises("bad sql (string expected, got nil)", function() tx:query() end)
        raises("bad parameter 2 (string, number, boolean, nil or fpcache.null expected, got table)",
          function() tx:query("SELECT $1, $2", 1, {}) end)
        local many = {}
        for i = 1, 65 do many[i] = i end
        raises("too many parameters (65, at most 64)",
          function() tx:query("SELECT 1", (table.unpack or unpack)(many)) end)
      end)
    end)

    it("takes one statement, and says so of more", function()
      local value, err = query("SELECT 1; SELECT 2")
      assert.is_nil(value)
      assert.matches("^server: cannot insert multiple commands into a prepared statement", err)
    end)

    it("refuses COPY", function()
      local value, err = query("COPY orders TO STDOUT")
      assert.is_nil(value)
      assert.equal("invalid: COPY cannot be run this way", err)
      assert.is_true(cache:ping())
    end)
  end)
end)

-- pgbouncer_spec.lua -- behind a pgbouncer in transaction mode: calls work, what is written is told, nothing leaks to others.
local database = require "support.database"
local fpcache = require "fpcache"
local layers = require "support.layers"
local pgbouncer = require "support.pgbouncer"

describe("behind a transaction pooler", function()
  local db, bouncer

  local function start(settings)
    settings.pool_mode = "transaction"
    bouncer = pgbouncer.start(db.srv, db.name, { "app" }, settings)
  end

  setup(function() db = database.new() end)
  after_each(function()
    bouncer:stop()
    db:close_all()
    db:sql("TRUNCATE cache")
  end)

  local function open(opts)
    local options = { connection_string = bouncer:url_for("app") }
    for name, value in pairs(opts or {}) do options[name] = value end
    return db:open(options)
  end

  local function other(text) return db.srv:sql(text, bouncer:url_for("app")) end

  -- What our sessions set for themselves, as seen by others in each of the pooler's connections to the server.
  local function settings_of_others()
    local seen = {}
    for _ = 1, 10 do
      seen[other([[SELECT current_setting('lock_timeout'),
        current_setting('statement_timeout'), current_setting('random_page_cost'), current_setting('enable_seqscan')]])] = true
    end
    return seen
  end

  for _, prepared in ipairs { false, true } do
    describe(("with prepared = %s"):format(tostring(prepared)), function()
      -- With one session for everybody a prepared statement is always there, and a setting reaches all others.
      before_each(function() start { default_pool_size = prepared and 1 or 3 } end)

      local reads_there = not prepared -- a load's end closes the pooler's session, and loses its statements
      it("every kind of call works", function()
        local cache = open { prepared = prepared, maxconn = 4 }
        for round = 1, 3 do
          assert(cache:set("k", { round }))
          assert.same({ round }, cache:get("k"))
          assert.equal(100, cache:set_many((function()
            local rows = {}
            for i = 1, 100 do rows["m" .. i] = i end
            return rows
          end)()))
          assert.same({ m1 = 1, m100 = 100 }, cache:get_many { "m1", "m100", "none" })
          assert.equal(round, assert(cache:incr("n")))
          assert.is_true(cache:transaction(function(tx)
            assert(tx:set("t", round))
            return tx:get("t") == round
          end))
          assert.is_nil((cache:transaction(function(tx)
            assert(tx:set("t", -1))
            return nil, "no"
          end)))
          assert.equal(round, (cache:get("t")))
          assert.equal(100, assert(cache:count("m")))
          assert.equal(100, assert(cache:delete_many((function()
            local keys = {}
            for i = 1, 100 do keys[i] = "m" .. i end
            return keys
          end)())))
        end
      end)

      it("leaves no setting behind in the pooler's sessions", function()
        local cache = open { prepared = prepared, feed = reads_there, timeout = 3.21 }
        if reads_there then assert(cache:wait_ready(20)) end
        assert.is_true(cache.tells) -- by its statements, which needs no setting
        for i = 1, 20 do assert(cache:set("k" .. i, i)) end
        assert.same({ ["0|0|4|on"] = true }, settings_of_others())
      end)

      it("what it writes, and what others write through the pooler, is told", function()
        local here = layers.open(db)
        local writer = open { prepared = prepared }
        local reader = reads_there and layers.open(db, { connection_string = bouncer:url_for("app"), prepared = false }) or here
        for round = 1, 5 do
          assert(writer:set("k", round))
          for _, cache in ipairs { here, reader } do
            assert(cache:wait_ready(20))
            assert.equal(round, (cache:get("k")))
            layers.source(cache, "k")
            assert.equal("near", layers.source(cache, "k"))
            assert.equal("filter", layers.source(cache, "new" .. round))
          end
          other(("SELECT cache_set('app', 'k', '%d', NULL), cache_set('app', 'new%d', '1', NULL)"):format(-round, round))
          for _, cache in ipairs { here, reader } do
            assert(cache:wait_ready(20))
            assert.equal(-round, (cache:get("k")))
            assert.equal(1, (cache:get("new" .. round)))
          end
        end
        assert.equal(0, reader:stats().feed.fell_behind)
      end)
    end)
  end

  it("the reader misses no commit that comes late", function()
    start { default_pool_size = 3 }
    local reader = layers.open(db, { connection_string = bouncer:url_for("app"), prepared = false })
    local late = assert(db:open().pool:acquire(5))
    assert(late:query("BEGIN", 5))
    assert(late:query("SELECT cache_set('app', 'late', '1', NULL)", 5))
    for i = 1, 5 do
      other(("SELECT cache_set('app', 'k%d', '1', NULL)"):format(i))
      assert(reader:wait_ready(20))
      assert.equal(1, (reader:get("k" .. i)))
      assert.equal("filter", layers.source(reader, "late"))
    end
    assert(late:query("COMMIT", 5))
    late:close()
    assert(reader:wait_ready(20))
    assert.equal(1, (reader:get("late")))
  end)

  it("says so when prepared statements get lost", function()
    start { default_pool_size = 2, server_round_robin = 1 }
    local one, two = open { prepared = false }, open { prepared = false }
    assert(one:transaction(function(tx)
      assert(tx:ping())
      return two:transaction(function(inner) return inner:ping() end)
    end))
    local cache, err = fpcache.new { connection_string = bouncer:url_for("app"), feed = false }
    assert.is_nil(cache)
    assert.matches('^server: prepared statement "fpc_%x+" does not exist %(SQLSTATE 26000%); '
      .. "a pooler in transaction mode is in between: set prepared = false", err)
  end)
end)

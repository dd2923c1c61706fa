-- ttl_spec.lua -- times to live.  Nothing here sleeps: expiry is set in the past, or by SQL.
local database = require "support.database"
local raises = require "support.raises"

describe("times to live", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  it("none means no expiry, and so does infinity", function()
    assert(cache:set("a", 1))
    assert(cache:set("b", 1, math.huge))
    assert(cache:set("c", 1, { ttl = math.huge }))
    for _, key in ipairs { "a", "b", "c" } do assert.equal(-1, cache:ttl(key)) end
    assert.equal("3", db:sql("SELECT count(*) FROM cache WHERE expires_at = 'infinity'"))
  end)

  it("are seconds, with fractions", function()
    assert(cache:set("k", 1, 100.5))
    local ttl = cache:ttl("k")
    assert.is_true(ttl > 90 and ttl <= 100.5, ttl)
    assert.equal("t", db:sql([[
      SELECT extract(epoch FROM expires_at) * 1000000 - version = 100500000 FROM cache]]))
  end)

  it("may be written as people do, wherever seconds are taken", function()
    local function lives(seconds, key)
      local ttl = cache:ttl(key or "k")
      assert.is_true(ttl > seconds - 10 and ttl <= seconds, ttl)
      cache:delete(key or "k")
    end
    assert(cache:set("k", 1, "5m")) lives(300)
    assert(cache:set("k", 1, { ttl = "1h30m" })) lives(5400)
    assert(cache:add("k", 1, "2d")) lives(172800)
    assert(cache:set("k", 1)) assert(cache:replace("k", 1, "1w")) lives(604800)
    assert(cache:set("k", 1)) assert(cache:expire("k", "90s")) lives(90)
    assert(cache:set("k", 1, 1)) assert(cache:touch("k", "1.5h")) lives(5400)
    assert(cache:cas("k", select(3, cache:set("k", 1)), 2, "5m")) lives(300)
    assert(cache:set("k", 1)) cache:get_set("k", 1, "5m") lives(300)
    assert(cache:incr("k", 1, { ttl = "5m" })) lives(300)
    assert(cache:set_many({ k = 1 }, "5m")) lives(300)
    assert(cache:set_many({ k = 1, l = 1 }, { ttl = { k = "5m" } })) lives(300)
    assert.equal(-1, cache:ttl("l"))
    assert(cache:transaction(function(tx) return tx:set("k", 1, "5m") end)) lives(300)
    assert(cache:counter("k", { ttl = "5m" }):add()) lives(300)
    local timed = db:open {
      timeout = "1500ms", bulk_timeout = "1m", connect_timeout = "2s", idle_timeout = "0s", max_lifetime = "1h",
      breaker_pause = "1s", near_ttl = "5m", near_negative_ttl = "5s", max_staleness = "1s", feed_interval = "100ms",
      pipeline_silence = "2s", feed = true,
    }
    assert.same({ 1.5, 60 }, { timed.timeout, timed.bulk_timeout })
    assert(timed:wait_ready("10s"))
  end)

  it("of a millionth of a second pass by themselves", function()
    assert(cache:set("k", 1, 1e-6))
    assert.is_nil((cache:get("k")))
  end)

  it("of a key that is not there are -2", function() assert.equal(-2, cache:ttl("k")) end)

  it("end when the server's clock says so", function()
    assert(cache:set("k", 1, 3600))
    db:sql("UPDATE cache SET expires_at = now() - interval '1 microsecond'")
    assert.equal(-2, cache:ttl("k"))
    assert.is_nil((cache:get("k")))
  end)

  it("go on while a long transaction runs", function()
    assert(cache:transaction(function(tx)
      assert(tx:set("k", 1, 3600))
      assert.equal(1, tx:query("UPDATE cache SET expires_at = clock_timestamp() + interval '1 microsecond'"))
      assert.is_nil((tx:get("k")))
      return true
    end))
  end)

  describe("expire", function()
    it("gives a new one, longer or shorter", function()
      assert(cache:set("k", 1))
      assert.is_true(cache:expire("k", 1000))
      assert.is_true(cache:ttl("k") > 900)
      assert.is_true(cache:expire("k", 10))
      assert.is_true(cache:ttl("k") <= 10)
      assert.is_false(cache:expire("none", 10))
    end)

    it("without one takes the expiry off", function()
      assert(cache:set("k", 1, 10))
      assert.is_true(cache:expire("k"))
      assert.equal(-1, cache:ttl("k"))
    end)
  end)

  describe("touch", function()
    it("never shortens a life", function()
      assert(cache:set("k", 1, 1000))
      assert.is_true(cache:touch("k", 10))
      assert.is_true(cache:ttl("k") > 900)
      assert.is_true(cache:touch("k", 5000))
      assert.is_true(cache:ttl("k") > 4000)
      assert(cache:persist("k"))
      assert.is_true(cache:touch("k", 10))
      assert.equal(-1, cache:ttl("k"))
      assert.is_false(cache:touch("none", 10))
    end)

    it("without one makes the key live for ever", function()
      assert(cache:set("k", 1, 1000))
      assert.is_true(cache:touch("k"))
      assert.equal(-1, cache:ttl("k"))
    end)
  end)

  it("persist takes the expiry off", function()
    assert(cache:set("k", 1, 10))
    assert.is_true(cache:persist("k"))
    assert.equal(-1, cache:ttl("k"))
    assert.is_true(cache:persist("k"))
    assert.is_false(cache:persist("none"))
  end)

  it("do not change the version: only values count for cas", function()
    local _, _, version = cache:set("k", 1)
    assert(cache:expire("k", 10))
    assert(cache:touch("k", 20))
    assert(cache:persist("k"))
    assert.equal(version, cache:entry("k").version)
  end)

  describe("out of range", function()
    local BAD = { 0, -1, -0.5, 0 / 0, 1e300, -math.huge, 1e10 + 1 }

    local function refused(value, err)
      assert.is_nil(value)
      assert.matches("^invalid: a ttl must be more than 0 and at most 1e%+10 seconds, got ", err)
    end

    it("are answered with nil and invalid, by every call that takes one", function()
      for _, ttl in ipairs(BAD) do
        assert(cache:set("k", 1))
        refused(cache:set("k", 2, ttl))
        refused(cache:set("k", 2, { ttl = ttl }))
        refused(cache:set_many({ k = 2 }, ttl))
        refused(cache:set_many({ k = 2 }, { ttl = ttl }))
        refused(cache:expire("k", ttl))
        refused(cache:touch("k", ttl))
        refused(cache:add("new", 2, ttl))
        refused(cache:replace("k", 2, ttl))
        refused(cache:cas("k", 1, 2, ttl))
        refused(cache:get_set("k", 2, ttl))
        refused(cache:incr("k", 1, { ttl = ttl }))
        assert.equal(1, cache:get("k"))
        assert.equal(1, cache:count())
      end
    end)

    it("points of time neither", function()
      for _, at in ipairs { 0, -1, 0 / 0, 1e300, math.huge } do
        local ok, err = cache:set("k", 1, { expires_at = at })
        assert.is_nil(ok)
        assert.matches("^invalid: expires_at must be between 0 and 1e%+11 seconds since 1970, got ", err)
      end
    end)

    it("a text that is no duration tells what it is", function()
      for text, reason in pairs {
        ["5"] = '"5" is no duration (such as "250ms", "90s", "5m", "1h30m", "2d", "1w")', [""] = "an empty text is no duration",
        ["5 parsecs"] = '"5 parsecs" is no duration (such as "250ms", "90s", "5m", "1h30m", "2d", "1w")',
        ["1h and more"] = '"1h and more" is no duration (such as "250ms", "90s", "5m", "1h30m", "2d", "1w")',
      } do
        for name, call in pairs {
          set = function() return cache:set("k", 1, text) end,
          set_option = function() return cache:set("k", 1, { ttl = text }) end,
          expire = function() return cache:expire("k", text) end,
          touch = function() return cache:touch("k", text) end,
          add = function() return cache:add("k", 1, text) end,
          replace = function() return cache:replace("k", 1, text) end,
          cas = function() return cache:cas("k", 1, 1, text) end,
          get_set = function() return cache:get_set("k", 1, text) end,
          incr = function() return cache:incr("k", 1, { ttl = text }) end,
          lock = function() return cache:lock("k", text, print) end,
        } do
          assert.same({ nil, "invalid: a ttl: " .. reason }, { call() }, name)
        end
        assert.equal("invalid: a ttl: " .. reason .. " (item 1)", select(2, cache:set_many({ k = 1 }, text)))
      end
      assert.equal("invalid: a ttl must be more than 0 and at most 1e+10 seconds, got 0.0 (leave it out for no expiry)",
        (select(2, cache:set("k", 1, "0s")):gsub("got 0 ", "got 0.0 ")))
      assert.equal(0, cache:count())
    end)

    it("what is neither number nor text is the caller's mistake", function()
      raises("bad ttl (number of seconds or duration expected, got boolean)", function() cache:set("k", 1, true) end)
      raises("bad ttl (number of seconds or duration expected, got table)", function() cache:expire("k", {}) end)
      raises("options.ttl: seconds or duration is expected, got boolean", function() cache:set("k", 1, { ttl = true }) end)
      raises("options.ttl: seconds or duration is expected, got table", function() cache:incr("k", 1, { ttl = {} }) end)
      raises("options.ttl: seconds, duration or table is expected, got boolean",
        function() cache:set_many({ k = 1 }, true) end)
      raises("options.expires_at: number is expected, got string",
        function() cache:set("k", 1, { expires_at = "5" }) end)
    end)

    it("the longest is 317 years", function()
      assert(cache:set("k", 1, 1e10))
      assert.is_true(cache:ttl("k") > 9.9e9)
    end)
  end)

  describe("cleanup", function()
    local function fill(count, expired)
      db:sql(("INSERT INTO cache (user_id, key, value, expires_at) " ..
        "SELECT 'app', convert_to('%s' || i, 'UTF8'), '\\x', %s FROM generate_series(1, %d) AS i"):format(
        expired and "old" or "new", expired and "now() - interval '1 s'" or "'infinity'", count))
    end

    it("deletes what has expired and says how many", function()
      fill(300, true)
      fill(200, false)
      assert(cache:set("soon", 1, 3600))
      assert.equal(300, cache:cleanup())
      assert.equal("201", db:sql("SELECT count(*) FROM cache"))
      assert.equal(0, cache:cleanup())
    end)

    it("works through a table of many pages", function()
      db:sql([[INSERT INTO cache (user_id, key, value, expires_at)
        SELECT 'app', convert_to(i::text, 'UTF8'), decode(repeat('00', 1500), 'hex'),
          CASE WHEN i % 2 = 0 THEN now() - interval '1 s' ELSE 'infinity' END FROM generate_series(1, 6000) AS i;
        ALTER TABLE cache ALTER value SET STORAGE PLAIN]])
      db:sql([[INSERT INTO cache (user_id, key, value, expires_at)
        SELECT 'app', convert_to('p' || i, 'UTF8'), decode(repeat('00', 1500), 'hex'),
          CASE WHEN i % 2 = 0 THEN now() - interval '1 s' ELSE 'infinity' END FROM generate_series(1, 6000) AS i]])
      assert.is_true(tonumber(db:sql("SELECT pg_relation_size('fpcache_entries') / 8192")) > 1000, "more than one slice")
      assert.equal(6000, cache:cleanup())
      assert.equal("6000", db:sql("SELECT count(*) FROM cache WHERE expires_at = 'infinity'"))
      assert.equal("6000", db:sql("SELECT count(*) FROM cache"))
    end)

    it("of an empty table deletes nothing", function() assert.equal(0, cache:cleanup()) end)

    it("passes over rows that are being written", function()
      assert(cache:set("k", 1, { expires_at = 1 }))
      assert(cache:set("l", 1, { expires_at = 1 }))
      assert(cache:transaction(function(tx)
        assert(tx:query("SELECT 1 FROM cache WHERE key = 'k' FOR UPDATE"))
        assert.equal(1, cache:cleanup())
        return tx:set("k", 2)
      end))
      assert.equal(2, cache:get("k"))
      assert.equal(0, cache:cleanup())
    end)

    it("also by the name that Python knows", function()
      fill(10, true)
      assert(cache:transaction(function(tx)
        assert.same({ { n = 10 } }, tx:query("SELECT cache_cleanup() AS n"))
        return true
      end))
    end)
  end)
end)

-- fetch_many_tasks_spec.lua -- fetch_many among coroutines: in the background, waiting for each other, and without the server.
local database = require "support.database"
local fpcache = require "fpcache"
local origin = require "support.origin_of_many"
local tasks = require "support.tasks"

describe("fetch_many among coroutines", function()
  local db, cache, clock

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
    clock = tasks.new { fake = true }
  end)
  after_each(function()
    clock:close()
    db:close_all()
  end)

  local function down() return nil, "origin: down" end

  --- All results as one table.
  local function many(keys, policy, loader)
    local values, err, sources = cache:fetch_many(keys, policy, loader)
    return { values, err, sources }
  end

  describe("in the background", function()
    before_each(function()
      cache:fetch_many({ "a", "b" }, { ttl = 60, stale_ttl = 600 }, origin { a = "old a", b = "old b" })
    end)

    local function slow(seconds, values, err)
      local load = origin(values, err)
      return setmetatable({ asked = load.asked }, { __call = function(_, keys)
        local loaded, reason = load(keys)
        fpcache.waiting.sleep(seconds)
        return loaded, reason
      end })
    end

    --- What a task gets, and after how many seconds.
    local function timed(keys, policy, loader, after)
      local got = {}
      clock:spawn(function()
        fpcache.waiting.sleep(after or 0)
        local started = clock:now()
        got[1], got[2], got[3] = cache:fetch_many(keys, policy, loader)
        got.took = math.floor((clock:now() - started) * 10 + 0.5) / 10
      end)
      return got
    end

    local OLD, STALE = { a = "old a", b = "old b" }, { a = "stale", b = "stale" }
    local NEW = { a = "new a", b = "new b", c = "new c" }

    it("is loaded what is stale, while the older values are given at once", function()
      local policy, load = fpcache.policy { ttl = 60, stale_ttl = 600 }, slow(5, NEW)
      db:age(61)
      local first, other = timed({ "a", "b" }, policy, load), timed({ "b" }, policy, load, 1)
      local one
      clock:spawn(function()
        fpcache.waiting.sleep(2)
        one = { cache:fetch("a", policy, error) }
        assert.equal(2, clock:now() - 1000)
      end)
      clock:run()
      assert.same({ OLD, nil, STALE, took = 0 }, first)
      assert.same({ { b = "old b" }, nil, { b = "stale" }, took = 0 }, other)
      assert.same({ "old a", nil, "stale" }, one)
      assert.same({ "a b" }, load.asked)
      assert.same({ a = "new a", b = "new b" }, cache:get_many { "a", "b" })
      assert.same(OLD, first[1], "what was given stays as it was")
      assert.equal(3, cache:stats().policies.stale)
    end)

    it("is loaded early, while what lives is given as such", function()
      local policy, load = fpcache.policy { ttl = 60, refresh_ahead = 0.5 }, slow(5, NEW)
      db:age(40)
      local first = timed({ "a", "b" }, policy, load)
      clock:run()
      assert.same({ OLD, nil, { a = "db", b = "db" }, took = 0 }, first)
      assert.same({ a = "new a", b = "new b" }, cache:get_many { "a", "b" })
    end)

    it("goes on what takes longer than soft_timeout", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, soft_timeout = 2 }
      db:age(61)
      local quick = timed({ "a" }, policy, slow(1, NEW))
      clock:run()
      assert.same({ { a = "new a" }, nil, { a = "loader" } }, { quick[1], quick[2], quick[3] })
      assert.is_true(quick.took >= 1 and quick.took < 1.2)
      local late = timed({ "b" }, policy, slow(5, NEW))
      clock:run()
      assert.same({ { b = "old b" }, nil, { b = "stale" }, took = 2 }, late)
      assert.equal("new b", cache:get("b"))
    end)

    it("goes on what takes longer than hard_timeout: nobody waits longer, and older values are given", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, hard_timeout = 4 }
      db:age(61)
      local got = timed({ "a", "c" }, policy, slow(3.5, NEW))
      clock:run()
      assert.same({ { a = "new a", c = "new c" }, nil, { a = "loader", c = "loader" } }, { got[1], got[2], got[3] })
      cache:delete("c")
      got = timed({ "b", "c" }, policy, slow(9, NEW))
      clock:run()
      local late = "timeout: loading took longer than hard_timeout (4 s); it goes on"
      assert.same({ { b = "old b" }, late, { b = "stale" }, took = 4 }, got)
      assert.same({ b = "new b", c = "new c" }, cache:get_many { "b", "c" })
    end)

    it("is nothing loaded of which one key has no older value, unless hard_timeout is named: one call loads all", function()
      local policy, load = fpcache.policy { ttl = 60, stale_ttl = 600 }, slow(5, NEW)
      db:age(61)
      local first, other = timed({ "a", "c" }, policy, load), timed({ "a" }, policy, load, 1)
      clock:run()
      assert.same({ { a = "new a", c = "new c" }, nil, { a = "loader", c = "loader" } }, { first[1], first[2], first[3] })
      assert.same({ "a c" }, load.asked)
      assert.same({ { a = "old a" }, nil, { a = "stale" }, took = 0 }, other)
    end)

    it("fails what fails: the older values stay", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, error_backoff = 30 }
      db:age(61)
      local load = slow(5, nil, "origin: down")
      timed({ "a", "b" }, policy, load)
      clock:run()
      assert.same({ OLD, nil, STALE }, many({ "a", "b" }, policy, load))
      assert.equal(1, #load.asked)
      assert.equal("origin: down", cache:stats().policies.last_error)
    end)

    it("is the place that the policy's hooks name, for values that they let be given", function()
      local policy, later = fpcache.policy { ttl = 60, stale_ttl = 600 }, nil
      db:age(61)
      function policy.background(run) later = run return true end
      assert.same({ OLD, nil, STALE }, many({ "a", "b" }, policy, origin(NEW)))
      later()
      assert.same({ a = "new a", b = "new b" }, cache:get_many { "a", "b" })
      db:age(61)
      function policy.gives_old(old) return old ~= "new a" end
      function policy.background() error("nothing is loaded behind while a key has nothing to give") end
      assert.same({ { a = 1, b = 2 }, nil, { a = "loader", b = "loader" } }, many({ "a", "b" }, policy, origin { a = 1, b = 2 }))
    end)

    it("holds nobody up for longer than hard_timeout when it forgets what it was given", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, hard_timeout = 4, lock_timeout = 300 }
      db:age(61)
      function policy.background() return true end
      assert.same({ OLD, nil, STALE }, clock:call(function() return many({ "a", "b" }, policy, error) end))
      db:age(5)
      policy.background, clock.time = nil, clock.time + 5
      db:sql("UPDATE cache SET stale_until = now()") -- so it would have to be waited for
      local started = clock:now()
      clock:call(function() return many({ "a", "b" }, policy, origin(NEW)) end)
      assert.is_true(clock:now() - started < 0.1)
      assert.same({ a = "new a", b = "new b" }, cache:get_many { "a", "b" })
    end)

    it("knows its own loader, which fetches the key, too", function()
      local policy, inner = fpcache.policy { ttl = 60, refresh_ahead = 0.5 }, nil
      db:age(40)
      local started = clock:now()
      clock:spawn(function()
        cache:fetch_many({ "a" }, policy, function()
          inner = cache:fetch("a", policy, error)
          return { a = "new a" }
        end)
      end)
      clock:run()
      assert.equal("old a", inner)
      assert.equal(started, clock:now(), "it waited for itself")
      assert.equal("new a", cache:get("a"))
    end)

    it("context.timeout is soft_timeout where each key has an older value, else hard_timeout", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, soft_timeout = 2, hard_timeout = 7 }
      db:age(61)
      local seen = {}
      local function note(_, context) seen[#seen + 1] = context.timeout return {} end
      many({ "a" }, policy, note)
      many({ "b", "c" }, policy, note)
      assert.same({ 2, 7 }, seen)
    end)
  end)

  describe("the breaker, once it is open,", function()
    before_each(function()
      cache = db:open { breaker_pause = 30 }
      cache:set("k", "stored")
      for _ = 1, 3 do cache.flow.breaker:failed("connect: refused") end
    end)

    it("has nobody ask the server, until its pause is over", function()
      assert.same({ { k = "loaded" }, nil, { k = "loader" } }, many({ "k" }, 60, origin { k = "loaded" }))
      assert.same({ nil, "origin: down", {} }, many({ "k" }, 60, down))
      assert.equal("stored", cache:get("k"), "nothing was stored")
      assert.equal(2, cache:stats().policies.without_server)
      clock.time = clock.time + 31
      assert.same({ { k = "stored" }, nil, { k = "db" } }, database.eventually(function()
        local got = many({ "k" }, 60, origin { k = "loaded" })
        return got[3].k == "db" and got
      end))
      assert.equal("closed", cache:stats().policies.breaker)
    end)

    it("loads at once what the caller himself is loading, and what others load for too long", function()
      local policy, got = fpcache.policy { ttl = 60, lock_timeout = 2 }, {}
      local started = clock:now()
      clock:spawn(function()
        got[1] = cache:fetch_many({ "a" }, policy, function(keys)
          local inner = cache:fetch_many(keys, policy, origin { a = "inner" })
          assert.equal(started, clock:now())
          fpcache.waiting.sleep(9)
          return inner
        end)
      end)
      clock:spawn(function()
        fpcache.waiting.sleep(1)
        got[2] = cache:fetch_many({ "a", "b" }, policy, function(keys)
          assert.is_true(#keys == 1)
          return { [keys[1]] = "at " .. math.floor(clock:now() - started + 0.1) }
        end)
      end)
      clock:run()
      assert.same({ { a = "inner" }, { a = "at 3", b = "at 1" } }, got)
    end)

    it("still has one load at a time in this process", function()
      local loads, got = 0, {}
      local function slow(keys)
        loads = loads + 1
        local values = {}
        for _, key in ipairs(keys) do values[key] = key .. loads end
        fpcache.waiting.sleep(2)
        return values
      end
      for i = 1, 3 do
        clock:spawn(function()
          fpcache.waiting.sleep(i / 10)
          got[i] = cache:fetch_many(i == 3 and { "a", "x" } or { "a", "b" }, { ttl = 60 }, slow)
        end)
      end
      clock:run()
      assert.same({ { a = "a1", b = "b1" }, { a = "a1", b = "b1" }, { a = "a1", x = "x2" } }, got)
    end)
  end)

  it("tell the loader of the older values also where it loads after a wait, or for itself", function()
    local policy, seen = fpcache.policy { ttl = 60, stale_ttl = 600, lock_timeout = 3 }, {}
    function policy.gives_old() return false end
    local function note(_, context)
      seen[#seen + 1] = context.old.k
      return { k = "new" }
    end
    assert(cache:fetch_many({ "k" }, policy, origin { k = "old" }))
    db:age(61)
    local values = clock:call(function()
      return cache:fetch_many({ "k" }, policy, function() return cache:fetch_many({ "k" }, policy, note) end)
    end)
    assert.same({ k = "new" }, values)
    db:age(61)
    db:sql("UPDATE cache SET lease_holder = 77, lease_until = now() + interval '1 hour'")
    local started = clock:now()
    clock:call(function() return cache:fetch_many({ "k" }, policy, note) end)
    assert.same({ "old", "new" }, seen)
    assert.is_true(clock:now() - started >= 3 and clock:now() - started < 3.2)
  end)

  it("share one loading also of what another process has the lease of, where the lock is the process", function()
    db:sql("INSERT INTO cache (user_id, key, value, format, version, noted_version, expires_at, lease_holder, lease_until) "
      .. "VALUES ('app', 'k', '', 'a', 5, 5, '-infinity', 77, now() + interval '1 hour')")
    local loads, got = 0, {}
    for i = 1, 3 do
      clock:spawn(function()
        got[i] = cache:fetch_many({ "k" }, { ttl = 60, lock = "process" }, function()
          loads = loads + 1
          fpcache.waiting.sleep(2)
          return { k = "mine" }
        end)
      end)
    end
    clock:run()
    assert.same({ { k = "mine" }, { k = "mine" }, { k = "mine" } }, got)
    assert.equal(1, loads)
    local stats = cache:stats()
    assert.equal(3, stats.misses)
  end)
end)

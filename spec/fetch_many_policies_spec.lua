-- fetch_many_policies_spec.lua -- each field of a policy, and each word of a loader, holds for fetch_many as for fetch.
local chance = require "fpcache.policy.chance"
local database = require "support.database"
local fpcache = require "fpcache"
local layers = require "support.layers"
local tasks = require "support.tasks"

describe("fetch_many, as fetch,", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache, fpcache_tags")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  --- A loader that gives the same values each time, those that are asked for; it notes what it was asked for.
  local function origin(values, err)
    return setmetatable({ asked = {} }, { __call = function(self, keys)
      local list = {}
      for i, key in ipairs(keys) do list[i] = key end
      self.asked[#self.asked + 1] = table.concat(list, " ")
      return values, err
    end })
  end

  local function down() return nil, "origin: down" end

  --- All results as one table.
  local function many(keys, policy, loader)
    local values, err, sources = cache:fetch_many(keys, policy, loader)
    return { values, err, sources }
  end

  describe("what is not modified", function()
    local POLICY = fpcache.policy { ttl = 60, stale_ttl = 600, tags = "shop" }

    before_each(function()
      cache:fetch_many({ "a", "b", "c" }, POLICY, function(_, context)
        context.validators.a, context.validators.b = 'W/"a"', "\0b"
        return { a = { 1 }, b = false, c = "three" }
      end)
      db:age(61)
    end)

    it("keeps its value and lives anew, key by key; new values beside it are stored", function()
      local seen
      local got = many({ "a", "b", "c", "d" }, POLICY, function(_, context)
        seen = { context.old, { a = context.validators.a, b = context.validators.b, c = context.validators.c } }
        context.validators.c, context.ttls.a = "of c", "1h"
        return { a = context:not_modified(), b = context.not_modified(), c = "new", d = "four" }
      end)
      local values = { a = { 1 }, b = false, c = "new", d = "four" }
      assert.same({ values, nil, { a = "loader", b = "loader", c = "loader", d = "loader" } }, got)
      assert.same({ { a = { 1 }, b = false, c = "three" }, { a = 'W/"a"', b = "\0b" } }, seen)
      assert.same(values, cache:get_many { "a", "b", "c", "d" })
      assert.is_true(cache:ttl("a") > 3500 and cache:ttl("b") > 55 and cache:ttl("b") <= 60)
      for _, key in ipairs { "a", "b", "c", "d" } do assert.same({ "shop" }, cache:tags(key)) end
      db:age(3601) -- a is stale, the others are gone
      many({ "a", "b", "c", "d" }, { ttl = 60, stale_ttl = 6000 }, function(_, context) seen = context.validators return {} end)
      assert.same({ a = 'W/"a"' }, seen)
    end)

    it("may be all of them", function()
      local got = many({ "a", "b", "c" }, POLICY, function(_, context) return context:not_modified() end)
      assert.same({ { a = { 1 }, b = false, c = "three" }, nil, { a = "loader", b = "loader", c = "loader" } }, got)
      assert.same({ a = { 1 }, b = false, c = "three" }, cache:get_many { "a", "b", "c" })
      assert.equal("f:3", db:sql("SELECT string_agg(DISTINCT (stale_until IS NULL)::text::char, ''), count(*) FROM cache "
        .. "WHERE expires_at > now()"):gsub("|", ":"))
      db:age(61)
      many({ "c", "b" }, POLICY, function(_, context)
        assert.same({ b = "\0b" }, context.validators)
        return {}
      end)
    end)

    it("needs an old value: a key without one is an error, and takes nothing from the others", function()
      local message = "invalid: the loader says not modified, but there is no old value"
      local got = many({ "a", "new" }, POLICY, function(_, context) return context:not_modified() end)
      assert.same({ { a = { 1 } }, message, { a = "loader" } }, got)
      assert.same({ 1 }, (cache:get("a")))
      assert.is_false(cache:exists("new"))
      got = many({ "new" }, POLICY, function(_, context) return { new = context:not_modified() } end)
      assert.same({ nil, message, {} }, got)
      assert.same({ { new = 1 }, nil, { new = "loader" } }, many({ "new" }, POLICY, origin { new = 1 }), "no lease was left")
      assert.is_true(cache:exists("new"))
    end)

    it("is not brought back when it was deleted, or written, meanwhile", function()
      many({ "a", "b", "c" }, POLICY, function(_, context)
        cache:delete("a")
        cache:set("b", "newer")
        return context:not_modified()
      end)
      assert.same({ b = "newer", c = "three" }, cache:get_many { "a", "b", "c" })
      assert.equal(2, cache:stats().policies.overtaken)
    end)

    it("gets the tags that the loader names", function()
      many({ "a", "b" }, POLICY, function(_, context)
        context.tags = { "other" }
        return context:not_modified()
      end)
      assert.same({ "other" }, cache:tags("a"))
      assert.equal(2, assert(cache:invalidate_tag "other"))
      assert.is_nil((cache:get("a")))
    end)
  end)

  it("refuses validators that are none", function()
    for message, set in pairs {
      ["invalid: context.validators of a key: text expected, got number"] = function(c) c.validators.a = 7 end,
      ["invalid: context.validators: a table by key is expected, got string"] = function(c) c.validators = "x" end,
      ["invalid: context.validator: unknown field (did you mean validators?)"] = function(c) c.validator = "x" end,
    } do
      local values, err = cache:fetch_many({ "a" }, 60, function(_, context) set(context) return { a = 1 } end)
      assert.is_nil(values)
      assert.equal(message, err:sub(1, #message))
    end
    assert.same({ a = 1 }, cache:fetch_many({ "a" }, 60, origin { a = 1 }))
    assert.is_true(cache:exists("a"), "no lease was left")
  end)

  it("notes thousands of validators, each on its own key", function()
    local keys, values, policy = {}, {}, { ttl = 60, stale_ttl = 600 }
    for i = 1, 3000 do keys[i], values["k" .. i] = "k" .. i, i end
    many(keys, policy, function(list, context)
      for i, key in ipairs(list) do if i % 3 > 0 then context.validators[key] = "of " .. key end end
      return values
    end)
    assert.equal("2000|t", db:sql([[SELECT count(*), bool_and(validator = 'of '::bytea || key) FROM cache
      WHERE validator IS NOT NULL]]))
  end)

  it("a living value is \"db\" when loading it early failed", function()
    local policy = fpcache.policy { ttl = 100, refresh_ahead = 0.5, error_backoff = 50 }
    many({ "a", "b" }, policy, origin { a = 1, b = 2 })
    db:age(60)
    local failing = origin(nil, "origin: down")
    assert.same({ { a = 1, b = 2 }, nil, { a = "db", b = "db" } }, many({ "a", "b" }, policy, failing))
    assert.same({ { a = 1, b = 2 }, nil, { a = "db", b = "db" } }, many({ "a", "b" }, policy, failing))
    assert.equal(1, #failing.asked, "error_backoff")
    assert.equal(0, cache:stats().policies.stale)
  end)

  describe("early renewal", function()
    it("by refresh_ahead loads what is old, and that alone", function()
      local policy = fpcache.policy { ttl = 100, refresh_ahead = 0.8 }
      many({ "a" }, policy, origin { a = 1 })
      db:age(40)
      many({ "b" }, policy, origin { b = 1 })
      db:age(30) -- 70 and 30
      local load = origin { a = 2, b = 2 }
      assert.same({ { a = 1, b = 1 }, nil, { a = "db", b = "db" } }, many({ "a", "b" }, policy, load))
      db:age(20)
      assert.same({ { a = 2, b = 1 }, nil, { a = "loader", b = "db" } }, many({ "a", "b" }, policy, load))
      assert.same({ "a" }, load.asked)
      assert.is_true(cache:ttl("a") > 95)
    end)

    it("by beta goes by chance and the measured time of loading", function()
      local clock, drawn = tasks.new { fake = true }, chance.draw
      finally(function() chance.draw = drawn clock:close() end)
      local policy = fpcache.policy { ttl = 100, beta = 1 }
      clock:call(function()
        cache:fetch_many({ "a" }, policy, function()
          fpcache.waiting.sleep(10)
          return { a = 1 }
        end)
      end)
      db:age(80) -- 20 s are left: two times the cost
      chance.draw = function() return math.exp(-1.8) end
      assert.same({ { a = 1 }, nil, { a = "db" } }, many({ "a" }, policy, origin { a = 2 }))
      chance.draw = function() return math.exp(-2.2) end
      assert.same({ { a = 2 }, nil, { a = "loader" } }, many({ "a" }, policy, origin { a = 2 }))
    end)
  end)

  it("jitter shortens each ttl, but not those that the loader names", function()
    local drawn, draws = chance.draw, { 0.5, 1, 0 }
    finally(function() chance.draw = drawn end)
    chance.draw = function() return table.remove(draws) or 0 end
    many({ "a", "b", "c" }, { ttl = 1000, jitter = 0.2 }, function(_, context)
      context.ttls.c = 5000
      return { a = 1, b = 1, c = 1 }
    end)
    assert.is_true(cache:ttl("a") > 990 and cache:ttl("c") > 4990)
    assert.is_true(cache:ttl("b") > 790 and cache:ttl("b") <= 800)
  end)

  it("sliding prolongs what is read, by one statement for those that are due", function()
    local policy = fpcache.policy { ttl = 100, stale_ttl = 50, sliding = true }
    many({ "a", "b" }, policy, origin { a = 1, b = 2 })
    db:age(50)
    many({ "late" }, policy, origin { late = 3 })
    db:age(10)
    cache:set("plain", 4, 60)
    local before = db:sql("SELECT xmin FROM cache WHERE key IN ('late', 'plain') ORDER BY key")
    local got = many({ "a", "late", "plain", "b" }, policy, error)
    assert.same({ a = 1, b = 2, late = 3, plain = 4 }, got[1])
    assert.is_true(cache:ttl("a") > 95 and cache:ttl("b") > 95 and cache:ttl("late") <= 90)
    assert.equal(before, db:sql("SELECT xmin FROM cache WHERE key IN ('late', 'plain') ORDER BY key"))
    assert.equal("1", db:sql("SELECT count(DISTINCT xmin::text) FROM cache WHERE key IN ('a', 'b')"))
    db:age(120)
    assert.same({ a = "stale", b = "stale" }, many({ "a", "b" }, policy, down)[3], "so is the time after its end")
  end)

  it("negative_ttl without end, and tags of what is not there", function()
    local policy = fpcache.policy { ttl = 60, negative_ttl = 60, tags = "shop" }
    many({ "a", "b" }, policy, function(_, context)
      context.negative_ttl, context.tags = math.huge, { "own" }
      return {}
    end)
    db:age(3600)
    assert.same({ {}, nil, { a = "db", b = "db" } }, many({ "a", "b" }, policy, error))
    assert(cache:invalidate_tag "shop")
    assert.same({ {}, nil, { a = "db", b = "db" } }, many({ "a", "b" }, policy, error))
    assert(cache:invalidate_tag "own")
    assert.same({ a = 1, b = 1 }, many({ "a", "b" }, policy, origin { a = 1, b = 1 })[1])
    many({ "c" }, policy, function(_, context) context.tags = {} return {} end)
    assert(cache:invalidate_tag "shop")
    assert.same({ {}, nil, { c = "db" } }, many({ "c" }, policy, error))
  end)

  it("tags are those that the loader names", function()
    local policy = fpcache.policy { ttl = 60, tags = "shop" }
    many({ "a", "b" }, policy, function(_, context)
      context.tags = { "y", "x" }
      return { a = 1, b = 1 }
    end)
    assert.same({ { "x", "y" }, { "x", "y" } }, { cache:tags("a"), cache:tags("b") })
    assert.equal(0, assert(cache:invalidate_tag "shop"))
    assert.equal(2, assert(cache:invalidate_tag "x"))
    many({ "a" }, policy, function(_, context) context.tags = {} return { a = 1 } end)
    assert.same({}, cache:tags("a"))
  end)

  describe("what could be answered is given also when the rest could not be loaded", function()
    local policy = fpcache.policy { ttl = 60, stale_ttl = 600, error_backoff = 30 }

    it("with the reason; and nobody loads the stale ones for error_backoff", function()
      many({ "stale" }, policy, origin { stale = 1 })
      db:age(61)
      cache:set("living", 2)
      local got = many({ "stale", "living", "missing" }, policy, down)
      assert.same({ { stale = 1, living = 2 }, "origin: down", { stale = "stale", living = "db" } }, got)
      local load = origin { missing = 3, stale = 4 }
      assert.same({ { stale = 1, missing = 3 }, nil, { stale = "stale", missing = "loader" } },
        many({ "stale", "missing" }, policy, load))
      assert.same({ "missing" }, load.asked)
      assert.equal(2, cache:stats().policies.stale)
      assert.same({ nil, "origin: down", {} }, many({ "other", "another" }, policy, down))
    end)

    it("and an event says so", function()
      local events = {}
      local seen = db:open { on_event = function(event) events[#events + 1] = event end }
      assert(seen:set("a", 1))
      local values, err = seen:fetch_many({ "a", "b" }, policy, down)
      assert.same({ { a = 1 }, "origin: down" }, { values, err })
      local last = events[#events]
      assert.same({ "fetch_many", "done", 2, 1, "origin: down", "origin" },
        { last.name, last.outcome, last.keys, last.count, last.error, last.code })
      assert.equal(1, seen:stats().events.errors)
    end)

    it("also when one of them cannot be read", function()
      local other = db:open { encrypt = { keys = { k = ("0f"):rep(32) } } }
      cache:set("good", 1)
      other:set("sealed", "secret")
      local got = many({ "good", "sealed" }, policy, error)
      assert.same({ { good = 1 }, { good = "db" } }, { got[1], got[3] })
      assert.equal(select(2, cache:fetch("sealed", policy, error)), got[2])
    end)

    it("also of thousands, of which the first could not be loaded", function()
      local keys = {}
      for i = 1, 10001 do keys[i] = "k" .. i end
      cache:set("k10001", "last")
      local got = many(keys, policy, down)
      assert.same({ { k10001 = "last" }, "origin: down", { k10001 = "db" } }, got)
    end)

    it("also from the near cache", function()
      cache = layers.open(db)
      cache:set("near", 1)
      layers.warm(cache, "near")
      assert.same({ { near = 1 }, "origin: down", { near = "near" } }, many({ "near", "other" }, policy, down))
    end)
  end)

  describe("in the background", function()
    local clock
    before_each(function()
      clock = tasks.new { fake = true }
      cache:fetch_many({ "a", "b" }, { ttl = 60, stale_ttl = 600 }, origin { a = "old a", b = "old b" })
    end)
    after_each(function() clock:close() end)

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
    local clock
    before_each(function()
      clock = tasks.new { fake = true }
      cache = db:open { breaker_pause = 30 }
      cache:set("k", "stored")
      for _ = 1, 3 do cache.flow.breaker:failed("connect: refused") end
    end)
    after_each(function() clock:close() end)

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

  it("coroutines share one loading also of what another process has the lease of, where the lock is the process", function()
    local clock = tasks.new { fake = true }
    finally(function() clock:close() end)
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

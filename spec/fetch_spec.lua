-- fetch against a real server; time passes by Database:age() for what is stored, and by a clock of the spec for waits.
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local chance = require "fpcache.policy.chance"
local layers = require "support.layers"
local origin = require "support.origin"
local tasks = require "support.tasks"

describe("fetch", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function fetch(key, policy, loader, ...)
    local value, err, source, why = cache:fetch(key, policy, loader, ...)
    return value, err, source, why
  end

  describe("the loader", function()
    it("is called once; others get what it gave", function()
      local load = origin { name = "Ann" }
      local value, err, source = fetch("k", 60, load, 1, nil, "x")
      assert.same({ { name = "Ann" }, nil, "loader" }, { value, err, source })
      assert.same({ 1, nil, "x" }, { load.arguments[1], load.arguments[2], load.arguments[3] })
      assert.equal("k", load.context.key)
      value, err, source = fetch("k", 60, load)
      assert.same({ { name = "Ann" }, nil, "db" }, { value, err, source })
      assert.equal(1, load.calls)
      assert.same({ name = "Ann" }, (cache:get("k")))
      assert.is_true(cache:ttl("k") > 55 and cache:ttl("k") <= 60)
    end)

    it("may come without a policy", function()
      assert.equal(1, (cache:fetch("k", function(context) return context.key == "k" and 1 end)))
      assert.equal(7, (cache:fetch("l", function(a, b) return a + b end, 3, 4)))
      assert.equal(-1, cache:ttl("k"))
      assert.is_false((cache:fetch("f", "1m", function() return false end)))
      assert.is_false((cache:fetch("f", "1m", error)))
    end)

    it("fails: nothing is stored, and the next caller tries again", function()
      local load = origin(nil, "origin: gone")
      assert.same({ nil, "origin: gone", "loader" }, { fetch("k", 60, load) })
      assert.same({ nil, "origin: gone", "loader" }, { fetch("k", 60, load) })
      assert.equal(2, load.calls)
      local _, err, source, traceback = fetch("k", 60, function() error("broken\nin two") end)
      assert.matches("^loader: .*broken in two$", err)
      assert.equal("loader", source)
      assert.matches("stack traceback", traceback)
      assert.equal(1, (fetch("k", 60, origin(1))))
    end)

    it("says by its context how its value is kept", function()
      fetch("long", 60, function(context) context.ttl = "1h" return 1 end)
      fetch("forever", 60, function(context) context.ttl = math.huge return 1 end)
      fetch("not", 60, function(context) context.store = false return 1 end)
      assert.is_true(cache:ttl("long") > 3500)
      assert.equal(-1, cache:ttl("forever"))
      assert.equal(-2, cache:ttl("not"))
      assert.equal(2, (fetch("not", 60, origin(2))))
      assert.matches('^invalid: context.ttl: "soon" is no duration',
        select(2, fetch("bad", 60, function(context) context.ttl = "soon" return 1 end)))
      assert.equal("invalid: context.validator: text expected, got number (set by the loader)",
        (select(2, fetch("bad", 60, function(context) context.validator = 7 return 1 end))))
      assert.equal(1, (fetch("bad", 60, origin(1))))
      assert.is_true(cache:exists("bad"), "no lease was left that keeps others from storing")
    end)

    it("says that the old value is still right", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600 }
      fetch("k", policy, function(context) context.validator = 'W/"1"' return { 1 } end)
      db:age(100)
      local seen
      local value, _, source = fetch("k", policy, function(context)
        seen = { context.old, context.validator }
        return context:not_modified()
      end)
      assert.same({ { 1 }, "loader" }, { value, source })
      assert.same({ { 1 }, 'W/"1"' }, seen)
      assert.is_true(cache:ttl("k") > 55)
      db:age(100)
      assert.equal(2, (fetch("k", policy, function(context) assert(context.validator == 'W/"1"') return 2 end)))
      assert.matches("^invalid: the loader says not modified",
        select(2, fetch("none", policy, function(context) return context:not_modified() end)))
    end)

    it("gives what cannot be stored to its caller, with the reason", function()
      local value, err, source, why = fetch("k", 60, origin(print))
      assert.same({ print, nil, "loader" }, { value, err, source })
      assert.matches("^invalid: ", why)
      assert.equal(1, (fetch("k", 60, origin(1))))
    end)
  end)

  describe("policies:", function()
    it("negative_ttl remembers that there is none", function()
      local load = origin(nil)
      assert.same({ nil, nil, "loader" }, { fetch("k", { ttl = 60, negative_ttl = 5 }, load) })
      assert.same({ nil, nil, "db" }, { fetch("k", { ttl = 60, negative_ttl = 5 }, load) })
      assert.same({ nil, nil, "db" }, { cache:get("k") })
      assert.is_false(cache:exists("k"))
      assert.equal("", db:sql("SELECT key FROM valid_cache"))
      assert.equal(1, load.calls)
      db:age(6)
      fetch("k", { ttl = 60, negative_ttl = 5 }, load)
      assert.equal(2, load.calls)
      fetch("l", 60, load)
      fetch("l", 60, load)
      assert.equal(4, load.calls, "without negative_ttl nothing is remembered")
      cache:set("k", 1)
      assert.equal(1, (fetch("k", 60, load)))
    end)

    it("jitter shortens the ttl by chance, by at most its share", function()
      finally(function() chance.draw = chance.drawn end)
      chance.drawn, chance.draw = chance.draw, function() return 0.5 end
      fetch("k", { ttl = 1000, jitter = 0.2 }, origin(1))
      assert.is_true(math.abs(cache:ttl("k") - 900) < 5)
    end)

    it("stale_ttl gives the old value when the origin fails, and error_backoff spares it", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, error_backoff = 10 }
      fetch("k", policy, origin("old"))
      db:age(61)
      assert.is_nil((cache:get("k")), "for get it has expired")
      local load = origin(nil, "origin: down")
      assert.same({ "old", nil, "stale", "origin: down" }, { fetch("k", policy, load) })
      for _ = 1, 5 do assert.same({ "old", nil, "stale" }, { fetch("k", policy, load) }) end
      assert.equal(1, load.calls)
      db:age(11)
      assert.same({ "old", nil, "stale", "origin: down" }, { fetch("k", policy, load) })
      assert.equal(2, load.calls)
      db:age(11)
      assert.same({ "new", nil, "loader" }, { fetch("k", policy, origin("new")) })
      db:age(661)
      assert.same({ nil, "origin: down", "loader" }, { fetch("k", policy, load) })
      assert.same({ nil, "origin: down", "loader" }, { fetch("k", 60, load) })
    end)

    it("error_backoff ends with the last older value: what is loaded then is stored", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 30, error_backoff = 600 }
      for _, many in ipairs { false, true } do
        local function ask(value)
          if not many then return (fetch("k", policy, origin(value, not value and "origin: down" or nil))) end
          local values = cache:fetch_many({ "k" }, policy, function()
            if not value then return nil, "origin: down" end
            return { k = value }
          end)
          return values and values.k
        end
        ask("old")
        db:age(61)
        assert.equal("old", ask(nil))
        db:age(31)
        assert.equal("new", ask("new"))
        assert.equal("new", (cache:get("k")))
        cache:delete("k")
      end
    end)

    it("an origin that fails for 10 s is seen by nobody while stale is allowed", function()
      local clock = tasks.new { fake = true }
      finally(function() clock:close() end)
      local policy = fpcache.policy { ttl = 1, stale_ttl = 60, error_backoff = 1 }
      local down, loads, errors, stale = false, 0, 0, 0
      local began = core.system.now()
      local function load()
        loads = loads + 1
        if down then return nil, "origin: down" end
        return "value"
      end
      for step = 0, 140 do
        down = step > 20 and step <= 120
        local value, err, source = clock:call(function() return cache:fetch("k", policy, load) end)
        if err or value ~= "value" then errors = errors + 1 end
        if source == "stale" then stale = stale + 1 end
        db:age(0.1)
      end
      assert.equal(0, errors)
      assert.is_true(stale >= 90, tostring(stale))
      assert.is_true(loads <= 30 + core.system.now() - began, tostring(loads)) -- of 141; the server's own time goes on too
    end)

    it("refresh_ahead loads before the end, for one caller", function()
      local policy = fpcache.policy { ttl = 100, refresh_ahead = 0.8 }
      fetch("k", policy, origin(1))
      db:age(70)
      assert.same({ 1, nil, "db" }, { fetch("k", policy, origin(2)) })
      db:age(15)
      local other = db:open()
      local value, _, source = fetch("k", policy, function()
        assert.same({ 1, nil, "db" }, { other:fetch("k", policy, error) })
        return 2
      end)
      assert.same({ 2, "loader" }, { value, source })
      assert.is_true(cache:ttl("k") > 95)
      db:age(85)
      assert.same({ 2, nil, "db", "down" }, { fetch("k", policy, origin(nil, "down")) })
    end)

    it("beta loads early by chance and cost", function()
      finally(function() chance.draw = chance.drawn end)
      chance.drawn = chance.draw
      local policy = fpcache.policy { ttl = 100, beta = 1 }
      fetch("k", policy, origin(1))
      db:sql("UPDATE cache SET load_seconds = 10")
      db:age(80) -- 20 s are left: two times the cost
      chance.draw = function() return math.exp(-1.9) end
      assert.same({ 1, nil, "db" }, { fetch("k", policy, origin(2)) })
      chance.draw = function() return math.exp(-2.1) end
      assert.same({ 2, nil, "loader" }, { fetch("k", policy, origin(2)) })
    end)

    it("sliding prolongs what is read", function()
      local policy = fpcache.policy { ttl = 100, sliding = true }
      fetch("k", policy, origin(1))
      for _ = 1, 5 do
        db:age(60)
        assert.same({ 1, nil, "db" }, { fetch("k", policy, origin(2)) })
        assert.is_true(cache:ttl("k") > 95)
      end
      db:age(101)
      assert.equal(2, (fetch("k", policy, origin(2))))
    end)

    it("sliding moves the time for which an old value may be given, too", function()
      local policy, down = fpcache.policy { ttl = 100, stale_ttl = 100, sliding = true }, origin(nil, "origin: down")
      fetch("k", policy, origin(1))
      db:age(60)
      assert.same({ 1, nil, "db" }, { fetch("k", policy, origin(2)) })
      db:age(150) -- 10 s after the first life and its stale_ttl
      assert.same({ 1, nil, "stale", "origin: down" }, { fetch("k", policy, down) })
      db:age(51)
      assert.same({ nil, "origin: down", "loader" }, { fetch("k", policy, down) })
    end)

    it("tags are those of the policy, or of the loader", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, tags = { "shop", "all" } }
      fetch("k", policy, origin(1))
      fetch("l", policy, function(context) context.tags = "own" return 1 end)
      cache:fetch_many({ "m" }, policy, function() return { m = 1 } end)
      assert.same({ "all", "shop" }, cache:tags("k"))
      assert.same({ "own" }, cache:tags("l"))
      assert.same({ "all", "shop" }, cache:tags("m"))
      db:age(61)
      fetch("l", policy, function(context) return context:not_modified() end)
      assert.same({ "own" }, cache:tags("l"))
      assert.equal(0, assert(cache:invalidate_tag "all"), "none of them lived")
      assert.equal("new", (fetch("k", policy, origin("new"))))
      assert.equal(1, assert(cache:invalidate_tag("shop", { expire = true })))
      assert.same({ "new", nil, "stale", "down" }, { fetch("k", policy, origin(nil, "down")) })
      db:age(20)
      fetch("k", policy, function() cache:invalidate_tag("all", { expire = true }) return "overtaken" end)
      assert.is_nil((cache:get("k")))
      assert.matches("^invalid: a tag has", select(2, fetch("n", policy, function(context) context.tags = "" return 1 end)))
    end)

    it("tags are those of a remembered absence, too", function()
      local policy = fpcache.policy { ttl = 60, negative_ttl = 600, tags = { "shop" } }
      for _, opts in ipairs { {}, { expire = true } } do
        assert.same({ nil, nil, "loader" }, { fetch("k", policy, origin(nil)) })
        cache:fetch_many({ "l" }, policy, function() return {} end)
        assert.same({ nil, nil, "db" }, { fetch("k", policy, error) })
        assert.same({ nil, nil, "db" }, { fetch("l", policy, error) })
        assert(cache:invalidate_tag("shop", opts))
        assert.equal("made", (fetch("k", policy, origin("made"))))
        assert.equal("made", (fetch("l", policy, origin("made"))))
        assert(cache:clear())
      end
    end)

    it("near answers from memory, but not into the time of renewal", function()
      cache = layers.open(db)
      local policy = fpcache.policy { ttl = 100 }
      fetch("k", policy, origin(1))
      assert(cache:wait_ready(10))
      assert.equal("near", database.eventually(function()
        local _, _, source = fetch("k", policy, error)
        return source == "near" and source
      end))
      assert.equal("db", select(3, fetch("k", { ttl = 100, near = false }, error)))
      assert(cache:delete("k"))
      assert.same({ 2, nil, "loader" }, { fetch("k", policy, origin(2)) })
    end)

    it("near remembers that the loader said there is none, until somebody writes the key", function()
      cache = layers.open(db, { use_cuckoo_filter = false, max_staleness = 30 }) -- it answers however slow the machine is
      local policy, load = fpcache.policy { ttl = 60, negative_ttl = 60 }, origin(nil)
      assert.equal("near", database.eventually(function() return layers.source(cache, "k") == "near" and "near" end))
      assert.equal("loader", select(3, fetch("k", policy, load)), "that get found nothing is no answer for fetch")
      assert.equal("near", database.eventually(function()
        local value, err, source = fetch("k", policy, error)
        assert.same({}, { value, err })
        return source == "near" and source
      end))
      local asked = cache:stats().near.negative_hits
      for _ = 1, 5 do assert.same({ nil, nil, "near" }, { fetch("k", policy, error) }) end
      local values, err, sources = cache:fetch_many({ "k" }, policy, error)
      assert.same({ {}, nil, { k = "near" } }, { values, err, sources })
      assert.equal(asked + 6, cache:stats().near.negative_hits)
      assert.same({ nil, nil, "near" }, { cache:get("k") })
      assert.equal("db", select(3, fetch("k", { ttl = 60, negative_ttl = 60, near = false }, error)))
      assert.equal(1, load.calls)
      assert(db:open():set("k", "there"))
      assert.equal("there", database.eventually(function() return (fetch("k", policy, error)) end))
      cache:fetch_many({ "m" }, policy, function() return {} end)
      assert.equal("near", database.eventually(function()
        local _, _, from = cache:fetch_many({ "m" }, policy, error)
        return from.m == "near" and from.m
      end))
      cache:delete("m")
      assert.equal(3, (fetch("m", policy, origin(3))), "its own delete it knows at once")
    end)
  end)

  it("does not wait in vain for its own loader, or for a coroutine that cannot go on", function()
    local started = core.system.now()
    assert.equal("inner", (fetch("k", 60, function()
      return (fetch("k", 60, origin("inner")))
    end)))
    local depth = 0
    local function endless()
      depth = depth + 1
      return fetch("n", 60, endless)
    end
    local _, err = fetch("n", 60, function()
      local value, reason = fetch("n", 60, endless)
      return value, reason
    end)
    assert.matches("^invalid: the loader fetches the key that it loads", err)
    assert.equal(1, depth)
    assert.equal(3, (fetch("n", 60, origin(3))))
    local first = coroutine.wrap(function() return (cache:fetch("l", 60, function() coroutine.yield() return 1 end)) end)
    first()
    assert.equal(2, (fetch("l", 60, origin(2))))
    assert.equal(1, first())
    assert.is_true(core.system.now() - started < 5)
  end)

  it("refuses what is no loader, policy or key", function()
    assert.has_error(function() cache:fetch("k", 60) end, "bad loader (function expected, got nil)")
    assert.has_error(function() cache:fetch("k", true, print) end,
      "bad policy (fpcache.policy, table or ttl expected, got boolean)")
    assert.has_error(function() cache:fetch(1, 60, print) end, "bad key (string expected, got number)")
    assert.matches("^invalid: a key must not be empty", select(2, fetch("", 60, origin(1))))
    local closed = db:open()
    closed:close()
    assert.matches("^closed: ", select(2, closed:fetch("k", 60, origin(1))))
  end)
end)

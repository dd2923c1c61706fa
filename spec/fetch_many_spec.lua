-- fetch_many, wrap, lock, rate limiters and counters against a real server.
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local layers = require "support.layers"
local tasks = require "support.tasks"

describe("policies", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  describe("fetch_many", function()
    local asked
    before_each(function() asked = {} end)

    local function load(keys)
      asked[#asked + 1] = table.concat(keys, " ")
      local values = {}
      for _, key in ipairs(keys) do
        if not key:find("none") then values[key] = key .. "!" end
      end
      return values
    end

    it("loads by one call what is missing", function()
      local policy = fpcache.policy { ttl = 60, negative_ttl = 5 }
      local values, err, sources = cache:fetch_many({ "a", "none", "b", "a" }, policy, load)
      assert.is_nil(err)
      assert.same({ a = "a!", b = "b!" }, values)
      assert.same({ a = "loader", b = "loader", none = "loader" }, sources)
      values, err, sources = cache:fetch_many({ "c", "b", "none" }, policy, load)
      assert.same({ { b = "b!", c = "c!" }, nil, { b = "db", none = "db", c = "loader" } }, { values, err, sources })
      assert.same({ "a none b", "c" }, asked)
      assert.same({ a = "a!", b = "b!", c = "c!" }, cache:get_many { "a", "b", "c", "none" })
    end)

    it("takes long keys, false, and many of them", function()
      local long, keys = ("l"):rep(3000), {}
      assert.same({ [long] = false }, cache:fetch_many({ long }, 60, function() return { [long] = false } end))
      assert.same({ [long] = false }, cache:fetch_many({ long }, 60, error))
      for i = 1, 12000 do keys[i] = "k" .. i end
      local calls = 0
      local function numbers(list)
        calls = calls + 1
        local values = {}
        for _, key in ipairs(list) do values[key] = tonumber(key:sub(2)) end
        return values
      end
      assert(cache:fetch_many(keys, 60, numbers))
      local values = assert(cache:fetch_many(keys, 60, error))
      for i = 1, 12000 do assert.equal(i, values["k" .. i]) end
      assert.equal(2, calls)
    end)

    it("seals what it stores, as set does", function()
      local secret = db:open { encrypt = { keys = { k1 = ("k"):rep(32) } }, compress = { above = 0 } }
      local long = ("l"):rep(3000)
      local values = assert(secret:fetch_many({ "a", long }, 60, function() return { a = "plain a", [long] = "plain l" } end))
      assert.same({ a = "plain a", [long] = "plain l" }, values)
      assert.equal("plain b", (secret:fetch("b", 60, function() return "plain b" end)))
      assert.equal("0", db:sql("SELECT count(*) FROM cache WHERE position('plain'::bytea IN value) > 0"))
      assert.same(values, secret:fetch_many({ "a", long }, 60, error))
      assert.same({ "plain b", nil, "db" }, { secret:fetch("b", 60, error) })
      assert.equal("plain b", (secret:get("b")))
    end)

    it("passes arguments and the context", function()
      cache:fetch_many({ "a", "b" }, 60, function(keys, one, two, context)
        assert(#keys == 2 and one == 1 and two == nil)
        context.ttls.a = 1000
        return { a = 1, b = 2 }
      end, 1, nil)
      assert.is_true(cache:ttl("a") > 990 and cache:ttl("b") < 61)
      cache:fetch_many({ "m" }, 60, function(_, context) context.ttls.m = "1h" return { m = 1 } end)
      assert.is_true(cache:ttl("m") > 3500)
      for message, ttls in pairs { ["context.ttls of a key: must be more than 0 seconds, got -4"] = { n = -4 },
        ['context.ttls of a key: "soon" is no duration'] = { n = "soon" },
        ["context.ttls: a table by key is expected, got number"] = 5 } do
        local values, err = cache:fetch_many({ "n" }, 60, function(_, context) context.ttls = ttls return { n = 1 } end)
        assert.is_nil(values)
        assert.equal("invalid: " .. message, err:sub(1, 9 + #message))
      end
      cache:fetch_many({ "n" }, 60, function() return { n = 1 } end)
      assert.is_true(cache:exists("n"), "no lease was left")
      cache:fetch_many({ "c" }, 60, function(_, context) context.store = false return { c = 3 } end)
      assert.is_false(cache:exists("c"))
    end)

    it("gives the loader's failure, or what is stale", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, error_backoff = 10 }
      local calls = 0
      local function down() calls = calls + 1 return nil, "origin: down" end
      cache:fetch_many({ "a", "b" }, policy, load)
      db:age(61)
      local values, err, sources = cache:fetch_many({ "a", "b" }, policy, down)
      assert.same({ { a = "a!", b = "b!" }, nil, { a = "stale", b = "stale" } }, { values, err, sources })
      assert.same({ a = "a!", b = "b!" }, cache:fetch_many({ "a", "b" }, policy, down))
      assert.equal(1, calls)
      values, err, sources = cache:fetch_many({ "new" }, policy, down)
      assert.same({ nil, "origin: down", {} }, { values, err, sources })
      assert.same({ new = "new!" }, cache:fetch_many({ "new" }, policy, load))
      assert.matches("^loader: a table of values by key is expected, got number",
        select(2, cache:fetch_many({ "x" }, policy, function() return 7 end)))
    end)

    it("stores nothing that was overtaken, and only its own", function()
      local values = cache:fetch_many({ "a", "b", "c" }, 60, function()
        cache:delete("a")
        cache:set("b", "newer")
        return { a = 1, b = 1, c = 1 }
      end)
      assert.same({ a = 1, b = 1, c = 1 }, values)
      assert.same({ b = "newer", c = 1 }, cache:get_many { "a", "b", "c" })
      assert.equal(2, cache:stats().policies.overtaken)
    end)

    it("waits for what others load", function()
      local other = db:open()
      local values = cache:fetch_many({ "a", "b" }, 60, function()
        local own = other:fetch_many({ "b", "c" }, { ttl = 60, lock = "process" }, function(keys)
          return { [keys[1]] = "other" }
        end)
        assert.equal("other", own.b)
        return { a = 1, b = 1 }
      end)
      assert.same({ a = 1, b = 1 }, values)
      assert.equal(1, (cache:get("b")), "the other had no lease")
    end)

    it("shares what other coroutines of the process load, whatever the lock is; their error and false, too", function()
      local clock = tasks.new { fake = true }
      finally(function() clock:close() end)
      for _, lock in ipairs { "process", "host", "cluster" } do
        local policy, loads, got = fpcache.policy { ttl = 60, lock = lock }, {}, {}
        local function slow(name, value, err)
          return function()
            loads[#loads + 1] = name
            fpcache.waiting.sleep(2)
            return value, err
          end
        end
        cache:delete_many { "a", "b", "c", "bad" }
        clock:spawn(function() cache:fetch("a", policy, slow("a", 1)) end)
        clock:spawn(function() cache:fetch_many({ "b" }, policy, slow("b", { b = false })) end)
        clock:spawn(function() cache:fetch("bad", policy, slow("bad", nil, "origin: down")) end)
        for i = 1, 2 do
          clock:spawn(function()
            fpcache.waiting.sleep(0.5)
            got[i] = cache:fetch_many({ "a", "b" }, policy, slow("again", {}))
          end)
        end
        clock:spawn(function()
          fpcache.waiting.sleep(0.5)
          got[3] = select(2, cache:fetch_many({ "bad" }, policy, slow("bad again", {})))
        end)
        clock:spawn(function()
          fpcache.waiting.sleep(0.5)
          got[4] = cache:fetch_many({ "c", "a" }, policy, slow("c", { c = 3 }))
        end)
        clock:run()
        table.sort(loads)
        assert.same({ "a", "b", "bad", "c" }, loads, lock)
        local both = { a = 1, b = false }
        assert.same({ both, both, "origin: down", { a = 1, c = 3 } }, got, lock)
      end
    end)

    it("loads at once what the caller himself is loading; without end is an error", function()
      local policy = fpcache.policy { ttl = 60, lock_timeout = 60 }
      local started = core.system.now()
      local function many(keys) return load(keys) end
      local function inner() return cache:fetch_many({ "a", "x" }, policy, many).a end
      assert.equal("a!", (cache:fetch("a", policy, inner)))
      assert.same({ b = "b!" }, cache:fetch_many({ "b" }, policy, function()
        return cache:fetch_many({ "b" }, policy, many)
      end))
      assert.same({ c = 7 }, cache:fetch_many({ "c" }, policy, function()
        return { c = (cache:fetch("c", policy, function() return 7 end)) }
      end))
      local depth = 0
      local function endless(keys)
        depth = depth + 1
        return cache:fetch_many(keys, policy, endless)
      end
      assert.matches("^invalid: the loader fetches the key that it loads", select(2, cache:fetch_many({ "d" }, policy, endless)))
      assert.equal(2, depth)
      assert.same({ d = "d!" }, cache:fetch_many({ "d" }, policy, load), "the next call is a new one")
      assert.is_true(core.system.now() - started < 30)
    end)

    it("takes lock = host for cluster: who has the lease is waited for", function()
      local clock = tasks.new { fake = true }
      finally(function() clock:close() end)
      db:sql("INSERT INTO cache (user_id, key, value, format, version, noted_version, expires_at, lease_holder, lease_until) "
        .. "VALUES ('app', 'k', '', 'a', 5, 5, '-infinity', 77, now() + interval '1 hour')")
      local started, values = clock:now(), nil
      clock:spawn(function()
        values = cache:fetch_many({ "k" }, { ttl = 60, lock = "host", lock_timeout = 30 }, function() error("not called") end)
      end)
      clock:spawn(function()
        fpcache.waiting.sleep(5)
        assert(cache:set("k", "of another host"))
      end)
      clock:run()
      assert.same({ k = "of another host" }, values)
      assert.is_true(clock:now() - started < 6)
    end)

    it("answers from the near cache", function()
      cache = layers.open(db)
      cache:set_many { a = 1, b = false }
      layers.warm(cache, "a")
      layers.warm(cache, "b")
      local _, _, sources = cache:fetch_many({ "a", "b", "c" }, 60, load)
      assert.same({ a = "near", b = "near", c = "loader" }, sources)
    end)
  end)

  describe("wrap", function()
    it("remembers a function by its arguments", function()
      local calls = 0
      local add = cache:wrap(function(a, b, ...)
        assert(select("#", ...) == 0)
        calls = calls + 1
        return a + (b or 0)
      end, { name = "add", ttl = "1m" })
      assert.equal(3, (add(1, 2)))
      assert.equal(3, (add(1, 2)))
      assert.equal(12, (add(12)))
      assert.equal(2, calls)
      assert.equal(3, (cache:get("add:[1,2]")))
    end)

    it("takes a key of its own and a policy", function()
      local policy = fpcache.policy { ttl = 60 }
      local function key(user) return "u" .. user.id end
      local get = cache:wrap(function(user) return user.name end, { key = key, policy = policy })
      assert.equal("Ann", (get { id = 1, name = "Ann" }))
      assert.equal("Ann", (get { id = 1, name = "Bob" }))
      assert.has_error(function() cache:wrap(print, {}) end,
        "options.name: a text is expected, which begins the keys and is the same in all processes")
      assert.has_error(function() cache:wrap(print, { name = "p", policy = policy, ttl = 1 }) end,
        "options.ttl: excluded by policy, which has all of it")
      assert.has_error(function() cache:wrap(print, { name = "p", tll = 1 }) end,
        "policy.tll: unknown option (did you mean ttl?)")
      assert.error_matches(function() cache:wrap(print, { name = "p" })(print) end, "bad arguments %(invalid: ")
    end)
  end)

  describe("lock", function()
    it("lets one in at a time", function()
      local other = db:open()
      local one, two = cache:lock("job", 5, function()
        assert.same({ nil, 'busy: another has the lock "job"' }, { other:lock("job", 5, error) })
        assert.equal("other", (other:lock("job 2", "5s", function() return "other" end)))
        return 1, 2
      end)
      assert.same({ 1, 2 }, { one, two })
      assert.equal(3, (other:lock("job", 5, function() return 3 end)))
      assert.same({}, cache:keys())
    end)

    it("ends when its function raises, and by its ttl", function()
      assert.has_error(function() cache:lock("job", 5, function() error("broken", 0) end) end, "broken")
      local other = db:open()
      cache:lock("job", 5, function()
        db:age(6)
        other:lock("job", 5, function() assert.matches("^busy", select(2, cache:lock("job", 5, error))) end)
      end)
    end)

    it("may be waited for", function()
      local other = db:open()
      local started = core.system.now()
      cache:lock("job", 0.3, function()
        assert.equal("mine", (other:lock("job", 5, function() return "mine" end, { wait = "20s" })))
        assert.is_true(core.system.now() - started > 0.25)
        assert.matches("^busy", select(2, cache:lock("free", 5, function()
          return other:lock("free", 5, error, { wait = 0.05 })
        end)))
      end)
    end)

    it("refuses to wait for less than no time", function()
      for _, wait in ipairs { -1, 0 / 0, math.huge } do
        assert.error_matches(function() cache:lock("l", 1, print, { wait = wait }) end, "options.wait: must not be negative")
      end
    end)

    it("needs a ttl", function()
      assert.matches("^invalid: a lock needs a ttl", select(2, cache:lock("job", math.huge, print)))
      assert.matches("^invalid: a ttl must be more than 0", select(2, cache:lock("job", 0, print)))
    end)
  end)

  describe("a rate limiter", function()
    it("that slides lets so many through, then one each interval", function()
      local limiter = cache:rate_limiter { limit = 4, window = "100s" }
      for left = 3, 0, -1 do
        local allowed, err, remaining = limiter:allow("ann")
        assert.same({ true, nil, left }, { allowed, err, remaining })
      end
      local allowed, _, remaining, retry_after = limiter:allow("ann")
      assert.same({ false, 0 }, { allowed, remaining })
      assert.is_true(retry_after > 20 and retry_after <= 25)
      assert.is_true((limiter:allow("bob", 4)))
      local written = db:sql("SELECT xmin FROM cache WHERE key = 'rate:ann'")
      assert.is_false((limiter:allow("ann")))
      assert.equal(written, db:sql("SELECT xmin FROM cache WHERE key = 'rate:ann'"), "a refusal writes nothing")
      db:sql("UPDATE cache SET value = convert_to((convert_from(value, 'UTF8')::bigint - 26000000)::text, 'UTF8')")
      assert.is_true((limiter:allow("ann")))
      assert.is_false((limiter:allow("ann")))
      assert.is_true(limiter:reset("ann"))
      assert.is_true((limiter:allow("ann", 4)))
    end)

    it("that is fixed begins anew when its window is over", function()
      local limiter = cache:rate_limiter { limit = 2, window = 100, kind = "fixed", prefix = "f:" }
      assert.same({ true, nil, 1, 0 }, { limiter:allow("k") })
      assert.same({ true, nil, 0, 0 }, { limiter:allow("k") })
      local allowed, _, _, retry_after = limiter:allow("k")
      assert.is_false(allowed)
      assert.is_true(retry_after > 90 and retry_after <= 100)
      db:age(100.1)
      assert.same({ true, nil, 1, 0 }, { limiter:allow("k") })
    end)

    it("refuses what makes no sense", function()
      assert.has_error(function() cache:rate_limiter { limit = 1 } end, "options.window: it has to be given")
      assert.has_error(function() cache:rate_limiter { limit = 1, window = 1, kind = "x" } end,
        'options.kind: must be "sliding" or "fixed", got "x"')
      local limiter = cache:rate_limiter { limit = 2, window = 1 }
      assert.matches("^invalid: a cost must be from 1 to the limit", select(2, limiter:allow("k", 3)))
      for _, kind in ipairs { "sliding", "fixed" } do
        cache:set("rate:k", "text")
        assert.matches("^invalid: what is stored under this key",
          select(2, cache:rate_limiter({ limit = 2, window = 1, kind = kind }):allow("k")))
      end
    end)
  end)

  it("a counter is shared, begins anew after its ttl, and stays within 64 bits", function()
    local counter, other = cache:counter("c", { ttl = "1h", initial = 10 }), db:open():counter("c")
    assert.equal(10, counter:value())
    assert.equal(11, counter:add())
    assert.equal(9, other:add(-2))
    assert.equal(9, counter:value())
    db:age(3601)
    assert.equal(11, counter:add())
    assert.is_true(counter:reset())
    db:sql("INSERT INTO cache (user_id, key, value, format) VALUES ('app', 'c', '9223372036854775807', 'i')")
    local value, err = counter:add()
    assert.is_nil(value)
    assert.matches("out of range", err)
  end)
end)

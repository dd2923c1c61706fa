-- Who loads a key: leases, and coroutines that share one loading.  Times as in fetch_spec.lua.
local database = require "support.database"
local fpcache = require "fpcache"
local origin = require "support.origin"
local tasks = require "support.tasks"

describe("fetch, when many ask,", function()
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

  describe("a lease", function()
    local POLICY = { ttl = 60, stale_ttl = 60, hard_timeout = 5, lock_timeout = 30 }

    it("that a delete overtook stores nothing, whoever deleted", function()
      for name, delete in pairs {
        delete = function() assert.is_false(cache:delete("k")) end,
        delete_many = function() assert.equal(0, cache:delete_many { "k" }) end,
        get_delete = function() assert.is_nil((cache:get_delete("k"))) end,
        clear = function() assert(cache:clear()) end,
        psql = function() db:sql("DELETE FROM cache WHERE key = 'k'") end,
        python = function() db:sql("SELECT cache_delete('app', 'k')", db:url_of()) end,
        truncate = function() db:sql("TRUNCATE cache") end,
      } do
        local value = fetch("k", POLICY, function() delete() return "old" end)
        assert.equal("old", value)
        if name ~= "python" then assert.is_nil((cache:get("k")), name) end
        cache:delete("k")
      end
    end)

    it("that a newer write overtook stores nothing", function()
      for _, write in ipairs {
        function() assert(cache:set("k", "new")) end,
        function() assert(cache:set_many { k = "new" }) end,
        function() assert(cache:add("k", "new")) end,
        function() db:sql("INSERT INTO cache (user_id, key, value, version) VALUES ('app', 'k', 'new', 9) "
          .. "ON CONFLICT (user_id, namespace, key) DO UPDATE SET value = excluded.value, version = cache.version + 1, "
          .. "expires_at = 'infinity', format = 't'") end,
      } do
        assert.equal("old", (fetch("k", POLICY, function() write() return "old" end)))
        assert.equal("new", (cache:get("k")))
        cache:delete("k")
      end
      assert.equal(4, cache:stats().policies.overtaken)
    end)

    it("that ended and was granted to another stores nothing; without another it does", function()
      local other = db:open()
      local value = fetch("k", POLICY, function()
        db:age(6)
        assert.equal("theirs", (other:fetch("k", POLICY, origin("theirs"))))
        return "late"
      end)
      assert.equal("late", value)
      assert.equal("theirs", (cache:get("k")))
      cache:delete("k")
      fetch("k", POLICY, function() db:age(6) return "late" end)
      assert.equal("late", (cache:get("k")))
    end)

    it("that another has by now stores nothing, and leaves the other's as it is", function()
      local take = "UPDATE cache SET lease_holder = 77, lease_until = now() + interval '1 hour'"
      assert.equal("late", (fetch("k", POLICY, function() db:sql(take) return "late" end)))
      assert.is_nil((cache:get("k")))
      assert.equal("77", db:sql("SELECT lease_holder FROM cache"))
      db:sql("TRUNCATE cache")
      assert.same({ nil, "down", "loader" }, { fetch("k", POLICY, function() db:sql(take) return nil, "down" end) })
      assert.equal("77|t", db:sql("SELECT lease_holder, lease_until > now() FROM cache"))
      db:sql("TRUNCATE cache")
      cache:fetch_many({ "k", "l" }, POLICY, function() db:sql(take) return { k = "late" } end)
      assert.same({}, cache:get_many { "k", "l" })
      assert.equal("77", db:sql("SELECT DISTINCT lease_holder FROM cache"))
    end)

    it("is not swept away, nor is what is stale", function()
      fetch("k", POLICY, function() assert.equal(0, cache:cleanup()) return 1 end)
      db:age(61)
      assert.equal(0, cache:cleanup())
      assert.equal("stale", select(3, fetch("k", POLICY, origin(nil, "down"))))
      db:age(61)
      assert.equal(1, cache:cleanup())
    end)

    it("of another is waited for, up to lock_timeout; then the caller loads himself and stores nothing", function()
      local clock = tasks.new { fake = true }
      finally(function() clock:close() end)
      db:sql("INSERT INTO cache (user_id, key, value, format, version, noted_version, expires_at, lease_holder, lease_until) "
        .. "VALUES ('app', 'k', '', 'a', 5, 5, '-infinity', 77, now() + interval '1 hour')")
      local started = clock:now()
      local value, _, source = clock:call(function()
        return cache:fetch("k", { ttl = 60, lock_timeout = 3 }, origin("own"))
      end)
      assert.same({ "own", "loader" }, { value, source })
      assert.is_true(clock:now() - started >= 3 and clock:now() - started < 3.1)
      assert.is_nil((cache:get("k")))
      started = clock:now()
      clock:call(function() return cache:fetch("k", { ttl = 60, lock = "process" }, origin("own")) end)
      assert.equal(started, clock:now())
    end)

    it("ends when a tag is invalidated that its value will have", function()
      local policy = fpcache.policy { ttl = 60, tags = { "shop", "all" }, hard_timeout = 5 }
      local kept = fpcache.policy { ttl = 60, stale_ttl = 600, tags = { "shop", "all" } }
      for _, invalidate in ipairs {
        function() assert.equal(0, assert(cache:invalidate_tag "all")) end,
        function() assert(cache:invalidate_tag("shop", { expire = true })) end,
        function() db:sql("SELECT fpcache_forget(NULL, '', NULL, ARRAY['shop'::bytea])") end,
      } do
        for _, one in ipairs { policy, kept } do
          assert.equal("before", (fetch("k", one, function() invalidate() return "before" end)))
          assert.is_nil((cache:get("k")), "loaded before, stored after")
          assert.equal("after", (fetch("k", one, origin("after"))))
          assert.same({ "after", nil, "db" }, { fetch("k", one, origin("again")) })
          assert(cache:delete("k"))
          cache:fetch_many({ "k", "l" }, one, function() invalidate() return { k = 1, l = 2 } end)
          assert.same({}, cache:get_many { "k", "l" })
          assert(cache:delete_many { "k", "l" })
        end
      end
      local early = fpcache.policy { ttl = 100, refresh_ahead = 0.5, tags = { "shop" } }
      assert.equal(1, (fetch("e", early, function() cache:invalidate_tag("shop") return 1 end)))
      assert.is_nil((cache:get("e")))
      local long = ("x"):rep(2000)
      assert.equal(1, (fetch(long, policy, function() cache:invalidate_tag("shop") return 1 end)))
      assert.is_nil((cache:get(long)))
      assert.equal(1, (fetch(long, policy, origin(1))))
      assert.same({ "all", "shop" }, cache:tags(long))
      assert.same({ long }, cache:keys { tag = "all" })
    end)

    it("is refused inside a transaction", function()
      local err = select(2, cache:transaction(function(tx) return tx:fetch("k", 60, origin(1)) end))
      assert.matches("^invalid: fetch is not for transactions", err)
    end)

    it("works behind a transaction pooler", function()
      local pooled = db:open { prepared = false }
      assert.equal(1, (pooled:fetch("k", POLICY, origin(1))))
      assert.same({ 1, nil, "db" }, { pooled:fetch("k", POLICY, origin(2)) })
      assert.equal("new", (pooled:fetch("l", POLICY, function() cache:set("l", "set") return "new" end)))
      assert.equal("set", (cache:get("l")))
    end)

    it("is of one user and namespace", function()
      local other = db:open { as = "other" }
      fetch("k", POLICY, function()
        assert.equal("theirs", (other:fetch("k", POLICY, origin("theirs"))))
        assert.equal("there", (cache:namespace("n"):fetch("k", POLICY, origin("there"))))
        return "mine"
      end)
      assert.equal("mine", (cache:get("k")))
    end)
  end)

  describe("coroutines", function()
    local clock
    before_each(function() clock = tasks.new { fake = true } end)
    after_each(function() clock:close() end)

    it("share one loading, its error too", function()
      local calls, seen = 0, {}
      local function load()
        calls = calls + 1
        fpcache.waiting.sleep(1)
        return nil, "origin: no"
      end
      for i = 1, 10 do
        clock:spawn(function() seen[i] = select(2, cache:fetch("k", { ttl = 60 }, load)) end)
      end
      clock:run()
      assert.equal(1, calls)
      for i = 1, 10 do assert.equal("origin: no", seen[i]) end
    end)

    it("get what is stale at once while one loads in the background", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600 }
      fetch("k", policy, origin("old"))
      db:age(61)
      local started = clock:now()
      local value, _, source
      clock:spawn(function()
        value, _, source = cache:fetch("k", policy, function() fpcache.waiting.sleep(5) return "new" end)
        assert.equal(started, clock:now())
      end)
      clock:run()
      assert.same({ "old", "stale" }, { value, source })
      assert.equal("new", (cache:get("k")))
    end)

    it("do not get what was loaded, or known, before a write of this process that came first", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, soft_timeout = 3, tags = "t" }
      local writes = {
        function() return cache:set("k", "written") end, function() return cache:delete("k") ~= nil end,
        function() return cache:delete_many { "k" } end, function() return cache:invalidate_tag("t") end,
        function() return cache:set_many { k = "written" } end, function() return cache:clear() end,
        function() return cache:set_many({ a = 1, b = 1, k = "written" }, { batch = 1 }) end,
        function() return cache:clear { all = true } end,
        function() return cache:transaction(function(tx) return tx:invalidate_tag("t") end) end,
        function() return cache:transaction(function(tx) return tx:delete("k") ~= nil end) end,
      }
      for i, write in ipairs(writes) do
        for _, has_old in ipairs { true, false } do
          cache:delete("k")
          if has_old then
            fetch("k", policy, origin("old"))
            db:age(61)
          end
          local late, got
          clock:spawn(function()
            late = cache:fetch("k", policy, function() fpcache.waiting.sleep(5) return "of before" end)
          end)
          clock:spawn(function()
            fpcache.waiting.sleep(1)
            assert(write())
            got = cache:fetch("k", policy, origin("new"))
          end)
          clock:run()
          local what = ("way %d, %s"):format(i, has_old and "old value" or "none")
          assert.equal(has_old and "old" or "of before", late, what)
          assert.equal((i == 1 or i == 5 or i == 7) and "written" or "new", got, what)
        end
      end
    end)

    it("load one at a time also while other keys, or other namespaces, are written or cleared", function()
      local other, big = cache:namespace("elsewhere"), {}
      for i = 1, 1100 do big["many " .. i] = i end
      local writes = {
        function() return cache:set_many { another = 1 } end, function() return other:set_many(big) end,
        function() return other:set_many(big, { batch = 500 }) end, function() return other:clear() end,
        function() return other:invalidate_tag("t") end,
        function() return cache:transaction(function(tx) return tx:set_many { another = 1 } end) end,
        function() return cache:transaction(function() return other:clear() end) end,
      }
      for i, write in ipairs(writes) do
        local loads = 0
        local function slow()
          loads = loads + 1
          fpcache.waiting.sleep(5)
          return "loaded"
        end
        cache:delete("k")
        for place = 0, 1 do
          clock:spawn(function()
            fpcache.waiting.sleep(2 * place)
            assert.equal("loaded", (cache:fetch("k", { ttl = 60, lock = "process" }, slow)))
          end)
        end
        clock:spawn(function()
          fpcache.waiting.sleep(1)
          assert(write())
        end)
        clock:run()
        assert.equal(1, loads, "way " .. i)
      end
    end)

    it("load one at a time also while transactions end that have not written the key", function()
      local loads = 0
      local function slow()
        loads = loads + 1
        assert(cache:transaction(function(tx) return tx:set("another", 1) and tx:query("SELECT 1") end))
        fpcache.waiting.sleep(1)
        return "loaded"
      end
      cache:delete("k")
      for i = 1, 3 do
        clock:spawn(function()
          fpcache.waiting.sleep(i * 0.3)
          assert.equal("loaded", (cache:fetch("k", { ttl = 60, lock = "process" }, slow)))
        end)
      end
      clock:run()
      assert.equal(1, loads)
    end)

    it("get the old value also when its life ends while it is loaded early", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, refresh_ahead = 0.5, hard_timeout = 60 }
      cache:delete("k")
      fetch("k", policy, origin("old"))
      db:age(50)
      local got = {}
      local function ask(after)
        clock:spawn(function()
          fpcache.waiting.sleep(after)
          local value, _, source = cache:fetch("k", policy, function() fpcache.waiting.sleep(30) return "new" end)
          got[#got + 1] = ("%s %s at %d"):format(value, source, clock:now() - clock.started)
        end)
      end
      clock.started = clock:now()
      ask(0)
      ask(1)
      ask(15)
      clock:run()
      assert.same({ "old db at 0", "old db at 1", "old stale at 15" }, got)
    end)

    it("load one at a time also while one does so in the background, whatever the lock is", function()
      for _, lock in ipairs { "process", "host", "cluster" } do
        local policy = fpcache.policy { ttl = 60, stale_ttl = 10, lock = lock }
        cache:delete("k")
        fetch("k", policy, origin("old"))
        db:age(61)
        local loads, values = 0, {}
        local function slow()
          loads = loads + 1
          fpcache.waiting.sleep(5)
          return "new"
        end
        for i = 1, 3 do
          clock:spawn(function()
            fpcache.waiting.sleep(i)
            if i == 3 then db:sql("UPDATE cache SET stale_until = now()") end -- nothing may be given any more
            values[i] = cache:fetch("k", policy, slow)
          end)
        end
        clock:spawn(function() fpcache.waiting.sleep(2.5) clock.time = clock.time + 8 end) -- nor of what is known here
        clock:run()
        assert.same({ "old", "old", "new" }, values, lock)
        assert.equal(1, loads, lock)
      end
      -- a background that forgets what it was given holds nobody up for longer than hard_timeout
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, hard_timeout = 4, lock_timeout = 300 }
      fetch("lost", policy, origin("old"))
      db:age(61)
      function policy.background() return true end
      assert.equal("old", (clock:call(function() return cache:fetch("lost", policy, error) end)))
      policy.background = nil
      db:age(5)
      clock.time = clock.time + 5
      local started = clock:now()
      clock:call(function() return cache:fetch("lost", policy, origin("new")) end)
      assert.equal(started, clock:now())
      assert.equal("new", (cache:get("lost")))
    end)

    it("wait for soft_timeout where there is an old value, for hard_timeout where there is none", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, soft_timeout = 1, hard_timeout = 4 }
      local function slow(seconds, value) return function() fpcache.waiting.sleep(seconds) return value end end
      fetch("k", policy, origin("old"))
      db:age(61)
      assert.equal("quick", (clock:call(function() return cache:fetch("k", policy, slow(0.5, "quick")) end)))
      db:age(61)
      assert.same({ "quick", nil, "stale" }, { clock:call(function() return cache:fetch("k", policy, slow(3, "late")) end) })
      assert.equal("late", (cache:get("k")))
      local value, err = clock:call(function() return cache:fetch("none", policy, slow(9, "later")) end)
      assert.is_nil(value)
      assert.matches("^timeout: loading took longer than hard_timeout %(4 s%)", err)
      assert.equal("later", (cache:get("none")))
    end)
  end)
end)

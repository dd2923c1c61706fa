-- fetch through a real pgbouncer: leases behind a transaction pooler, and how many times fetch asks, as a pooler counts it.
local database = require "support.database"
local fpcache = require "fpcache"
local origin = require "support.origin"
local pgbouncer = require "support.pgbouncer"
local tasks = require "support.tasks"

describe("fetch through a pooler", function()
  local db, bouncer

  setup(function() db = database.new() end)
  before_each(function() db:sql("TRUNCATE cache") end)
  after_each(function()
    db:close_all()
    bouncer:stop()
  end)

  local function start(settings)
    settings.stats_users = "app"
    bouncer = pgbouncer.start(db.srv, db.name, { "app" }, settings)
  end

  local function open(opts)
    local options = { connection_string = bouncer:url_for("app") }
    for name, value in pairs(opts or {}) do options[name] = value end
    return db:open(options)
  end

  describe("in transaction mode", function()
    local POLICY = fpcache.policy { ttl = 60, stale_ttl = 600, hard_timeout = 60, lock_timeout = 90, tags = "t" }
    local one, two

    -- Each statement goes to another session of the server than the one before.
    before_each(function()
      start { pool_mode = "transaction", default_pool_size = 3, server_round_robin = 1 }
      one, two = open { prepared = false }, open { prepared = false }
      local sessions, count = {}, 0
      for _ = 1, 6 do
        sessions[one:transaction(function(tx)
          return two:transaction(function() return tx:query("SELECT pg_backend_pid() AS pid")[1].pid end)
        end)] = true
      end
      for _ in pairs(sessions) do count = count + 1 end
      assert(count > 1, "the pooler keeps to one session")
    end)

    it("one loads, and who asks meanwhile waits for his value or gets the old one", function()
      local clock = tasks.new { fake = true }
      finally(function() clock:close() end)
      local got, loads = {}, 0
      local function slow(value)
        return function()
          loads = loads + 1
          fpcache.waiting.sleep(3)
          return value
        end
      end
      local function ask(value)
        for i, cache in ipairs { one, two } do
          clock:spawn(function()
            fpcache.waiting.sleep(i)
            local loaded, _, source = cache:fetch("k", POLICY, slow(value))
            got[i] = tostring(loaded) .. " " .. source
          end)
        end
        clock:run()
      end
      ask("first")
      assert.same({ "first loader", "first db" }, got)
      db:age(61)
      ask("second")
      assert.same({ "first stale", "first stale" }, got)
      assert.equal("second", (two:get("k")))
      assert.equal(2, loads)
    end)

    it("what was overtaken is not stored: by a delete, a write, a tag, another lease", function()
      for what, overtake in pairs {
        ["nil"] = function() assert(two:delete("k") ~= nil) end,
        set = function() assert(two:set("k", "set")) end,
        invalidated = function() assert(two:invalidate_tag("t")) end,
        theirs = function()
          db:age(61)
          assert.equal("theirs", (two:fetch("k", POLICY, origin("theirs"))))
        end,
      } do
        assert.equal("late", (one:fetch("k", POLICY, function() overtake() return "late" end)))
        assert.equal(what ~= "invalidated" and what or "nil", tostring((two:get("k"))))
        two:delete("k")
      end
      assert.equal(4, one:stats().policies.overtaken)
    end)

    it("locks, limiters, counters and sweepers do as well as without", function()
      local busy
      assert.equal("mine", (one:lock("job", 60, function()
        busy = { two:lock("job", 60, error) }
        return "mine"
      end)))
      assert.same({ nil, 'busy: another has the lock "job"' }, busy)
      assert.equal("free", (two:lock("job", 60, function() return "free" end)))
      local passed = {}
      for i = 1, 6 do
        passed[i] = (i % 2 == 0 and one or two):rate_limiter({ limit = 4, window = "1h" }):allow("ann")
      end
      assert.same({ true, true, true, true, false, false }, passed)
      assert.equal(1, one:counter("n"):add())
      assert.equal(3, two:counter("n"):add(2))
      local opts = { connection_string = bouncer:url_for("app"), prepared = false, every = 0.001, duty = 0.5 }
      local a, b, met = assert(fpcache.sweeper(opts)), assert(fpcache.sweeper(opts)), {}
      finally(function()
        a:close()
        b:close()
      end)
      function a.sleep() met[#met + 1] = b:pass() end
      b.sleep = a.sleep
      assert(one:set("old", 1, { expires_at = 1 }))
      assert.equal(1, assert(a:pass()).expired)
      assert.same({ false, false }, met)
    end)

    it("of many keys each is loaded by who has its lease; a failure frees them", function()
      local theirs
      local values = one:fetch_many({ "a", "b" }, { ttl = 60 }, function()
        theirs = two:fetch_many({ "b", "c" }, { ttl = 60, lock = "process" }, function()
          return { b = "theirs", c = "theirs" }
        end)
        return { a = "mine", b = "mine" }
      end)
      assert.same({ b = "theirs", c = "theirs" }, theirs)
      assert.same({ a = "mine", b = "mine" }, values)
      assert.same({ a = "mine", b = "mine", c = "theirs" }, two:get_many { "a", "b", "c" })
      assert.is_nil((one:fetch_many({ "d", "e" }, { ttl = 60 }, function() return nil, "down" end)))
      assert.same({ d = 4, e = 5 }, (two:fetch_many({ "d", "e" }, { ttl = 60 }, function() return { d = 4, e = 5 } end)))
      assert.same({ d = 4, e = 5 }, one:get_many { "d", "e" })
    end)
  end)

  describe("asks", function()
    -- How often the server said that it is ready for the next query: that is a round trip.
    local is_counting
    local function trips()
      if not is_counting then return 0 end
      local url = bouncer:url_for("app"):gsub("///[^?]*", "///pgbouncer", 1)
      for line in db.srv:sql("SHOW STATS_TOTALS", url):gmatch("[^\n]+") do
        local count = line:match("^" .. db.name .. "|%d+|(%d+)|")
        if count then return tonumber(count) end
      end
      return 0
    end

    for _, prepared in ipairs { true, false } do
      it(("once, prepared = %s: a hit, a miss with the lease, a miss while somebody loads"):format(tostring(prepared)), function()
        start { pool_mode = prepared and "session" or "transaction" }
        local cache, other = open { prepared = prepared }, open { prepared = prepared }
        local policies = {
          plain = { ttl = 60 }, stale = { ttl = 60, stale_ttl = 600 }, tagged = { ttl = 60, tags = { "a", "b" } },
          early = { ttl = 60, stale_ttl = 600, refresh_ahead = 0.5, beta = 1 }, other = { ttl = 60, hard_timeout = 7 },
        }
        if not prepared then policies.stale, policies.tagged, policies.other = nil, nil, nil end
        local function check(name)
          local policy, key = policies[name], name
          local before = trips()
          local inside, given
          assert.equal(1, (cache:fetch(key, policy, function() inside = trips() return 1 end)))
          local counts = { inside - before, trips() - inside }
          before = trips()
          assert.same({ 1, nil, "db" }, { cache:fetch(key, policy, error) })
          counts[3] = trips() - before
          -- Somebody loads: he who may not wait loads himself.
          local alone = { ttl = 60, lock = "process" }
          for field, value in pairs(policy) do alone[field] = value end
          other:fetch("x" .. key, policy, function()
            before = trips()
            cache:fetch("x" .. key, alone, function() counts[4] = trips() - before return 2 end)
            counts[5] = trips() - before
            return 1
          end)
          if policy.stale_ttl then -- an older value
            db:age(61)
            other:fetch(key, policy, function()
                before = trips()
              given = { cache:fetch(key, policy, error) }
              counts[6] = trips() - before
              return 1
            end)
            assert.same({ 1, nil, "stale" }, given)
          end
          return counts
        end
        for name, policy in pairs(policies) do
          is_counting = false -- the first time prepares the statements
          check(name)
          assert(cache:clear())
          is_counting = true
          -- asking, storing, a hit, asking, and no storing; at last what is stale
          assert.same({ 1, 1, 1, 1, 1, policy.stale_ttl and 1 or nil }, check(name), name)
          assert(cache:clear())
        end
      end)

      it(("once for many keys, prepared = %s, whatever each of them is"):format(tostring(prepared)), function()
        start { pool_mode = prepared and "session" or "transaction" }
        local cache, other = open { prepared = prepared }, open { prepared = prepared }
        local policy = { ttl = 60, stale_ttl = 600 }
        for round = 1, 2 do
          is_counting = round == 2
          cache:fetch("old", policy, origin("old"))
          db:age(61)
          assert(cache:set_many { hit = 1, hit2 = 2 })
          local before, inside, after, values, sources, _
          other:fetch("old", policy, function()
            before = trips()
            values = cache:fetch_many({ "hit", "missing", "old", "hit2" }, policy, function()
              inside = trips()
              return { missing = "loaded" }
            end)
            after = trips()
            return 0
          end)
          assert.same({ hit = 1, hit2 = 2, missing = "loaded", old = "old" }, values)
          local counts = { inside - before, after - inside }
          before = trips()
          values, _, sources = cache:fetch_many({ "hit", "missing" }, policy, error)
          assert.same({ hit = 1, missing = "loaded" }, values)
          assert.same({ hit = "db", missing = "db" }, sources)
          counts[3] = trips() - before
          assert.same(is_counting and { 1, 1, 1 } or { 0, 0, 0 }, counts)
          assert(cache:clear())
        end
      end)
    end
  end)
end)

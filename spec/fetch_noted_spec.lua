-- What fetch notes beside a value, and what comes of it: validators, the cost of loading, uses, free leases.
local admin = require "fpcache.admin"
local chance = require "fpcache.policy.chance"
local database = require "support.database"
local fpcache = require "fpcache"
local origin = require "support.origin"
local tasks = require "support.tasks"
local touches = require "fpcache.touches"

describe("fetch notes", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  -- A loader that says what it was given, and does as `answer` does.  It looks at nothing itself: what it raised would be an
  -- error of loading.
  local function witness(answer)
    local seen = {}
    return function(context)
      seen.old, seen.validator, seen.calls = context.old, context.validator, (seen.calls or 0) + 1
      return answer(context)
    end, seen
  end

  describe("the validator", function()
    local policy = fpcache.policy { ttl = 60, stale_ttl = 600 }

    it("that a loader sets, for the next one, until another is set", function()
      local binary = "\0\255 \n-'"
      for i, text in ipairs { 'W/"1"', binary, "-", "" } do
        assert.same({ i, nil, "loader" }, { cache:fetch("k", policy, function(context) context.validator = text return i end) })
        db:age(100)
        local load, seen = witness(function(context) return context:not_modified() end)
        assert.same({ i, nil, "loader" }, { cache:fetch("k", policy, load) })
        assert.same({ old = i, validator = text, calls = 1 }, seen)
        assert.is_true(cache:ttl("k") > 55, "lives anew")
        db:age(100)
        load, seen = witness(function(context) context.validator = nil return "new" end)
        assert.same({ "new", nil, "loader" }, { cache:fetch("k", policy, load) })
        assert.same({ old = i, validator = text, calls = 1 }, seen, "not modified keeps it")
        db:age(100)
        load, seen = witness(function() return nil, "down" end)
        assert.same({ "new", nil, "stale", "down" }, { cache:fetch("k", policy, load) })
        assert.same({ old = "new", calls = 1 }, seen, "taken away")
        cache:delete("k")
      end
    end)

    it("of a value that lives, when it is loaded early", function()
      local early = fpcache.policy { ttl = 100, refresh_ahead = 0.5 }
      cache:fetch("k", early, function(context) context.validator = "v" return 1 end)
      db:age(60)
      local load, seen = witness(function(context) return context:not_modified() end)
      assert.same({ 1, nil, "loader" }, { cache:fetch("k", early, load) })
      assert.same({ old = 1, validator = "v", calls = 1 }, seen)
      assert.is_true(cache:ttl("k") > 95)
      assert(cache:set("k", "set", { ttl = 100 }))
      db:age(60)
      load, seen = witness(function() return 2 end)
      assert.same({ 2, nil, "loader" }, { cache:fetch("k", early, load) })
      assert.same({ old = "set", calls = 1 }, seen, "it was of another value")
    end)

    it("not of what somebody else has written since, nor of what may not be given any more", function()
      local function noted() return cache:fetch("k", policy, function(context) context.validator = "v" return 1 end) end
      noted()
      assert(cache:set("k", "set", { ttl = 0.001 }))
      db:age(1)
      local load, seen = witness(function() return 2 end)
      assert.same({ 2, nil, "loader" }, { cache:fetch("k", policy, load) })
      assert.same({ calls = 1 }, seen)
      assert(cache:delete("k"))
      noted()
      db:age(661)
      load, seen = witness(function() return 3 end)
      assert.same({ 3, nil, "loader" }, { cache:fetch("k", policy, load) })
      assert.same({ calls = 1 }, seen)
    end)
  end)

  describe("how long loading took", function()
    local clock
    before_each(function() clock = tasks.new { fake = true } end)
    after_each(function() clock:close() end)

    -- Loads for so long by the clock of the spec.
    local function slow(seconds, value)
      return function()
        fpcache.waiting.sleep(seconds)
        return value
      end
    end

    local function cost(key)
      return tonumber(db:sql(("SELECT load_seconds FROM cache WHERE key = '%s'"):format(key)))
    end

    it("with the value", function()
      clock:call(function() return cache:fetch("k", 60, slow(7, 1)) end)
      clock:call(function() return cache:fetch_many({ "l" }, 60, slow(3, { l = 1 })) end)
      assert.equal(7, cost "k")
      assert.equal(3, cost "l")
      assert.same({ 1, nil, "db" }, { clock:call(function() return cache:fetch("k", 60, error) end) })
    end)

    it("with what is not modified, anew", function()
      local policy = fpcache.policy { ttl = 60, stale_ttl = 600, hard_timeout = 30 }
      clock:call(function() return cache:fetch("k", policy, slow(7, 1)) end)
      db:age(61)
      clock:call(function()
        return cache:fetch("k", policy, function(context)
          fpcache.waiting.sleep(0.5)
          return context:not_modified()
        end)
      end)
      assert.equal(0.5, cost "k")
    end)

    it("and loads so much earlier by beta", function()
      finally(function() chance.draw = chance.drawn end)
      chance.drawn = chance.draw
      local policy = fpcache.policy { ttl = 1000, beta = 2 }
      for _, many in ipairs { false, true } do
        -- What is left when it was loaded in 40 s: 160 s, which is 4 times its cost, or 2 times that by the beta.
        local function ask(value, seconds) -- early loading goes on behind the caller; what is there when it is over
          clock:call(function()
            if many then return cache:fetch_many({ "k" }, policy, slow(seconds, { k = value })) end
            return cache:fetch("k", policy, slow(seconds, value))
          end)
          return cache:get("k")
        end
        chance.draw = function() return 1 end
        assert.equal("first", ask("first", 40))
        db:age(840)
        chance.draw = function() return math.exp(-1.9) end
        assert.equal("first", ask("too early", 40))
        chance.draw = function() return math.exp(-2.1) end
        assert.equal("second", ask("second", 1))
        db:age(840) -- what was quick is not loaded so early
        assert.equal("second", ask("too early", 1))
        assert(cache:delete("k"))
      end
    end)
  end)

  it("the tags that the value will have, also where a row of before is of no use: invalidating one ends the lease", function()
    local policy = fpcache.policy { ttl = 60, tags = { "new" } }
    for what, before in pairs {
      expired = function() assert(cache:set("k", "old", { expires_at = 1, tags = "old" })) end,
      absent = function() cache:fetch("k", { ttl = 60, negative_ttl = 1 }, origin(nil)) db:age(2) end,
      failed = function() cache:fetch("k", 60, origin(nil, "down")) end,
    } do
      before()
      assert.equal("late", (cache:fetch("k", policy, function() cache:invalidate_tag("new") return "late" end)))
      assert.is_nil((cache:get("k")), what)
      before()
      cache:fetch_many({ "k" }, policy, function() cache:invalidate_tag("new") return { k = "late" } end)
      assert.is_nil((cache:get("k")), what)
      assert.equal(2, (cache:fetch("k", policy, origin(2))))
      assert.same({ "new" }, cache:tags("k"))
      assert(cache:clear())
    end
  end)

  it("no lease when loading is over: after store = false, an error, nothing", function()
    for what, load in pairs {
      unstored = function(context) context.store = false return 1 end,
      failed = function() return nil, "down" end,
      raised = function() error("broken") end,
      nothing = function() return nil end,
      misused = function(context) context.ttl = "soon" return 1 end,
    } do
      cache:fetch("k", 60, load)
      cache:fetch_many({ "l", "m" }, 60, function(_, context) return load(context) and {} end)
      assert.equal("0", db:sql("SELECT count(*) FROM cache WHERE lease_until > now()"), what)
      assert.same({ 2, nil, "loader" }, { cache:fetch("k", 60, origin(2)) })
      assert.equal(2, (cache:get("k")), what .. ": the next one's is stored")
      assert.same({ l = 3, m = 3 }, (cache:fetch_many({ "l", "m" }, 60, origin { l = 3, m = 3 })))
      assert.same({ l = 3, m = 3 }, cache:get_many { "l", "m" }, what)
      assert(cache:clear())
    end
    assert.equal(0, cache:stats().policies.waits)
  end)

  it("the hits of fetch as those of get, a sample, where there is a quota", function()
    assert(admin.quota { connection_string = db.url, max_entries = 1000 })
    finally(function() db:sql("DELETE FROM fpcache_quotas") end)
    for _, key in ipairs { "plain", "sliding", "early", "loaded" } do assert(cache:set(key, 1, { ttl = 3600 })) end
    local reader = db:open() -- opened while there is a quota
    for key, policy in pairs { plain = 60, sliding = { ttl = 60, sliding = true }, early = { ttl = 60, refresh_ahead = 0.9 } } do
      for _ = 1, touches.EVERY do assert.same({ 1, nil, "db" }, { reader:fetch(key, policy, error) }) end
    end
    for _ = 1, touches.EVERY do reader:fetch("gone " .. _, { ttl = 60, lock = "process" }, origin(nil)) end -- misses are no uses
    reader.touches:send()
    assert.equal("early plain sliding", db:sql([[SELECT string_agg(convert_from(key, 'UTF8'), ' ' ORDER BY key) FROM cache
      WHERE touched IS NOT NULL]]))
  end)
end)

-- layer_stats_spec.lua -- each number and each state that cache:stats() tells of the near cache, the filter and the feed, by what
-- makes it change.
local core = require "fpcache.core"
local database = require "support.database"
local layers = require "support.layers"

local eventually, system = database.eventually, core.system
local SIGCONT, SIGSTOP = 18, 19

describe("stats of", function()
  local db
  setup(function() db = database.new() end)
  before_each(function() db:sql("TRUNCATE cache; GRANT SELECT ON cache TO public") end)
  after_each(function() db:close_all() end)

  -- Never stale, unless that is what it is about.
  local function open(opts)
    local options = { max_staleness = 60 }
    for name, value in pairs(opts or {}) do options[name] = value end
    return layers.open(db, options)
  end

  local function of(cache) return cache:stats { server = false } end

  --- Runs it, and says by how much these numbers of a layer changed.
  local function moved(cache, layer, names, run)
    local before = of(cache)[layer]
    run()
    local after, by = of(cache)[layer], {}
    for i, name in ipairs(names) do by[i] = after[name] - before[name] end
    return by
  end

  local function another(text) db.srv:sql(text, db:url_of()) end

  describe("the near cache:", function()
    local PLACES = { "hits", "misses", "entries", "negative_hits", "negative_entries", "evictions", "invalidated", "expired" }

    local function step(cache, run) return moved(cache, "near", PLACES, run) end

    it("hits, misses, entries and evictions of values and of absences", function()
      local cache = open { near_size = 2, near_negative_size = 1, use_cuckoo_filter = false }
      assert(cache:set_many { a = 1, b = 2, c = 3 })
      assert(cache:wait_ready(20))
      assert.same({ 0, 1, 1, 0, 0, 0, 0, 0 }, step(cache, function() cache:get("a") end))
      assert.same({ 3, 0, 0, 0, 0, 0, 0, 0 }, step(cache, function() for _ = 1, 3 do cache:get("a") end end))
      assert.same({ 0, 2, 1, 0, 0, 1, 0, 0 }, step(cache, function() cache:get("b"); cache:get("c") end))
      assert.same({ 0, 1, 0, 0, 1, 0, 0, 0 }, step(cache, function() cache:get("no") end))
      assert.same({ 0, 0, 0, 2, 0, 0, 0, 0 }, step(cache, function() cache:get("no"); cache:get("no") end))
      assert.same({ 0, 1, 0, 0, 0, 1, 0, 0 }, step(cache, function() cache:get("none") end))
    end)

    it("bytes, which near_bytes bounds as near_size does entries", function()
      local cache = open { near_bytes = 8000, near_size = 1000 }
      local value, rows = ("v"):rep(1000), {}
      for i = 1, 20 do rows["k" .. i] = value end
      assert(cache:set_many(rows))
      assert(cache:wait_ready(20))
      assert.same({ 1000 + 2 + require("fpcache.near").OVERHEAD },
        moved(cache, "near", { "bytes" }, function() cache:get("k1") end))
      for i = 2, 20 do cache:get("k" .. i) end
      local stats = of(cache).near
      assert.is_true(stats.bytes > 6000 and stats.bytes <= 8000)
      assert.equal(20, stats.entries + stats.evictions)
      assert.is_true(stats.evictions >= 13)
    end)

    it("what was found changed, and what was found too old", function()
      local cache = open()
      assert(cache:set("k", 1))
      layers.warm(cache, "k")
      assert.same({ 0, 1, 0, 0, 0, 0, 1, 0 }, step(cache, function()
        another("UPDATE cache SET value = '2'")
        assert(cache:wait_ready(20))
        cache:get("k")
      end))
      cache = open { near_ttl = 0.01 }
      assert(eventually(function()
        cache:get("k")
        return of(cache).near.expired > 0
      end))
      assert.equal(0, of(cache).near.invalidated)
    end)
  end)

  describe("the filter:", function()
    it("what it answered, and what it let pass in vain", function()
      local cache = open { near_size = 0 }
      assert(cache:set("gone", 1))
      assert(cache:delete("gone"))
      local names = { "absent", "false_positives", "false_positives_since_load" }
      assert.same({ 1, 0, 0 }, moved(cache, "filter", names, function() cache:get("no") end))
      assert.same({ 0, 1, 1 }, moved(cache, "filter", names, function() cache:get("gone") end))
    end)

    it("keys, capacity, memory, its share of false answers, loads", function()
      local cache = open { cuckoo_capacity = 1000 }
      local before = of(cache).filter
      assert.same({ 0, 0, 0 }, { before.keys, before.reloads, before.fpr })
      assert.is_true(before.load_seconds > 0)
      assert.same({ 3 }, moved(cache, "filter", { "keys" }, function() assert(cache:set_many { a = 1, b = 2, c = 3 }) end))
      assert.same({ 1 }, moved(cache, "filter", { "keys" }, function()
        another("SELECT cache_set('app', 'a', '2'), cache_set('app', 'd', '2')") -- one of them it has
        assert(cache:wait_ready(20))
      end))
      assert.is_true(of(cache).filter.fpr > 0)
      local rows = {}
      for i = 1, 5000 do rows["k" .. i] = i end
      assert(cache:set_many(rows))
      assert(eventually(function() return of(cache).filter.reloads > 0 end))
      local after = of(cache).filter
      assert.is_true(after.capacity >= 5000 and after.capacity > before.capacity)
      assert.is_true(after.bytes > before.bytes)
      assert.is_true(after.keys > 4900 and after.keys <= 5004) -- two keys that look the same count once
    end)

    it("loads that failed", function()
      db:sql("REVOKE SELECT ON cache FROM public")
      local cache = db:open { feed = true, max_staleness = 60 }
      assert(eventually(function() return of(cache).filter.load_failures > 0 end))
      assert.matches("^filter: denied: ", of(cache).feed.last_error)
      assert.same({ "fresh", "loading", "fresh" }, { of(cache).near.state, of(cache).filter.state, of(cache).feed.state })
      db:sql("GRANT SELECT ON cache TO public")
      assert(cache:wait_ready(20))
      assert.same({ "fresh", "" }, { of(cache).filter.state, of(cache).feed.last_error })
    end)
  end)

  describe("the feed:", function()
    it("polls, changes and position", function()
      local cache = open()
      local position = of(cache).feed.position
      local by = moved(cache, "feed", { "changes", "polls", "poll_failures", "fell_behind", "incarnation_changes" }, function()
        another("SELECT cache_set('app', 'a', '1'), cache_set('app', 'b', '1'), cache_set('app', 'c', '1')")
        assert(cache:wait_ready(20))
      end)
      assert.equal(3, by[1])
      assert.is_true(by[2] >= 1)
      assert.same({ 0, 0, 0 }, { by[3], by[4], by[5] })
      local oldest, next_one = of(cache).feed.position:match("^(%d+):(%d+)$")
      assert.is_true(tonumber(oldest) > tonumber((position:match("^%d+"))))
      assert.is_true(tonumber(next_one) >= tonumber(oldest))
    end)

    it("lag, and that it is stale", function()
      local cache = open { max_staleness = 0.3 }
      assert(cache:set("k", 1))
      assert(eventually(function() return of(cache).feed.state == "fresh" end))
      local pid = tonumber(db:sql([[SELECT pid FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'fpcache feed']]))
      assert(system.kill(pid, SIGSTOP))
      finally(function() system.kill(pid, SIGCONT) end)
      assert(eventually(function() return of(cache).feed.lag > 0.6 end))
      local stats = of(cache)
      assert.same({ "stale", "stale", "stale" }, { stats.near.state, stats.filter.state, stats.feed.state })
      local lag = stats.feed.lag
      assert.is_true(of(cache).feed.lag > lag)
      system.kill(pid, SIGCONT)
      assert(eventually(function() return of(cache).feed.lag < lag end))
      assert(eventually(function() return of(cache).feed.state == "fresh" end))
    end)

    it("that it is loading, until the first poll", function()
      local cache
      local admin = assert(require("fpcache").new { connection_string = db.url, feed = false })
      finally(function() admin:close() end)
      assert(admin:transaction(function(tx)
        assert(tx:query("LOCK TABLE fpcache_feed IN ACCESS EXCLUSIVE MODE"))
        cache = db:open { feed = true, max_staleness = 60 }
        local stats = of(cache)
        assert.same({ "loading", "loading", "loading" }, { stats.near.state, stats.filter.state, stats.feed.state })
        assert.equal(math.huge, stats.feed.lag)
        return true
      end))
      assert(cache:wait_ready(20))
      assert.equal("fresh", of(cache).feed.state)
    end)

    it("failures, and that everything began anew", function()
      local cache = open { max_staleness = 0.5 }
      local incarnation = of(cache).feed.incarnation
      assert.same({ 1, 0 }, moved(cache, "feed", { "incarnation_changes", "fell_behind" }, function()
        db:sql("TRUNCATE cache")
        assert(cache:wait_ready(20))
      end))
      assert.not_equal(incarnation, of(cache).feed.incarnation)
      local by = moved(cache, "feed", { "fell_behind", "poll_failures" }, function()
        db.srv:stop()
        finally(function() db.srv:start() end)
        assert(eventually(function() return of(cache).feed.poll_failures >= 2 end))
        assert.matches("^connect: ", of(cache).feed.last_error)
        db.srv:start()
        assert(cache:wait_ready(20))
      end)
      assert.equal(1, by[1]) -- whoever started may lack what was told
      assert.is_true(by[2] >= 2)
      assert.equal("", of(cache).feed.last_error)
    end)
  end)

  it("what is off", function()
    local function states(opts)
      local cache = db:open(opts)
      local stats = of(cache)
      cache:close()
      return { stats.near.state == "off", stats.filter.state == "off", stats.feed.state == "off" }
    end
    assert.same({ true, true, true }, states { feed = false })
    assert.same({ true, false, false }, states { feed = true, near_size = 0 })
    assert.same({ false, true, false }, states { feed = true, use_cuckoo_filter = false })
    assert.same({ true, true, true }, states { feed = true, near_size = 0, use_cuckoo_filter = false })
  end)
end)

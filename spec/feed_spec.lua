-- feed_spec.lua -- the change feed against a real server: what others change is told, in every race.
local core = require "fpcache.core"
local fast_feed = require "fpcache.fast_feed"
local feeds = require "support.feeds"
local statements = require "fpcache.statements"

local eventually, system = feeds.eventually, core.system
local SIGKILL, SIGCONT, SIGSTOP = 9, 18, 19

describe("A change feed", function()
  local f = feeds.new()
  local open, open_fresh, absent, stamp_of = f.open, f.open_fresh, f.absent, f.stamp_of
  local backend, sql, other_transaction = f.backend, f.sql, f.other_transaction

  setup(f.setup)
  before_each(f.begin)
  after_each(f.finish)

  it("tells what others set, overwrite and delete", function()
    local feed = open_fresh()
    assert.is_true(absent(feed, "a"))
    sql "SELECT cache_set('fpcache', 'a', '1', NULL)"
    assert(feed:wait_fresh(20))
    assert.is_false(absent(feed, "a"))
    for _, change in ipairs {
      "SELECT cache_set('fpcache', 'a', '2', NULL)", "UPDATE cache SET key = 'b' WHERE key = 'a'",
      "UPDATE cache SET key = 'a'", "DELETE FROM cache",
    } do
      local stamp = stamp_of(feed, "a")
      sql(change)
      assert(feed:wait_fresh(20))
      assert.not_equal(stamp, stamp_of(feed, "a"))
    end
    assert.is_false(absent(feed, "b"))
    assert.is_true(absent(feed, "c"))
  end)

  it("moves only the stamps of what changed", function()
    local feed = open_fresh()
    local a, b = stamp_of(feed, "a"), stamp_of(feed, "b")
    sql "SELECT cache_set('fpcache', 'a', '1', NULL)"
    assert(feed:wait_fresh(20))
    assert.equal(b, stamp_of(feed, "b"))
    assert.not_equal(a, stamp_of(feed, "a"))
    local _, spot = feed:look(f.seed, "b")
    assert.is_true(feed:is_current(spot, b))
    assert.is_false(feed:is_current(spot, b + 1))
    assert(f.cache:clear())
    assert(feed:wait_fresh(20))
    assert.not_equal(b, stamp_of(feed, "b"))
  end)

  it("says quicker of copies with terms that they are current", function()
    local feed = open_fresh { max_staleness = 60 } -- a slow machine is not what this is about
    local terms, is_current = fast_feed.terms(fast_feed.of(feed))
    local ends = system.now() + 1000
    local function put(slot, key, offset)
      local _, spot, stamp = feed:look(f.seed, key)
      assert.is_true(terms:put(slot, spot, stamp + (offset or 0), ends))
      return spot, stamp
    end
    local function current(...)
      local found = {}
      for i = 1, select("#", ...) do found[i] = is_current((select(i, ...))) end
      return found
    end
    local spot, stamp = put(1, "a")
    local other = put(2, "b")
    put(3, "a", 1)
    local as_put = { terms:get(1) }
    assert.same({ spot, stamp }, { as_put[1], as_put[2] })
    assert.is_true(math.abs(as_put[3] - ends) < 1e-6)
    assert.same({}, { terms:get(1e6) })
    assert.same({ true, true, false, false, false, false }, current(1, 2, 3, 0, 1e6, -1))
    assert.equal(2, terms:held())
    feed:wrote(f.seed, "b")
    assert.same({ true, other == spot }, current(1, 2))
    assert.is_true(terms:put(1, spot, stamp, system.now() - 1))
    assert.is_false(is_current(1))
    assert.is_true(terms:put(1, spot, stamp, math.huge))
    assert.is_true(is_current(1))
    assert.equal(math.huge, (select(3, terms:get(1))))
    for _, change in ipairs { "SELECT cache_set('fpcache', 'a', '1', NULL)", "TRUNCATE cache" } do
      put(1, "a")
      assert.is_true(is_current(1))
      sql(change)
      assert(feed:wait_fresh(20))
      assert.is_false(is_current(1))
    end
    put(1, "a")
    feed:close()
    assert.is_false(is_current(1))
    terms:close()
    assert.is_false(is_current(1))
    assert.has_error(function() terms:put(-1, 0, 1, 1) end)
    assert.has_error(function() core.terms(terms) end)
  end)

  it("holds keys of other namespaces and users apart", function()
    local feed = open_fresh()
    assert(f.cache:namespace("other"):set("x", 1))
    f.srv:create_user("somebody", nil, f.name)
    f.srv:sql("SELECT cache_set('somebody', 'y', '1', NULL)", f.srv:url_for("somebody", nil, f.name))
    assert(feed:wait_fresh(20))
    assert.is_true(absent(feed, "x"))
    assert.is_true(absent(feed, "y"))
    assert.is_false((feed:look(core.feed_seed("other"), "x")))
  end)

  it("knows what this process wrote at once, keys of any length and in bulk", function()
    local feed = open_fresh()
    local long = ("k"):rep(3000)
    feed:wrote(f.seed, "one")
    feed:wrote_keys(f.seed, { "two", "three" })
    local batch = core.batch()
    f.keep(batch)
    for i = 1, 1000 do assert(batch:add("row" .. i, "v", nil, nil, 1000)) end
    assert(batch:add(long, "v", nil, nil, 1000))
    feed:wrote_batch(f.seed, batch)
    for _, key in ipairs { "one", "two", "three", "row1", "row256", "row257", "row1000", core.shorten_key(long) } do
      assert.is_false(absent(feed, key), key)
    end
    assert.is_true(absent(feed, "four"))
    local stamp = stamp_of(feed, "four")
    feed:wrote_all()
    assert.is_false(absent(feed, "four")) -- until it is loaded again
    assert.not_equal(stamp, stamp_of(feed, "four"))
    assert(feed:wait_fresh(20))
    assert.is_true(absent(feed, "four"))
  end)

  it("finds what commits late, after other changes were told", function()
    local feed = open_fresh()
    local commit = other_transaction "SELECT cache_set('fpcache', 'late', '1', NULL)"
    local stamp = stamp_of(feed, "late")
    for i = 1, 5 do
      sql(("SELECT cache_set('fpcache', 'k%d', '1', NULL)"):format(i))
      assert(feed:wait_fresh(20))
      assert.is_false(absent(feed, "k" .. i))
      assert.is_true(absent(feed, "late"))
    end
    commit "COMMIT"
    assert(feed:wait_fresh(20))
    assert.is_false(absent(feed, "late"))
    assert.not_equal(stamp, stamp_of(feed, "late"))
  end)

  it("tells nothing of what is rolled back", function()
    local feed = open_fresh()
    local rollback = other_transaction "SELECT cache_set('fpcache', 'never', '1', NULL)"
    assert(feed:wait_fresh(20))
    rollback "ROLLBACK"
    assert(feed:wait_fresh(20))
    assert.is_true(absent(feed, "never"))
  end)

  describe("while the filter is loaded", function()
    local feed, loader

    -- A load that stands still between its snapshot and its last fetch.
    before_each(function()
      sql [[SET fpcache.tells = 'on';
        INSERT INTO cache (key, value) SELECT convert_to('row' || i, 'UTF8'), 'v' FROM generate_series(1, 100000) i]]
      local caught
      for _ = 1, 20 do
        feed = open()
        local conn = assert(f.cache.pool:acquire(5))
        eventually("the load", function()
          local rows = assert(conn:query(([[
            SELECT pid FROM pg_stat_activity WHERE datname = '%s' AND application_name = 'fpcache filter'
              AND query LIKE 'FETCH%%']]):format(f.name), 5))
          loader = rows[1] and rows[1].pid
          return loader or feed:stats().filter == "fresh"
        end)
        conn:close()
        caught = loader and system.kill(loader, SIGSTOP) and feed:stats().filter == "loading"
        if caught then break end
        if loader then system.kill(loader, SIGCONT) end
        feed:close()
      end
      assert(caught, "no load could be caught")
    end)

    after_each(function() system.kill(loader, SIGCONT) end)

    local function changes(count)
      eventually("the feed's polls beside the load", function() return feed:stats().changes >= count end)
      assert.equal("loading", feed:stats().filter)
      assert.equal("fresh", feed:stats().feed)
    end

    it("writes are not lost, and deletes move their stamps", function()
      local stamp = stamp_of(feed, "row99999")
      assert.is_false(absent(feed, "nothing")) -- not loaded yet
      sql "SELECT cache_set('fpcache', 'new', '1', NULL); DELETE FROM cache WHERE key = 'row99999'"
      feed:wrote(f.seed, "mine")
      changes(2)
      assert.not_equal(stamp, stamp_of(feed, "row99999"))
      system.kill(loader, SIGCONT)
      assert(feed:wait_fresh(20))
      for _, key in ipairs { "new", "mine", "row1", "row50000", "row100000" } do
        assert.is_false(absent(feed, key), key)
      end
      assert.is_true(absent(feed, "nothing"))
      assert.equal(0, feed:stats().reloads)
    end)

    it("a wipe is noticed", function()
      local stamp = stamp_of(feed, "row1")
      system.kill(loader, SIGKILL) -- a killed backend makes the server empty what is not logged
      eventually("another incarnation", function() return feed:stats().incarnation_changes == 1 end)
      assert(feed:wait_fresh(20))
      assert.is_true(absent(feed, "row1"))
      assert.not_equal(stamp, stamp_of(feed, "row1"))
      assert(f.cache:set("row2", 1))
      assert(feed:wait_fresh(20))
      assert.is_false(absent(feed, "row2"))
    end)

    it("everything written by ourselves makes it begin anew", function()
      feed:wrote_all()
      system.kill(loader, SIGCONT)
      assert(feed:wait_fresh(20))
      assert.equal(1, feed:stats().load_failures)
      assert.is_false(absent(feed, "row100000"))
    end)
  end)

  describe("whose slots are rotated", function()
    it("loses nothing by a rotation that comes while a poll waits", function()
      local feed = open_fresh()
      assert.equal(0, feed:stats().fell_behind)
      local stamp = stamp_of(feed, "told")
      -- What fpcache_rotate_feed() does, at a moment when a change was not yet told.
      local finish = other_transaction [[
        LOCK TABLE fpcache_feed_0, fpcache_feed_1, fpcache_feed_2 IN ACCESS EXCLUSIVE MODE;
        INSERT INTO cache (key, value) VALUES ('told', 'v');
        TRUNCATE fpcache_feed_0, fpcache_feed_1, fpcache_feed_2;
        UPDATE fpcache_state SET marker = txid_current()]]
      eventually("a poll that waits", function() return backend("fpcache feed", "wait_event_type = 'Lock'") end)
      finish "COMMIT"
      assert(feed:wait_fresh(20))
      assert.equal(1, feed:stats().fell_behind)
      assert.is_false(absent(feed, "told"))
      assert.not_equal(stamp, stamp_of(feed, "told"))
      assert.equal("fresh", feed:stats().filter)
      sql "SELECT cache_set('fpcache', 'after', '1', NULL)"
      assert(feed:wait_fresh(20))
      assert.is_false(absent(feed, "after"))
      assert.equal(1, feed:stats().fell_behind) -- once
    end)

    it("rotates them, and tells every change meanwhile", function()
      local feed = open_fresh()
      sql "UPDATE fpcache_state SET slot = -1; DELETE FROM fpcache_frozen"
      local i = 0
      eventually("a rotation", function()
        i = i + 1
        assert(f.cache:set("k" .. i, 1))
        -- Forged: every slot was frozen before anything was told, so each turn truncates.
        sql [[INSERT INTO fpcache_frozen SELECT s, txid_current_snapshot(), txid_current() FROM generate_series(0, 2) s
          ON CONFLICT (slot) DO NOTHING]]
        assert(feed:wait_fresh(20))
        for j = math.max(1, i - 20), i do assert.is_false(absent(feed, "k" .. j), "k" .. j) end
        return sql "SELECT slot > 0 FROM fpcache_state" == "t"
      end, 11)
    end)

    it("finds a reader's rows by the index, with kept and with new plans", function()
      local poll = statements.feed('"public"').poll
      local plan = sql(([[
        SET fpcache.tells = 'on'; SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan;
        INSERT INTO fpcache_feed (xid, slot, namespace, keys)
        SELECT i, 1, '', ARRAY['k'::bytea] FROM generate_series(1, 20000) i;
        PREPARE poll(text) AS %s; EXPLAIN EXECUTE poll('19990:19990:'); TRUNCATE fpcache_feed]]):format(poll))
      for slot = 0, 2 do
        assert.matches(("fpcache_feed_%d_xid_idx"):format(slot), plan)
      end
      assert.is_nil(plan:find("Seq Scan on fpcache_feed", 1, true))
      assert.matches("Index Cond: %(xid >= ", plan)
    end)
  end)
end)

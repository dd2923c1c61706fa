-- feed_spec.lua -- the feed's reader against a real server: what others change is told, in every race; and when it
-- cannot know, it says nothing.
local core = require "fpcache.core"
local fpcache = require "fpcache"
local server = require "support.server"
local statements = require "fpcache.statements"

local system = core.system
local SIGKILL, SIGCONT, SIGSTOP = 9, 18, 19

local function eventually(what, check, seconds)
  local deadline = system.now() + (seconds or 20)
  while not check() do
    if system.now() > deadline then error("not in time: " .. what, 2) end
    system.sleep(0.003)
  end
end

describe("A change feed", function()
  local srv, url, name, cache, seed, opened

  setup(function()
    srv = server.start()
    url, name = srv:fresh_database()
    assert(fpcache.setup_cache { connection_string = url, grant = "public" })
  end)

  before_each(function()
    opened = {}
    srv:sql("TRUNCATE cache", url)
    cache = assert(fpcache.new { connection_string = url, feed = false })
    opened[1] = cache
    seed = core.feed_seed("")
  end)

  after_each(function()
    for i = #opened, 1, -1 do opened[i]:close() end
    collectgarbage()
    collectgarbage()
    assert.equal(0, core.open_objects())
  end)

  local function open(change, pool)
    local options = {
      schema = '"public"', interval = 0.01, max_staleness = 1, connect_timeout = 5, prepared = true,
      filter = true, filter_capacity = 1000, filter_fpr = 0.001, statements = statements.feed('"public"'),
    }
    for option, value in pairs(change or {}) do options[option] = value end
    local feed = assert(core.feed(pool or cache.pool, options))
    opened[#opened + 1] = feed
    return feed
  end

  local function open_fresh(...)
    local feed = open(...)
    assert(feed:wait_fresh(20))
    return feed
  end

  local function absent(feed, key)
    return (feed:look(seed, key))
  end

  local function stamp_of(feed, key)
    local _, _, stamp = feed:look(seed, key)
    return stamp
  end

  -- The backend of one of the feed's connections: "fpcache feed" or "fpcache filter".
  local function backend(application, condition)
    return tonumber(srv:sql(("SELECT pid FROM pg_stat_activity WHERE datname = '%s' AND application_name = '%s' AND %s")
      :format(name, application, condition or "true"), url))
  end

  local function sql(text) return srv:sql(text, url) end

  -- A transaction of somebody else that stays open: returns what ends it.
  local function other_transaction(text)
    local conn = assert(cache.pool:acquire(5))
    assert(conn:query("BEGIN", 5))
    assert(conn:query("SET LOCAL fpcache.tells = 'off'", 5)) -- as nobody of ours: the trigger tells
    for statement in text:gmatch("[^;]+") do assert(conn:query(statement, 30)) end
    return function(ending)
      assert(conn:query(ending, 30))
      conn:close()
    end
  end

  it("tells what others set, overwrite and delete", function()
    local feed = open_fresh()
    assert.is_true(absent(feed, "a"))
    sql "SELECT cache_set('fpcache', 'a', '1', NULL)"
    assert(feed:wait_fresh(5))
    assert.is_false(absent(feed, "a"))
    for _, change in ipairs {
      "SELECT cache_set('fpcache', 'a', '2', NULL)", "UPDATE cache SET key = 'b' WHERE key = 'a'",
      "UPDATE cache SET key = 'a'", "DELETE FROM cache",
    } do
      local stamp = stamp_of(feed, "a")
      sql(change)
      assert(feed:wait_fresh(5))
      assert.not_equal(stamp, stamp_of(feed, "a"))
    end
    assert.is_false(absent(feed, "b"))
    assert.is_true(absent(feed, "c"))
  end)

  it("moves only the stamps of what changed", function()
    local feed = open_fresh()
    local a, b = stamp_of(feed, "a"), stamp_of(feed, "b")
    sql "SELECT cache_set('fpcache', 'a', '1', NULL)"
    assert(feed:wait_fresh(5))
    assert.equal(b, stamp_of(feed, "b"))
    assert.not_equal(a, stamp_of(feed, "a"))
    local _, spot = feed:look(seed, "b")
    assert.is_true(feed:is_current(spot, b))
    assert.is_false(feed:is_current(spot, b + 1))
    assert(cache:clear())
    assert(feed:wait_fresh(5))
    assert.not_equal(b, stamp_of(feed, "b"))
  end)

  it("holds keys of other namespaces and users apart", function()
    local feed = open_fresh()
    assert(cache:namespace("other"):set("x", 1))
    srv:create_user("somebody", nil, name)
    srv:sql("SELECT cache_set('somebody', 'y', '1', NULL)", srv:url_for("somebody", nil, name))
    assert(feed:wait_fresh(5))
    assert.is_true(absent(feed, "x"))
    assert.is_true(absent(feed, "y"))
    assert.is_false((feed:look(core.feed_seed("other"), "x")))
  end)

  it("knows what this process wrote at once, keys of any length and in bulk", function()
    local feed = open_fresh()
    local long = ("k"):rep(3000)
    feed:wrote(seed, "one")
    feed:wrote_keys(seed, { "two", "three" })
    local batch = core.batch()
    opened[#opened + 1] = batch
    for i = 1, 1000 do assert(batch:add("row" .. i, "v", nil, nil, 1000)) end
    assert(batch:add(long, "v", nil, nil, 1000))
    feed:wrote_batch(seed, batch)
    for _, key in ipairs { "one", "two", "three", "row1", "row256", "row257", "row1000", core.shorten_key(long) } do
      assert.is_false(absent(feed, key), key)
    end
    assert.is_true(absent(feed, "four"))
    local stamp = stamp_of(feed, "four")
    feed:wrote_all()
    assert.is_false(absent(feed, "four")) -- until it is loaded again
    assert.not_equal(stamp, stamp_of(feed, "four"))
    assert(feed:wait_fresh(5))
    assert.is_true(absent(feed, "four"))
  end)

  it("finds what commits late, after other changes were told", function()
    local feed = open_fresh()
    local commit = other_transaction "SELECT cache_set('fpcache', 'late', '1', NULL)"
    local stamp = stamp_of(feed, "late")
    for i = 1, 5 do
      sql(("SELECT cache_set('fpcache', 'k%d', '1', NULL)"):format(i))
      assert(feed:wait_fresh(5))
      assert.is_false(absent(feed, "k" .. i))
      assert.is_true(absent(feed, "late"))
    end
    commit "COMMIT"
    assert(feed:wait_fresh(5))
    assert.is_false(absent(feed, "late"))
    assert.not_equal(stamp, stamp_of(feed, "late"))
  end)

  it("tells nothing of what is rolled back", function()
    local feed = open_fresh()
    local rollback = other_transaction "SELECT cache_set('fpcache', 'never', '1', NULL)"
    assert(feed:wait_fresh(5))
    rollback "ROLLBACK"
    assert(feed:wait_fresh(5))
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
        local conn = assert(cache.pool:acquire(5))
        eventually("the load", function()
          local rows = assert(conn:query(([[
            SELECT pid FROM pg_stat_activity WHERE datname = '%s' AND application_name = 'fpcache filter'
              AND query LIKE 'FETCH%%']]):format(name), 5))
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
      eventually("the feed's polls beside the load", function() return feed:stats().changes >= count end, 5)
      assert.equal("loading", feed:stats().filter)
      assert.equal("fresh", feed:stats().feed)
    end

    it("writes are not lost, and deletes move their stamps", function()
      local stamp = stamp_of(feed, "row99999")
      assert.is_false(absent(feed, "nothing")) -- not loaded yet
      sql "SELECT cache_set('fpcache', 'new', '1', NULL); DELETE FROM cache WHERE key = 'row99999'"
      feed:wrote(seed, "mine")
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
      assert(cache:set("row2", 1))
      assert(feed:wait_fresh(5))
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
      assert(feed:wait_fresh(5))
      assert.equal(1, feed:stats().fell_behind)
      assert.is_false(absent(feed, "told"))
      assert.not_equal(stamp, stamp_of(feed, "told"))
      assert.equal("fresh", feed:stats().filter)
      sql "SELECT cache_set('fpcache', 'after', '1', NULL)"
      assert(feed:wait_fresh(5))
      assert.is_false(absent(feed, "after"))
      assert.equal(1, feed:stats().fell_behind) -- once
    end)

    it("rotates them, and tells every change meanwhile", function()
      local feed = open_fresh()
      sql "UPDATE fpcache_state SET slot = -1; DELETE FROM fpcache_frozen"
      local i = 0
      eventually("a rotation", function()
        i = i + 1
        assert(cache:set("k" .. i, 1))
        -- Forged: every slot was frozen before anything was told, so each turn truncates.
        sql [[INSERT INTO fpcache_frozen SELECT s, txid_current_snapshot(), txid_current() FROM generate_series(0, 2) s
          ON CONFLICT (slot) DO NOTHING]]
        assert(feed:wait_fresh(5))
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

  it("goes on where it was when its connection is cut", function()
    local feed = open_fresh()
    local stamp = stamp_of(feed, "kept")
    local pid = backend "fpcache feed"
    sql(("SELECT cache_set('fpcache', 'cut', '1', NULL), pg_terminate_backend(%d)"):format(pid))
    assert(feed:wait_fresh(5))
    assert.not_equal(pid, backend "fpcache feed")
    assert.is_false(absent(feed, "cut"))
    assert.equal(stamp, stamp_of(feed, "kept"))
    local stats = feed:stats()
    assert.same({ 0, 0, 0 }, { stats.fell_behind, stats.incarnation_changes, stats.reloads })
    assert.equal("", stats.last_error)
  end)

  it("notices TRUNCATE and a schema that was made anew", function()
    local feed = open_fresh()
    assert(cache:set("a", 1))
    for count, wipe in ipairs {
      function() sql "TRUNCATE cache" end,
      function() assert(fpcache.setup_cache { connection_string = url, force = true, grant = "public" }) end,
    } do
      local stamp, incarnation = stamp_of(feed, "a"), feed:stats().incarnation
      wipe()
      assert(feed:wait_fresh(5))
      assert.equal(count, feed:stats().incarnation_changes)
      assert.not_equal(incarnation, feed:stats().incarnation)
      assert.not_equal(stamp, stamp_of(feed, "a"))
      assert.is_true(absent(feed, "a"))
      assert(cache:set("a", 1))
      assert(feed:wait_fresh(5))
      assert.is_false(absent(feed, "a"))
    end
  end)

  it("answers nothing once it is stale", function()
    local feed = open_fresh { max_staleness = 0.3 }
    local _, spot, stamp = feed:look(seed, "a")
    assert.is_true(feed:is_current(spot, stamp))
    local pid = backend "fpcache feed"
    system.kill(pid, SIGSTOP)
    eventually("staleness", function() return feed:stats().feed == "stale" end, 2)
    assert.equal("stale", feed:stats().filter)
    assert.same({ false, spot }, { feed:look(seed, "a") })
    assert.is_false(feed:is_current(spot, stamp))
    assert.is_nil((feed:wait_fresh(0.01)))
    system.kill(pid, SIGCONT)
    assert(feed:wait_fresh(5))
    assert.is_true(feed:is_current(spot, stamp)) -- nothing was changed and nothing missed
  end)

  it("ends within a second while the server hangs, and can be opened again", function()
    local feed = open_fresh()
    local pid = backend "fpcache feed"
    system.kill(pid, SIGSTOP)
    system.sleep(0.05)
    local began = system.now()
    feed:close()
    assert.is_true(system.now() - began < 1)
    assert.same({ "off", "off" }, { feed:stats().feed, feed:stats().filter })
    assert.is_false(absent(feed, "a"))
    assert.is_nil(stamp_of(feed, "a"))
    assert.matches("^closed: ", select(2, feed:wait_fresh(1)))
    system.kill(pid, SIGCONT)
    open_fresh()
  end)

  it("is one for all caches of a process, with the strictest staleness", function()
    local other = assert(fpcache.new { connection_string = url, feed = false })
    opened[#opened + 1] = other
    local first = open_fresh()
    local second = open_fresh({ max_staleness = 0.2 }, other.pool)
    assert.equal("1", sql(([[SELECT count(*) FROM pg_stat_activity
      WHERE datname = '%s' AND application_name = 'fpcache feed']]):format(name)))
    first:wrote(seed, "mine")
    assert.is_false(absent(second, "mine"))
    system.kill(backend "fpcache feed", SIGSTOP)
    eventually("staleness", function() return first:stats().feed == "stale" end, 0.9)
    system.kill(backend "fpcache feed", SIGCONT)
    second:close()
    assert(first:wait_fresh(5))
  end)

  it("without rights on the table has no filter, and loads it when they are there", function()
    local limited = assert(fpcache.new { connection_string = srv:create_user("without_rights", nil, name), feed = false })
    opened[#opened + 1] = limited
    sql "REVOKE SELECT ON cache FROM public"
    local feed = open({}, limited.pool)
    eventually("failures", function() return feed:stats().load_failures >= 2 end, 5)
    assert.same({ "fresh", "loading" }, { feed:stats().feed, feed:stats().filter })
    assert.matches("^filter: denied: ", feed:stats().last_error)
    assert.is_false(absent(feed, "a"))
    assert.is_number(stamp_of(feed, "a"))
    assert.matches("^timeout: the feed is not fresh: filter: denied", select(2, feed:wait_fresh(0.05)))
    sql "GRANT SELECT ON cache TO public"
    assert(feed:wait_fresh(15))
    assert.is_true(absent(feed, "a"))
  end)

  it("does not trust polls in REPEATABLE READ, and asks for better where it may", function()
    local strict = srv:create_user("strict", nil, name)
    sql "ALTER ROLE strict SET default_transaction_isolation = 'repeatable read'"
    local pooled = assert(fpcache.new { connection_string = strict, prepared = false, feed = false })
    opened[#opened + 1] = pooled
    local feed = open({ prepared = false }, pooled.pool)
    eventually("a failure", function() return feed:stats().poll_failures > 0 end)
    assert.matches("read committed", feed:stats().last_error)
    assert.equal("loading", feed:stats().feed)
    feed:close()
    open_fresh({ prepared = true }, pooled.pool)
  end)

  it("works without a session's state, as behind a transaction pooler", function()
    local feed = open_fresh { prepared = false }
    sql "SELECT cache_set('fpcache', 'a', '1', NULL)"
    assert(feed:wait_fresh(5))
    assert.is_false(absent(feed, "a"))
  end)

  it("loads a new filter when too many questions went to the server in vain", function()
    local feed = open_fresh()
    assert(cache:set_many((function()
      local rows = {}
      for i = 1, 3000 do rows["k" .. i] = i end
      return rows
    end)()))
    eventually("a filter for as many keys", function() return feed:stats().filter_capacity >= 3000 end)
    assert(cache:delete("k1"))
    assert(feed:wait_fresh(5))
    assert.is_false(absent(feed, "k1"))
    for _ = 1, 2000 do feed:missed() end
    eventually("a new filter", function() return absent(feed, "k1") end)
    assert.is_false(absent(feed, "k2"))
    assert.equal(0, feed:stats().filter_dead)
  end)

  it("refuses options that make no sense", function()
    for option, value in pairs { interval = 0, max_staleness = -1, connect_timeout = 0 / 0, filter_fpr = 1 } do
      local options = { schema = "x", interval = 1, max_staleness = 1, connect_timeout = 1, filter_capacity = 1,
        filter_fpr = 0, statements = statements.feed("x") }
      options[option] = value
      local feed, err = core.feed(cache.pool, options)
      assert.is_nil(feed)
      assert.matches("^invalid: ", err)
    end
  end)
end)

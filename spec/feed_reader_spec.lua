-- feed_reader_spec.lua -- the life of the feed's reader against a real server: lost connections, wipes, staleness, several in one
-- process; and when it cannot know, it says nothing.
local core = require "fpcache.core"
local feeds = require "support.feeds"
local fpcache = require "fpcache"
local statements = require "fpcache.statements"

local eventually, system = feeds.eventually, core.system
local SIGCONT, SIGSTOP = 18, 19

describe("The reader of the change feed", function()
  local f = feeds.new()
  local open, open_fresh, absent, stamp_of, backend, sql = f.open, f.open_fresh, f.absent, f.stamp_of, f.backend, f.sql

  setup(f.setup)
  before_each(f.begin)
  after_each(f.finish)

  it("goes on where it was when its connection is cut", function()
    local feed = open_fresh()
    local stamp = stamp_of(feed, "kept")
    local pid = backend "fpcache feed"
    sql(("SELECT cache_set('fpcache', 'cut', '1', NULL), pg_terminate_backend(%d)"):format(pid))
    assert(feed:wait_fresh(20))
    assert.not_equal(pid, backend "fpcache feed")
    assert.is_false(absent(feed, "cut"))
    assert.equal(stamp, stamp_of(feed, "kept"))
    local stats = feed:stats()
    assert.same({ 0, 0, 0 }, { stats.fell_behind, stats.incarnation_changes, stats.reloads })
    assert.equal("", stats.last_error)
  end)

  it("notices TRUNCATE and a schema that was made anew", function()
    local feed = open_fresh()
    assert(f.cache:set("a", 1))
    for count, wipe in ipairs {
      function() sql "TRUNCATE cache" end,
      function() assert(fpcache.setup_cache { connection_string = f.url, force = true, grant = "public" }) end,
    } do
      local stamp, incarnation = stamp_of(feed, "a"), feed:stats().incarnation
      wipe()
      assert(feed:wait_fresh(20))
      assert.equal(count, feed:stats().incarnation_changes)
      assert.not_equal(incarnation, feed:stats().incarnation)
      assert.not_equal(stamp, stamp_of(feed, "a"))
      assert.is_true(absent(feed, "a"))
      assert(f.cache:set("a", 1))
      assert(feed:wait_fresh(20))
      assert.is_false(absent(feed, "a"))
    end
  end)

  it("answers nothing once it is stale", function()
    local feed = open_fresh { max_staleness = 0.3 }
    local _, spot, stamp = feed:look(f.seed, "a")
    assert.is_true(feed:is_current(spot, stamp))
    local pid = backend "fpcache feed"
    system.kill(pid, SIGSTOP)
    eventually("staleness", function() return feed:stats().feed == "stale" end)
    assert.equal("stale", feed:stats().filter)
    assert.same({ false, spot }, { feed:look(f.seed, "a") })
    assert.is_false(feed:is_current(spot, stamp))
    assert.is_nil((feed:wait_fresh(0.01)))
    system.kill(pid, SIGCONT)
    assert(feed:wait_fresh(20))
    assert.is_true(feed:is_current(spot, stamp)) -- nothing was changed and nothing missed
  end)

  it("ends at once while the server hangs, and can be opened again", function()
    local feed = open_fresh { max_staleness = 60, connect_timeout = 60 }
    local pid = backend "fpcache feed"
    system.kill(pid, SIGSTOP)
    eventually("a poll without an answer", function() return feed:stats().lag_s > 0.05 end)
    local began = system.now()
    feed:close()
    assert.is_true(system.now() - began < 15) -- it would wait for a minute
    assert.same({ "off", "off" }, { feed:stats().feed, feed:stats().filter })
    assert.is_false(absent(feed, "a"))
    assert.is_nil(stamp_of(feed, "a"))
    assert.matches("^closed: ", select(2, feed:wait_fresh(1)))
    system.kill(pid, SIGCONT)
    open_fresh()
  end)

  it("is one for all caches of a process, with the strictest staleness", function()
    local other = assert(fpcache.new { connection_string = f.url, feed = false })
    f.keep(other)
    local first = open_fresh { max_staleness = 60 }
    local second = open_fresh({ max_staleness = 0.2 }, other.pool)
    assert.equal("1", sql(([[SELECT count(*) FROM pg_stat_activity
      WHERE datname = '%s' AND application_name = 'fpcache feed']]):format(f.name)))
    first:wrote(f.seed, "mine")
    assert.is_false(absent(second, "mine"))
    system.kill(backend "fpcache feed", SIGSTOP)
    eventually("staleness", function() return first:stats().feed == "stale" end)
    system.kill(backend "fpcache feed", SIGCONT)
    second:close()
    assert(first:wait_fresh(20))
  end)

  it("is another for another login, and for another password of it", function()
    local function count()
      return tonumber(sql(([[SELECT count(*) FROM pg_stat_activity
        WHERE datname = '%s' AND application_name = 'fpcache feed']]):format(f.name)))
    end
    local function pool_of(user, password)
      local url = f.srv:create_user(user, password, f.name)
      return f.keep(assert(fpcache.new { connection_string = url, feed = false })).pool
    end
    local ann = open_fresh({}, pool_of("ann"))
    open_fresh({}, f.cache.pool)
    assert.equal(2, count())
    local first = open_fresh({}, pool_of("reader_with_password", "first"))
    open_fresh({}, pool_of("reader_with_password", "first"))
    assert.equal(3, count())
    -- Who knows no password that is right now reads nothing along with who knew one then.
    local pool = pool_of("reader_with_password", "second")
    local second = open_fresh({}, pool)
    assert.equal(4, count())
    sql "ALTER ROLE reader_with_password PASSWORD 'third'"
    second:close()
    local late = open({}, pool)
    eventually("a refusal", function() return late:stats().poll_failures > 0 end)
    assert.same({ "loading", "loading" }, { late:stats().feed, late:stats().filter })
    assert.matches("^auth: ", late:stats().last_error)
    assert.is_false(absent(late, "a"))
    assert.same({ "fresh", "fresh" }, { first:stats().feed, ann:stats().feed })
  end)

  it("looks seldom while nothing happens, and often again while something does", function()
    local feed = open_fresh { interval = 0.02, max_staleness = 1.5 } -- idle: every half second
    local function await_polls_apart(what, least, most, meanwhile)
      local polls, began = 0, -1
      eventually(what, function()
        if meanwhile then meanwhile() end
        local at, stats = system.now(), feed:stats()
        if stats.polls == polls then return false end
        local is_next, apart = stats.polls == polls + 1, at - stats.lag_s - began
        polls, began = stats.polls, at - stats.lag_s
        return is_next and apart > least and apart < most
      end)
    end
    await_polls_apart("polls far apart", 0.4, 100)
    await_polls_apart("polls close together", 0.01, 0.2, function() assert(f.cache:set("busy", 1)) end)
    await_polls_apart("polls far apart again", 0.4, 100)
  end)

  it("without rights on the table has no filter, and loads it when they are there", function()
    local limited = assert(fpcache.new { connection_string = f.srv:create_user("without_rights", nil, f.name), feed = false })
    f.keep(limited)
    sql "REVOKE SELECT ON cache FROM public"
    local feed = open({}, limited.pool)
    eventually("failures", function() return feed:stats().load_failures >= 2 end)
    assert.same({ "fresh", "loading" }, { feed:stats().feed, feed:stats().filter })
    assert.matches("^filter: denied: ", feed:stats().last_error)
    assert.is_false(absent(feed, "a"))
    assert.is_number(stamp_of(feed, "a"))
    assert.matches("^timeout: the feed is not fresh: filter: denied", select(2, feed:wait_fresh(0.05)))
    sql "GRANT SELECT ON cache TO public"
    assert(feed:wait_fresh(20))
    assert.is_true(absent(feed, "a"))
  end)

  it("does not trust polls in REPEATABLE READ, and asks for better where it may", function()
    local strict = f.srv:create_user("strict", nil, f.name)
    sql "ALTER ROLE strict SET default_transaction_isolation = 'repeatable read'"
    local pooled = assert(fpcache.new { connection_string = strict, prepared = false, feed = false })
    f.keep(pooled)
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
    assert(feed:wait_fresh(20))
    assert.is_false(absent(feed, "a"))
  end)

  it("loads a new filter when too many questions went to the server in vain", function()
    local feed = open_fresh()
    assert(f.cache:set_many((function()
      local rows = {}
      for i = 1, 3000 do rows["k" .. i] = i end
      return rows
    end)()))
    eventually("a filter for as many keys", function() return feed:stats().filter_capacity >= 3000 end)
    assert(f.cache:delete("k1"))
    assert(feed:wait_fresh(20))
    assert.is_false(absent(feed, "k1"))
    feed:missed(2000)
    eventually("a new filter", function() return absent(feed, "k1") end)
    assert.is_false(absent(feed, "k2"))
    assert.equal(0, feed:stats().filter_dead)
  end)

  it("loads a filter that was outgrown anew, and one that a clear by others emptied", function()
    local feed = open_fresh()
    local rows = {}
    for i = 1, 3000 do rows["k" .. i] = i end
    assert(f.cache:set_many(rows))
    eventually("a new filter", function() return feed:stats().reloads >= 1 end)
    assert(feed:wait_fresh(20))
    assert.is_false(absent(feed, "k1"))
    assert(f.cache:clear())
    eventually("a filter without them", function() return absent(feed, "k1") end)
  end)

  it("begins from nothing when polls get no answer three times in a row", function()
    local feed = open_fresh { connect_timeout = 0.4, max_staleness = 60 }
    local stamp, before = stamp_of(feed, "a"), feed:stats().fell_behind
    local finish = f.other_transaction "LOCK TABLE fpcache_feed_0 IN ACCESS EXCLUSIVE MODE"
    eventually("the third", function() return feed:stats().fell_behind > before end)
    assert.is_false(absent(feed, "a"))
    finish "ROLLBACK"
    assert(feed:wait_fresh(20))
    assert.not_equal(stamp, stamp_of(feed, "a"))
    assert.is_true(absent(feed, "a"))
  end)

  it("denies no key of a table that outgrows its filter many times over", function()
    local feed = open_fresh() -- made for 1,000 keys
    local capacity, count = feed:stats().filter_capacity, 0
    for size = 1, 4 do
      for half = 1, 2 do -- by others, and by ourselves
        local rows, keys = {}, {}
        for i = 1, 1000 * 2 ^ (size - 1) / 2 do
          keys[i] = "k" .. count + i
          rows[keys[i]] = i
        end
        count = count + #keys
        assert(f.cache:set_many(rows))
        if half == 1 then assert(feed:wait_fresh(20)) else feed:wrote_keys(f.seed, keys) end
        for i = 1, count do
          if absent(feed, "k" .. i) then error(("k%d of %d is denied"):format(i, count)) end
        end
      end
    end
    eventually("a filter made for them", function()
      local stats = feed:stats()
      return stats.filter_capacity >= count and stats.reloads >= 1
    end)
    assert.is_true(count > 10 * capacity)
    for i = 1, count do
      if absent(feed, "k" .. i) then error(("k%d is denied"):format(i)) end
    end
    assert.is_true(absent(feed, "nothing") or absent(feed, "none"))
  end)

  it("keeps the filter as soon as one of its openers wants it", function()
    local other = f.keep(assert(fpcache.new { connection_string = f.url, feed = false }))
    local first = open_fresh { filter = false }
    assert.equal("off", first:stats().filter)
    assert.is_false(absent(first, "a"))
    open({}, other.pool)
    assert(first:wait_fresh(20))
    assert.equal("fresh", first:stats().filter)
    assert.is_true(absent(first, "a"))
  end)

  it("refuses options that make no sense", function()
    for option, value in pairs { interval = 0, max_staleness = -1, connect_timeout = 0 / 0, filter_fpr = 1 } do
      local options = { schema = "x", interval = 1, max_staleness = 1, connect_timeout = 1, filter_capacity = 1,
        filter_fpr = 0, statements = statements.feed("x") }
      options[option] = value
      local feed, err = core.feed(f.cache.pool, options)
      assert.is_nil(feed)
      assert.matches("^invalid: ", err)
    end
  end)
end)

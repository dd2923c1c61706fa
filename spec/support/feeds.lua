-- feeds.lua -- feeds of the core on a database of their own, and what specs ask of them.
--
--   local f = feeds.new()
--   setup(f.setup); before_each(f.begin); after_each(f.finish)   -- finish fails when something stays open
--   f.url, f.name, f.srv     the database; f.cache: a cache without layers, empty; f.seed: of its namespace
local core = require "fpcache.core"
local fpcache = require "fpcache"
local server = require "support.server"
local statements = require "fpcache.statements"

local system = core.system

local feeds = {}

function feeds.eventually(what, check, seconds)
  local deadline = system.now() + (seconds or 20)
  while not check() do
    if system.now() > deadline then error("not in time: " .. what, 2) end
    system.sleep(0.003)
  end
end

function feeds.new()
  local f, opened = {}, nil

  function f.setup()
    f.srv = server.start()
    f.url, f.name = f.srv:fresh_database()
    assert(fpcache.setup_cache { connection_string = f.url, grant = "public" })
  end

  function f.begin()
    opened = {}
    f.sql "TRUNCATE cache"
    f.cache = f.keep(assert(fpcache.new { connection_string = f.url, feed = false }))
    f.seed = core.feed_seed("")
  end

  function f.finish()
    for i = #opened, 1, -1 do opened[i]:close() end
    collectgarbage()
    collectgarbage()
    assert(core.open_objects() == 0, "something is open still")
  end

  --- Has it closed in the end.
  function f.keep(object)
    opened[#opened + 1] = object
    return object
  end

  function f.open(change, pool)
    local options = {
      schema = '"public"', interval = 0.01, max_staleness = 1, connect_timeout = 5, prepared = true,
      filter = true, filter_capacity = 1000, filter_fpr = 0.001, statements = statements.feed('"public"'),
    }
    for option, value in pairs(change or {}) do options[option] = value end
    return f.keep(assert(core.feed(pool or f.cache.pool, options)))
  end

  function f.open_fresh(...)
    local feed = f.open(...)
    assert(feed:wait_fresh(20))
    return feed
  end

  function f.absent(feed, key)
    return (feed:look(f.seed, key))
  end

  function f.stamp_of(feed, key)
    local _, _, stamp = feed:look(f.seed, key)
    return stamp
  end

  --- The backend of one of the feed's connections: "fpcache feed" or "fpcache filter".
  function f.backend(application, condition)
    return tonumber(f.sql(("SELECT pid FROM pg_stat_activity WHERE datname = '%s' AND application_name = '%s' AND %s")
      :format(f.name, application, condition or "true")))
  end

  function f.sql(text) return f.srv:sql(text, f.url) end

  --- A transaction of somebody else that stays open: returns what ends it.
  function f.other_transaction(text)
    local conn = assert(f.cache.pool:acquire(5))
    assert(conn:query("BEGIN", 5))
    for statement in text:gmatch("[^;]+") do assert(conn:query(statement, 30)) end
    return function(ending)
      assert(conn:query(ending, 30))
      conn:close()
    end
  end

  return f
end

return feeds

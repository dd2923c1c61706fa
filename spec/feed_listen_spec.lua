-- feed_listen_spec.lua -- feed_listen: writers wake readers; and where that cannot be, polls do as ever.
local core = require "fpcache.core"
local database = require "support.database"
local layers = require "support.layers"
local pgbouncer = require "support.pgbouncer"

local eventually, now = database.eventually, core.system.now

describe("feed_listen", function()
  local db

  setup(function() db = database.new() end)
  after_each(function()
    db:close_all()
    db:sql("TRUNCATE cache")
  end)

  -- Idle, it polls every 10 s.
  local function open_slow(opts)
    local options = { feed_listen = true, max_staleness = 30, feed_interval = 0.1 }
    for name, value in pairs(opts or {}) do options[name] = value end
    local cache = layers.open(db, options)
    assert(cache:set("k", "old"))
    layers.warm(cache, "k")
    return cache
  end

  local function idle(cache)
    local polls = -1
    assert(eventually(function() -- two polls more than 1 s apart: the next ones are further apart still
      local last = polls
      polls = cache:stats().feed.polls
      if last ~= polls then return false end
      core.system.sleep(1)
      return polls == cache:stats().feed.polls
    end))
  end

  --- Has something written, and waits until the reader was woken by it, and it is seen.
  local function is_woken(cache, value, write)
    local wakeups = cache:stats().feed.wakeups
    assert(write())
    assert(eventually(function() return cache:stats().feed.wakeups > wakeups end), "nobody was woken")
    assert(eventually(function() return cache:get("k") == value end))
  end

  it("a write of another process is seen long before the next poll", function()
    local cache = open_slow()
    assert.is_true(cache:stats().feed.listening)
    idle(cache)
    local writer = db:open { feed_listen = true }
    is_woken(cache, "new", function() return writer:set("k", "new") end)
    is_woken(cache, "newer", function() return writer:set_many { k = "newer" } end)
    is_woken(cache, nil, function() return writer:delete "k" end)
    assert.equal("fresh", cache:stats().feed.state)
  end)

  it("what is rolled back, another schema and those who do not say so wake nobody", function()
    local cache = open_slow()
    idle(cache)
    local wakeups = cache:stats().feed.wakeups
    local writer = db:open { feed_listen = true }
    writer:transaction(function(tx)
      assert(tx:set("k", "never"))
      return nil, "rolled back"
    end)
    assert(db:open():set("other", 1))
    db:sql([[SELECT pg_notify('fpcache', '"elsewhere"'), pg_notify('another', '"public"')]])
    assert(cache:wait_ready(20))
    assert.equal(wakeups, cache:stats().feed.wakeups)
    assert.equal("filter", layers.source(cache, "absent"))
  end)

  it("a storm of writes does not make it poll without pause", function()
    local cache = open_slow()
    local writer = db:open { feed_listen = true }
    local polls, start = cache:stats().feed.polls, now()
    repeat assert(writer:set("k", "again")) until now() > start + 1
    local rate = (cache:stats().feed.polls - polls) / (now() - start)
    assert.is_true(rate <= 51, rate .. " polls a second") -- a fifth of feed_interval apart
  end)

  it("outlives the loss of its connection", function()
    local cache = open_slow()
    idle(cache)
    local function pid()
      return db:sql([[SELECT pid FROM pg_stat_activity WHERE application_name = 'fpcache feed' AND datname = current_database()]])
    end
    local before = pid()
    db:sql(("SELECT pg_terminate_backend(%s)"):format(before))
    assert(eventually(function() return pid() ~= "" and pid() ~= before end))
    assert(eventually(function() return cache:stats().feed.listening end))
    is_woken(cache, "new", function() return db:open({ feed_listen = true }):set("k", "new") end)
  end)

  it("is off unless asked for", function()
    local cache = layers.open(db)
    assert.is_false(cache:stats().feed.listening)
    assert.equal(0, cache:stats().feed.wakeups)
  end)

  describe("behind a transaction pooler", function()
    local bouncer
    before_each(function()
      bouncer = pgbouncer.start(db.srv, db.name, { "app" }, { pool_mode = "transaction", default_pool_size = 3 })
    end)
    after_each(function() bouncer:stop() end)

    for _, prepared in ipairs { false, true } do
      it(("falls back to polling with prepared = %s"):format(tostring(prepared)), function()
        local cache = db:open { connection_string = bouncer:url_for("app"), prepared = prepared, feed = true, feed_listen = true,
          max_staleness = layers.STALENESS, feed_interval = 0.02 }
        assert(eventually(function() return cache:stats().feed.state == "fresh" end))
        assert.is_false(cache:stats().feed.listening)
        assert.equal("0", db:sql([[SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%LISTEN fpcache;%'
          AND application_name = 'fpcache feed' AND datname = current_database() AND pid <> pg_backend_pid()]]))
        assert(cache:set("k", "old"))
        assert(db:open({ feed_listen = true }):set("k", "new"))
        assert(eventually(function() return cache:get("k") == "new" end))
        assert.equal(0, cache:stats().feed.wakeups)
      end)
    end
  end)
end)

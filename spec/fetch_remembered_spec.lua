-- What fetch gives of what its process remembers, while the server is dead; time passes by layers.age() for the near cache.
local chance = require "fpcache.policy.chance"
local connection = require "fpcache.connection"
local database = require "support.database"
local fpcache = require "fpcache"
local layers = require "support.layers"
local options = require "fpcache.options"
local origin = require "support.origin"
local tasks = require "support.tasks"
local waiting = require "fpcache.waiting"

describe("what is remembered", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function() db:sql("TRUNCATE cache") end)
  after_each(function()
    db:let_in()
    db:close_all()
  end)

  local function open(opts)
    local all = { breaker_pause = 60, timeout = 5, connect_timeout = 5, max_staleness = 0.2 }
    for name, value in pairs(opts or {}) do all[name] = value end
    cache = layers.open(db, all)
  end

  local function fetch(key, policy, loader) return { cache:fetch(key, policy, loader) } end

  local function fetch_many(key, policy, loader)
    local values, err, sources = cache:fetch_many({ key }, policy, function()
      local value, reason = loader()
      if reason then return nil, reason end
      return { [key] = value }
    end)
    return { values and values[key], err, values and sources[key] }
  end

  --- Has the near cache hold what fetch loads, or what is there.
  local function warm(key, policy, value)
    assert(cache:fetch(key, policy, origin(value)))
    assert(cache:wait_ready(20)) -- one's own write comes back by the feed and voids an early copy
    assert.equal("near", database.eventually(function()
      local _, err, source = cache:fetch(key, policy, error)
      assert.is_nil(err)
      return source == "near" and source
    end))
  end

  --- The server is gone, and the feed knows that it is out of touch.
  local function lose_server()
    db:cut_off()
    assert.is_truthy(database.eventually(function() return cache:stats({ server = false }).near.state == "stale" end))
  end

  local down = "origin: down"

  local function first(count, results)
    for i = count + 1, 4 do results[i] = nil end
    return results
  end

  it("is given for as long as stale_ttl allows, whoever else is down", function()
    open { near_ttl = 40 }
    local policy = fpcache.policy { ttl = 60, stale_ttl = 600, error_backoff = 20 }
    local both = { { fetch, "k1", "last1" }, { fetch_many, "k2", "last2" } }
    for _, one in ipairs(both) do
      warm(one[2], policy, "value")
      warm(one[3], policy, "last")
    end
    lose_server()
    local load = origin(nil, down)
    local function counted() return cache:stats({ server = false }).policies.stale end
    for _, one in ipairs(both) do
      local stale = counted()
      assert.same({ "value", nil, "stale" }, first(3, one[1](one[2], policy, load)))
      assert.equal(0, load.calls, "its time in the near cache is not over")
      assert.equal(stale + 1, counted())
    end

    layers.age(cache, 41) -- near_ttl is over, its life is not
    for _, one in ipairs(both) do
      local ask, key = one[1], one[2]
      local calls, stale = load.calls, counted()
      for _ = 1, 3 do assert.same({ "value", nil, "stale" }, first(3, ask(key, policy, load))) end
      assert.equal(calls + 1, load.calls, "error_backoff spares the origin")
      assert.equal(stale + 3, counted())
      assert.is_nil((cache:get(key)))
      assert.is_string((select(2, cache:get(key))))
      assert.same({ nil, down }, first(2, ask(key, fpcache.policy { ttl = 60 }, load)), "without stale_ttl")
    end

    layers.age(cache, 41) -- so is its life
    for _, one in ipairs(both) do
      local ask, key, last = one[1], one[2], one[3]
      assert.same({ "value", nil, "stale" }, first(3, ask(key, policy, load)))
      assert.same({ "new", nil, "loader" }, first(3, ask(last, policy, origin("new"))), "the origin goes first")
      assert.same({ "last", nil, "stale" }, first(3, ask(last, policy, load)))
    end

    layers.age(cache, 540) -- 622 of 660 s
    for _, one in ipairs(both) do assert.same({ "value", nil, "stale" }, first(3, one[1](one[2], policy, load))) end
    layers.age(cache, 50)
    for _, one in ipairs(both) do assert.same({ nil, down }, first(2, one[1](one[2], policy, load))) end
  end)

  it("is asked for its successor, and forgotten when there is none", function()
    open()
    local policy = fpcache.policy { ttl = 60, stale_ttl = 600, negative_ttl = 5 }
    local both = { { fetch, "k1" }, { fetch_many, "k2" } }
    for _, one in ipairs(both) do warm(one[2], policy, "value") end
    layers.age(cache, 61)
    lose_server()
    for _, one in ipairs(both) do
      local ask, key, seen = one[1], one[2], nil
      assert.equal("value", (cache:fetch(key, policy, function(context)
        seen = context.old
        return context:not_modified()
      end)))
      assert.equal("value", seen)
      assert.same({ nil, nil }, first(2, ask(key, policy, origin(nil))))
      assert.same({ nil, down }, first(2, ask(key, policy, origin(nil, down))))
    end
  end)

  it("is nothing that was deleted, overwritten or cleared before the server was lost", function()
    open()
    local policy = fpcache.policy { ttl = 60, stale_ttl = 600 }
    local other = db:open()
    for _, key in ipairs { "kept", "own", "other", "set" } do assert(cache:set(key, key, 60)) end
    for _, key in ipairs { "kept", "own", "other", "set" } do warm(key, policy, key) end
    assert(cache:delete("own"))
    assert(other:delete("other"))
    assert(other:set("set", "new", 60))
    assert(cache:wait_ready(20)) -- it has been told
    lose_server()
    local load = origin(nil, down)
    for _, key in ipairs { "own", "other", "set" } do
      assert.same({ nil, down }, first(2, fetch(key, policy, load)))
      assert.same({ nil, down }, first(2, fetch_many(key, policy, load)))
    end
    assert.same({ "kept", nil, "stale" }, first(3, fetch("kept", policy, load)))
    db:let_in()
    cache:close()

    open()
    cache:set("kept", 1, 60)
    warm("kept", policy, 1)
    assert(other:clear())
    assert(cache:wait_ready(20))
    lose_server()
    assert.same({ nil, down }, first(2, fetch("kept", policy, load)))
  end)

  it("is given by tasks as without them, and after soft_timeout while loading takes longer", function()
    open()
    local usual, patient = { ttl = 60, stale_ttl = 600 }, { ttl = 60, stale_ttl = 600, soft_timeout = 2 }
    warm("k", usual, "value")
    layers.age(cache, 61)
    lose_server()
    local clock = tasks.new { fake = true }
    finally(function() clock:close() end)
    for _, ask in ipairs { fetch, fetch_many } do
      local function slowly(seconds, value, err)
        return function()
          waiting.sleep(seconds)
          return value, err
        end
      end
      local function timed(policy, load)
        local began, results, took = clock.time, nil, nil
        clock:spawn(function()
          results = first(3, ask("k", fpcache.policy(policy), load))
          took = clock.time - began
        end)
        clock:run()
        return { results, math.floor(took) } -- a wait polls
      end
      assert.same({ { "new", nil, "loader" }, 5 }, timed(usual, slowly(5, "new")))
      assert.same({ { "new", nil, "loader" }, 1 }, timed(patient, slowly(1, "new")))
      assert.same({ { "value", nil, "stale" }, 2 }, timed(patient, slowly(5, "new")))
      assert.same({ { "value", nil, "stale" }, 3 }, timed({ ttl = 60, stale_ttl = 600, hard_timeout = 3 }, slowly(9, "late")))
      local late = timed({ ttl = 60, hard_timeout = 3, near = false }, slowly(9, "late"))
      assert.same({ "timeout: loading took longer than hard_timeout (3 s); it goes on", 3 }, { late[1][2], late[2] })
      assert.is_nil(late[1][1])
      assert.same({ { "value", nil, "stale" }, 5 }, timed(usual, slowly(5, nil, down)))
      layers.age(cache, 10) -- error_backoff is over
    end
  end)

  it("is not for near = false", function()
    open()
    local usual, never = { ttl = 60, stale_ttl = 600 }, { ttl = 60, stale_ttl = 600, near = false }
    warm("k", usual, "value")
    lose_server()
    local load = origin(nil, down)
    for _, ask in ipairs { fetch, fetch_many } do
      assert.same({ nil, down }, first(2, ask("k", never, load)))
      assert.same({ "new", nil, "loader" }, first(3, ask("k", never, origin("new"))))
      assert.same({ "value", nil, "stale" }, first(3, ask("k", usual, load)))
    end
  end)

  it("is not for who can ask the server, but waits in vain for another's loading", function()
    open()
    local policy = fpcache.policy { ttl = 60, stale_ttl = 600, lock_timeout = 0.01 }
    warm("k", policy, "value")
    layers.age(cache, 61)
    db:sql("UPDATE cache SET expires_at = now() - interval '1 hour', stale_until = NULL, " ..
      "noted_version = version, lease_holder = 1, lease_until = now() + interval '1 hour'")
    assert(cache:wait_ready(20))
    local load = origin(nil, down)
    assert.same({ nil, down }, first(2, fetch("k", policy, load)))
    assert.same({ nil, down }, first(2, fetch_many("k", policy, load)))
    assert.equal(2, load.calls)
  end)

  it("survives a server that hangs before it is lost", function()
    -- Polls are late after that; for opening it may be too soon on a slow machine.
    local function try() return pcall(open, { connect_timeout = 0.3 }) end
    assert.is_truthy(database.eventually(try))
    local policy = fpcache.policy { ttl = 60, stale_ttl = 600 }
    warm("k", policy, "value")
    local pool = assert(connection.open(options.read(connection.OPTIONS, { connection_string = db.url }, 1), 1))
    local superuser = assert(pool:acquire(10))
    finally(function()
      superuser:close()
      pool:close()
    end)
    local before = cache:stats({ server = false }).feed.fell_behind
    assert(superuser:script("BEGIN; LOCK TABLE fpcache_feed IN ACCESS EXCLUSIVE MODE", 30)) -- polls are late
    assert.is_truthy(database.eventually(function()
      return cache:stats({ server = false }).feed.fell_behind > before
    end))
    assert.is_truthy(database.eventually(function() return cache:stats({ server = false }).near.state == "stale" end))
    db:cut_off()
    assert.same({ "value", nil, "stale" }, first(3, fetch("k", policy, origin(nil, down))))
    assert(superuser:script("ROLLBACK", 30))
    db:let_in()
    assert.is_truthy(database.eventually(function() return cache:wait_ready(1) end))
    assert.is_nil(cache.near:get("", "k"), "with the first answer everything may have changed")
  end)

  it("is never the near cache's answer in the time of renewal", function()
    finally(function() chance.draw = chance.drawn end)
    chance.drawn, chance.draw = chance.draw, function() return math.exp(-1) end
    open { near_ttl = 1000, max_staleness = 20 } -- it is to answer on a slow machine too
    local cases = {
      { { ttl = 100, refresh_ahead = 0.5 }, 30, 51 },
      { { ttl = 100, beta = 4 }, 30, 61, "UPDATE cache SET load_seconds = 10" }, -- 4 times 10 s before its end
      { { ttl = 100, sliding = true }, 15, 26 },
      { { ttl = 100, stale_ttl = 100 }, 70, 101 },
    }
    for i, case in ipairs(cases) do
      local policy, key, before, after, sql = fpcache.policy(case[1]), "k" .. i, case[2], case[3], case[4]
      cache:fetch(key, policy, origin(1))
      if sql then db:sql(sql) end
      assert(cache:wait_ready(20))
      warm(key, policy, 1)
      layers.age(cache, before)
      assert.equal("near", fetch(key, policy, error)[3])
      layers.age(cache, after - before)
      assert.equal("db", fetch(key, policy, error)[3], "case " .. i)
    end
  end)
end)

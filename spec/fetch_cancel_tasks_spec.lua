-- Tasks that are cancelled while they load, and those who wait for them: these go on, and one of them loads in the other's place.
local database = require "support.database"
local fpcache = require "fpcache"

describe("of tasks that fetch a key", function()
  local PATIENCE = 20 -- seconds; nothing here takes so long unless somebody waits for what does not come
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function policy_of(lock) return fpcache.policy { ttl = 60, lock_timeout = 600, lock = lock } end

  --- The lease does not end by itself.
  local function keep_lease(columns)
    db:sql("UPDATE cache SET " .. (columns or "") .. "lease_until = now() + interval '1 hour'")
  end

  --- Runs fn in a task to its end, or fails.
  local function in_task(fn)
    local task = fpcache.spawn(function()
      fn()
      return "over"
    end)
    local ended, err = fpcache.await(task, 3 * PATIENCE)
    assert.equal("over", ended, err)
  end

  --- Lets others run until it is so.
  local function await_that(what, is_so)
    local turns = 0
    while not is_so() do
      turns = turns + 1
      assert(turns < PATIENCE * 1000, what)
      fpcache.sleep(0.001)
    end
  end

  local function waits_of(one) return one:stats({ server = false }).policies.waits end

  --- Tasks that fetch "k"; what each of them gets.
  local function ask(from, count, policy, load)
    local tasks = {}
    for i = 1, count do
      tasks[i] = fpcache.spawn(function()
        local value, err = from:fetch("k", policy, load)
        return value or err
      end)
    end
    return function()
      local got = {}
      for i = 1, count do
        local value, err = fpcache.await(tasks[i], PATIENCE)
        got[i] = value or err
        fpcache.cancel(tasks[i])
      end
      return got
    end
  end

  --- A task that loads "k" is cancelled while three wait for it.  What they got, and how many loaded.
  local function cancelled(policy, waiter, columns)
    local loads, got, first = 0, nil, nil
    local function load()
      loads = loads + 1
      if loads > 1 then return "value" end
      local _, err = fpcache.sleep(600)
      return nil, err
    end
    in_task(function()
      local before = waits_of(waiter)
      first = fpcache.spawn(function() return cache:fetch("k", policy, load) end)
      await_that("it is loading", function() return loads == 1 end)
      local answers = ask(waiter, 3, policy, load)
      await_that("three wait", function() return waits_of(waiter) - before >= 3 end)
      keep_lease(columns)
      fpcache.cancel(first)
      got = answers()
    end)
    assert.same({ nil, "interrupted: the task was cancelled", "loader" }, { fpcache.await(first) })
    return got, loads
  end

  local ALL = { "value", "value", "value" }

  it("one that is cancelled while it loads leaves its place to one who waits, whatever the lock is", function()
    for _, lock in ipairs { "process", "host", "cluster" } do
      local got, loads = cancelled(policy_of(lock), cache)
      assert.same(ALL, got, lock)
      if lock == "cluster" then assert.equal(2, loads) end -- else it may come before the lease ends, and what it loads is not stored
      cache:delete("k")
    end
  end)

  it("one that is cancelled while it loads leaves no lease for which other processes wait", function()
    local got, loads = cancelled(policy_of("cluster"), db:open())
    assert.same({ ALL, 2 }, { got, loads })
    assert.equal("value", (cache:get("k")))
  end)

  it("he who has the host's lock does not wait for one who waits for that lock", function()
    -- Three ask at once while another host has the lease.  One gets the lock and asks again; meanwhile the next finds it taken.
    local policy = policy_of("host")
    local got
    local function load() return "value" end
    assert.equal("seen", cache:fetch("k", policy_of("cluster"), function()
      keep_lease()
      in_task(function() got = ask(db:open(), 3, policy, load)() end)
      return "seen"
    end))
    assert.same(ALL, got)
  end)

  it("after one with the host's lock was cancelled nobody waits for him who waits for it, though the lease stays", function()
    assert.same(ALL, (cancelled(policy_of("host"), cache, "lease_holder = 1, "))) -- another host's
  end)
end)

-- Tasks that are cancelled while they load, and those who wait for them: these go on, and one of them loads in the other's place.
local database = require "support.database"
local fpcache = require "fpcache"

describe("of tasks", function()
  local PATIENCE = 60 -- seconds; nothing here takes so long unless somebody waits for what does not come
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

  -- How "k" is asked for.
  local function fetch(from, policy, load) return from:fetch("k", policy, load) end
  local function fetch_many(from, policy, load)
    local values, err = from:fetch_many({ "k", "no key" }, policy, function()
      local value, reason = load()
      return value and { k = value }, reason
    end)
    return values and values.k, err
  end

  --- Tasks that ask for "k"; what each of them gets.
  local function ask(how, from, count, policy, load)
    local tasks = {}
    for i = 1, count do tasks[i] = fpcache.spawn(how, from, policy, load) end
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

  local CANCELLED = "interrupted: the task was cancelled"

  --- A task that loads "k" is cancelled while three wait for it.  What they got, and how many loaded.
  local function cancelled(policy, waiter, columns, how)
    how = how or fetch
    local loads, got, first = 0, nil, nil
    local function load()
      loads = loads + 1
      if loads > 1 then return "value" end
      local _, err = fpcache.sleep(600)
      return nil, err
    end
    in_task(function()
      local before = waits_of(waiter)
      first = fpcache.spawn(how, cache, policy, load)
      await_that("it is loading", function() return loads == 1 end)
      local answers = ask(how, waiter, 3, policy, load)
      await_that("three wait", function() return waits_of(waiter) - before >= 3 end)
      keep_lease(columns)
      fpcache.cancel(first)
      got = answers()
    end)
    assert.equal(CANCELLED, (select(2, fpcache.await(first))))
    return got, loads
  end

  local ALL = { "value", "value", "value" }

  it("one that is cancelled while it loads leaves its place to one who waits, whatever the lock is", function()
    for _, lock in ipairs { "process", "host", "cluster" } do
      local got, loads = cancelled(policy_of(lock), cache)
      assert.same(ALL, got, lock)
      if lock == "cluster" then assert.equal(2, loads) end -- else one may load before the lease ends, and not store
      cache:delete("k")
    end
  end)

  it("one that is cancelled while it loads leaves no lease for which other processes wait", function()
    for _, how in ipairs { fetch, fetch_many } do
      db:sql("TRUNCATE cache")
      local got, loads = cancelled(policy_of("cluster"), db:open(), nil, how)
      assert.same({ ALL, 2 }, { got, loads })
      assert.equal("value", (cache:get("k")))
    end
  end)

  it("nor does one that is cancelled when it is about to store", function()
    for _, how in ipairs { fetch, fetch_many } do
      db:sql("TRUNCATE cache")
      local other, loads, first = db:open(), 0, nil
      local mine, answers
      local function load()
        loads = loads + 1
        if loads > 1 then return "value" end
        answers = ask(how, other, 1, policy_of("cluster"), load)
        await_that("one waits", function() return waits_of(other) > 0 end)
        keep_lease()
        fpcache.cancel(first)
        return "mine"
      end
      in_task(function()
        first = fpcache.spawn(how, cache, policy_of("cluster"), load)
        mine = fpcache.await(first, PATIENCE)
        assert.same({ "value" }, answers())
      end)
      assert.same({ "mine", 2 }, { mine, loads })
      assert.equal("value", (cache:get("k")))
    end
  end)

  it("one whose loading goes on when it is cancelled, since its policy names hard_timeout, ends no other's wait", function()
    local policy = fpcache.policy { ttl = 60, lock_timeout = 600, hard_timeout = 600 }
    for _, how in ipairs { fetch, fetch_many } do
      db:sql("TRUNCATE cache")
      local loads, may_end, first, got = 0, false, nil, nil
      local function load()
        loads = loads + 1
        await_that("it may end", function() return may_end end)
        return "value"
      end
      in_task(function()
        local before = waits_of(cache)
        first = fpcache.spawn(how, cache, policy, load)
        await_that("it is loading", function() return loads == 1 end)
        local answers = ask(how, cache, 3, policy, load)
        await_that("three wait", function() return waits_of(cache) - before >= 3 end)
        fpcache.cancel(first)
        assert.equal(CANCELLED, (select(2, fpcache.await(first, PATIENCE))))
        may_end = true
        got = answers()
      end)
      assert.same({ ALL, 1 }, { got, loads })
    end
  end)

  it("a lock is given back when its task is cancelled", function()
    local other, got = db:open(), nil
    in_task(function()
      local is_inside = false
      local first = fpcache.spawn(function()
        return cache:lock("l", 600, function()
          is_inside = true
          return fpcache.sleep(600)
        end)
      end)
      await_that("it has the lock", function() return is_inside end)
      fpcache.cancel(first)
      got = other:lock("l", 600, function() return "mine" end, { wait = PATIENCE })
    end)
    assert.equal("mine", got)
  end)

  it("he who has the host's lock does not wait for one who waits for that lock", function()
    -- Three ask at once while another host has the lease.  One gets the lock and asks again; meanwhile the next finds it taken.
    local policy = policy_of("host")
    local got
    local function load() return "value" end
    assert.equal("seen", cache:fetch("k", policy_of("cluster"), function()
      keep_lease()
      in_task(function() got = ask(fetch, db:open(), 3, policy, load)() end)
      return "seen"
    end))
    assert.same(ALL, got)
  end)

  it("after one with the host's lock was cancelled nobody waits for him who waits for it, though the lease stays", function()
    assert.same(ALL, (cancelled(policy_of("host"), cache, "lease_holder = 1, "))) -- another host's
  end)
end)

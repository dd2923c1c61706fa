-- A task that is cancelled while it loads: those who wait for it are not, and one of them goes on in its place.
local database = require "support.database"
local fpcache = require "fpcache"

describe("a task that is cancelled while it loads", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  --- Four tasks ask for a key; the first, which loads it, is cancelled when the others wait.  What each of the others got, how
  -- many loaded it, and the most at a time after the first one.
  local function cancelled(policy, several)
    local loads, at_once, most, got = 0, 0, 0, {}
    local function load()
      loads = loads + 1
      if loads == 1 then
        while true do
          local ok, err = fpcache.sleep(0.01)
          if not ok then return nil, err end
        end
      end
      at_once = at_once + 1
      most = math.max(most, at_once)
      fpcache.sleep(0.05)
      at_once = at_once - 1
      return "value"
    end
    local waiter = several or cache
    local function waits() return waiter:stats({ server = false }).policies.waits end
    local before, first = waits(), nil
    local all = fpcache.spawn(function()
      first = fpcache.spawn(function() return cache:fetch("k", policy, load) end)
      while loads == 0 do fpcache.sleep(0.001) end
      local others = {}
      for i = 1, 3 do
        others[i] = fpcache.spawn(function()
          local value, err = waiter:fetch("k", policy, load)
          got[i] = value or err
        end)
      end
      while waits() - before < 3 do fpcache.sleep(0.001) end
      db:sql("UPDATE cache SET lease_until = now() + interval '1 hour'") -- it does not end by itself
      fpcache.cancel(first)
      for i = 1, 3 do fpcache.await(others[i], 30) end
      return "over"
    end)
    assert.equal("over", (fpcache.await(all, 40)))
    assert.same({ nil, "interrupted: the task was cancelled", "loader" }, { fpcache.await(first) })
    return got, loads, most
  end

  it("leaves its place to one of those who wait, whatever the lock is", function()
    for _, lock in ipairs { "process", "host", "cluster" } do
      local got, loads, most = cancelled(fpcache.policy { ttl = 60, lock = lock, lock_timeout = 60 })
      assert.same({ { "value", "value", "value" }, 2, 1 }, { got, loads, most }, lock)
      if lock ~= "process" then assert.equal("value", (cache:get("k")), lock) end -- it may come before the lease is given back
      cache:delete("k")
    end
  end)

  it("leaves no lease for which other processes wait", function()
    local got, loads = cancelled(fpcache.policy { ttl = 60, lock_timeout = 60 }, db:open())
    assert.same({ { "value", "value", "value" }, 2 }, { got, loads })
  end)
end)

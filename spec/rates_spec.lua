-- rates_spec.lua -- rate limiters, counters and locks among several processes, and what each costs.
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"
local exact = require "support.exact"
local layers = require "support.layers"

local PROCESSES = 3

describe("among several processes", function()
  local db, cache

  setup(function() db = database.new() end)
  teardown(function() child.clean() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  -- Runs `body` in so many processes, which begin it together; the sum of what they return.
  local function sum(body)
    local folder = assert(core.system.mkdtemp("/tmp/fpcache-rates-"))
    finally(function() core.system.remove_tree(folder) end)
    for i = 1, PROCESSES do
      local what = child.command(([[
        local core = require "fpcache.core"
        local cache = assert(require("fpcache").new { connection_string = (...), feed = false })
        local gate = cache:counter("gate")
        gate:add()
        local deadline = core.system.now() + 30
        while gate:value() < %d do assert(core.system.now() < deadline) end
        local ok, answer = pcall(function() %s end)
        io.write(ok and "sum " or "failed ", tostring(answer), "\n")
        cache:close()]]):format(PROCESSES, body), { db:url_of() })
      what.log = ("%s/%d"):format(folder, i)
      assert(core.spawn(what))
    end
    local total = 0
    for i = 1, PROCESSES do
      local text
      database.eventually(function()
        local file = io.open(("%s/%d"):format(folder, i))
        text = file and file:read("*a") or ""
        if file then file:close() end
        return text:match("\n$")
      end, 60)
      total = total + assert(tonumber(text:match("^sum (%d+)\n$")), text)
    end
    return total
  end

  it("a limiter lets through no more than its limit, and no less", function()
    for _, kind in ipairs { "sliding", "fixed" } do
      assert.equal(40, sum(([[
        local limiter, count = cache:rate_limiter { limit = 40, window = "10h", kind = "%s" }, 0
        for _ = 1, 40 do
          local allowed, err = limiter:allow("all")
          assert(not err, err)
          if allowed then count = count + 1 end
        end
        return count]]):format(kind)), kind)
      db:sql("TRUNCATE cache")
    end
  end)

  it("a lock is held by one at a time, who may wait for it", function()
    assert(cache:set("inside", 0))
    assert.equal(PROCESSES * 15, sum [[
      local turns = 0
      for _ = 1, 15 do
        local others, err = cache:lock("job", "60s", function()
          local now = assert(cache:incr("inside"))
          assert(cache:decr("inside"))
          return now - 1
        end, { wait = 60 })
        assert(not err, err)
        assert(others == 0, "not alone")
        turns = turns + 1
      end
      return turns]])
    assert.equal(0, (cache:get("inside")))
    assert.equal("0", db:sql("SELECT count(*) FROM cache WHERE lease_until > now()"))
  end)

  it("a counter counts each once, and says so when what is there is none", function()
    local counter = cache:counter("n", { initial = 100 })
    assert.equal(PROCESSES * 50, sum [[
      local counter, sum = cache:counter("n", { initial = 100 }), 0
      for _ = 1, 50 do sum = sum + (assert(counter:add(2)) > 100 and 1 or 0) end
      return sum]])
    assert.equal(100 + PROCESSES * 100, (counter:value()))
    assert(cache:set("n", exact.int "9223372036854775807"))
    assert.is_true(exact.same(exact.int "9223372036854775807", (counter:value())))
    for _, other in ipairs { "text", "5", 1.5, true, { 1 } } do
      assert(cache:set("n", other))
      assert.same({ nil, "invalid: the stored value is no integer" }, { counter:value() })
      assert.same({ nil, "invalid: the stored value is no integer" }, { counter:add() })
    end
  end)

  it("a lock that was lost is not freed by who had it before", function()
    local other, third = db:open(), db:open()
    local hold
    assert.equal("late", (cache:lock("job", 5, function()
      db:age(6)
      hold = coroutine.wrap(function() return (other:lock("job", 60, function() return coroutine.yield() end)) end)
      hold()
      return "late"
    end)))
    assert.matches("^busy: ", select(2, third:lock("job", 60, error)))
    assert.equal("done", hold("done"))
    assert.equal(3, (third:lock("job", 60, function() return 3 end)))
  end)

  it("what a limiter counts is news for the near cache of its process at once", function()
    local here = layers.open(db, { max_staleness = 60, feed_interval = 20, use_cuckoo_filter = false })
    for _, kind in ipairs { "fixed", "sliding" } do
      local limiter = here:rate_limiter { limit = 1000, window = "1h", kind = kind, prefix = kind .. ":" }
      local last
      for _ = 1, 3 do
        assert.is_true((limiter:allow("ann")))
        local stored = db:sql(("SELECT convert_from(value, 'UTF8') FROM cache WHERE key = '%s:ann'"):format(kind))
        assert.not_equal(last, stored)
        assert.equal(tonumber(stored), tonumber(here:get(kind .. ":ann")))
        last = stored
        assert.is_truthy(database.eventually(function() return layers.source(here, kind .. ":ann") == "near" end))
      end
    end
  end)
end)

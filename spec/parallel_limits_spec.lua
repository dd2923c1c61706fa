-- Tasks in great numbers and at their ends: what there is room for, what is left behind, and who holds up whom.
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"

describe("tasks", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function() cache = db:open() end)
  after_each(function() db:close_all() end)

  it("that were cancelled and do not listen stop nobody else", function()
    local deaf = {
      function() return fpcache.sleep(0) end,
      function() return cache:get("k") end,
      function(other) return fpcache.await(other, 0.001) end,
    }
    for _, call in ipairs(deaf) do
      local other = fpcache.spawn(function()
        for _ = 1, 20 do assert(fpcache.sleep(0.001)) end
        return cache:set("k", 1)
      end)
      local give_up, ran = core.system.now() + 30, nil
      local task = fpcache.spawn(function()
        repeat call(other) until other.status == "done" or core.system.now() > give_up
        ran = other.status == "done"
        return select(2, fpcache.sleep(0))
      end)
      fpcache.step()
      fpcache.cancel(task)
      assert.is_true(fpcache.await(other))
      assert.same({ "interrupted: the task was cancelled" }, { fpcache.await(task) })
      assert.is_true(ran)
    end
  end)

  it("wait for room when too much is on its way", function()
    local tasks, began = {}, core.system.now()
    cache = db:open { timeout = 120 }
    assert(cache:set("k", 1))
    for i = 1, 10500 do tasks[i] = fpcache.spawn(function() return cache:get("k") end) end
    assert.is_true(fpcache.run())
    for i = 1, #tasks do assert.equal(1, (fpcache.await(tasks[i]))) end
    assert.is_true(core.system.now() - began < 60) -- nobody had to wait for the end of his time
  end)

  it("do not hold up the end of a program", function()
    local began = core.system.now()
    local result = child.run([[
      local fpcache = require "fpcache"
      local cache = assert(fpcache.new { connection_string = ..., feed = false })
      for i = 1, 500 do fpcache.spawn(function() cache:set("end" .. i, i) end) end
      fpcache.spawn(function() cache:transaction(function(tx) fpcache.sleep(30) end) end)
      fpcache.step()
      print("end")]], { db:url_of() })
    assert.equal("end\n", result.output)
    assert.equal(0, result.status)
    assert.is_true(core.system.now() - began < 20) -- the task would sleep for 30 s
  end)

  it("are as many at once as jobs, and no more", function()
    local running, most, items = 0, 0, {}
    for i = 1, 50 do items[i] = i end
    assert(fpcache.parallel { jobs = 5, each = items, run = function()
      running = running + 1
      most = math.max(most, running)
      fpcache.sleep(0)
      running = running - 1
    end })
    assert.equal(5, most)
  end)

  it("leave nothing behind", function()
    local left = setmetatable({}, { __mode = "k" })
    for i = 1, 1000 do left[fpcache.spawn(function() return cache:get("k" .. i) end)] = true end
    assert.is_true(fpcache.run())
    collectgarbage()
    collectgarbage()
    local count = 0
    for _ in pairs(left) do count = count + 1 end
    assert.is_true(count < 10, count .. " of 1000 are left") -- some may lie in a register
  end)

  it("have requests with small numbers, which are used again", function()
    local queue, pool = assert(core.completions(1000)), cache.pool
    local statement = core.statement("SELECT 1", "", true)
    local function submit() return assert(pool:submit(queue, statement, 30)) end
    local function take()
      pool:kick()
      local id = queue:next()
      while not id do
        assert(queue:wait(30))
        id = queue:next()
      end
      return id
    end
    for round = 1, 3 do
      local seen = {}
      for _ = 1, 100 do seen[submit()] = true end
      for id = 1, 100 do assert.is_true(seen[id], round .. ": " .. id) end
      for _ = 1, 98 do seen[take()] = nil end
      local left = assert(next(seen))
      queue:abandon(left)
      assert.has_error(function() queue:abandon(left) end)
      assert.equal(left, submit()) -- what was abandoned does not come under its number
      assert.not_equal(take(), take())
    end
    assert.has_error(function() queue:abandon(0) end)
    assert.has_error(function() queue:abandon(129) end)
    assert.is_nil(queue:next())
    queue:close()
  end)
end)

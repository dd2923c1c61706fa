-- Tasks: cache calls that yield inside coroutines, and the same calls outside.
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local threads = require "support.threads"

describe("tasks", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function() cache = db:open() end)
  after_each(function() db:close_all() end)

  it("give back what their functions return", function()
    assert(cache:set("k", "v"))
    local task = fpcache.spawn(function(a, b) return cache:get("k"), a, b end, nil, 2)
    assert.same({ "v", nil, 2 }, { fpcache.await(task) })
    assert.equal("v", (fpcache.await(task))) -- again
    assert.equal("done", task.status)
  end)

  it("have many calls on their way at once, over few connections", function()
    local results, errors = fpcache.parallel {
      jobs = 64,
      each = (function() local i = 0; return function() i = i + 1; return i <= 2000 and i or nil end end)(),
      run = function(i)
        assert(cache:set("n" .. i, { i = i }))
        return cache:get("n" .. i).i
      end,
    }
    assert.is_nil(errors)
    assert.equal(2000, results.n)
    for i = 1, 2000 do assert.equal(i, results[i]) end
    local stats = cache:stats().pipeline
    assert.equal(4000, stats.finished)
    assert.is_true(stats.opened <= 3, stats.opened)
    assert.is_true(stats.groups < 4000, stats.groups)
    assert.is_true(stats.merged > 0, stats.merged)
    assert.equal(1, cache:stats().pool.opened)
  end)

  it("of all caches of a process share one I/O thread", function()
    local function there_is_one()
      return database.eventually(function() return threads.count(core.system.pid(), "fpcache-io") == 1 end)
    end
    local caches = { cache }
    for i = 2, 5 do caches[i] = db:open { namespace = "n" .. i } end
    local function ask_all(from)
      local results, errors = fpcache.parallel {
        each = { from, 2, 3, 4, 5 },
        run = function(i)
          assert(caches[i]:set("k", i))
          return caches[i]:get("k")
        end,
      }
      assert.is_nil(errors)
      assert.same({ from, 2, 3, 4, 5, n = 5 }, results)
    end
    ask_all(1)
    assert.is_truthy(there_is_one())
    caches[1]:close()
    ask_all(2)
    assert.is_truthy(there_is_one())
  end)

  it("have every call of a cache", function()
    local task = fpcache.spawn(function()
      assert.is_true(cache:set("a", 1, 60))
      assert.equal(3, cache:incr("a", 2))
      assert.equal(3, cache:entry("a").value)
      assert.is_true(cache:ttl("a") > 50)
      assert.is_true(cache:expire("a", 600))
      assert.is_true(cache:exists("a"))
      assert.equal(3, cache:get_set("a", "x"))
      assert.is_false(cache:add("a", 1))
      assert.is_true(cache:replace("a", 2))
      assert.equal(2, cache:get_delete("a"))
      assert.is_false(cache:delete("a"))
      assert.equal(3, cache:set_many({ x = 1, y = { 2 }, z = false }))
      assert.same({ x = 1, y = { 2 }, z = false }, cache:get_many { "x", "y", "z", "nothing" })
      local keys = {}
      for key in cache:scan { prefix = "" } do keys[#keys + 1] = key end
      assert.is_true(#keys >= 3)
      assert.equal(2, cache:delete_many { "x", "y" })
      assert.is_true(cache:ping())
      local ok = cache:transaction(function(tx)
        assert(tx:set("t", 1))
        return cache:get("t") == nil and tx:get("t") == 1
      end)
      assert.is_true(ok)
      assert.is_true(cache:clear() >= 2)
      return "all"
    end)
    assert.equal("all", fpcache.await(task))
    assert.is_true(cache:stats().pipeline.finished > 15)
  end)

  it("read their writes, in whatever order they come", function()
    -- a model of 40 keys, each owned by one task at a time: what a task wrote last is what it reads
    local seed = 42
    local function random(n)
      seed = seed * 16807 % 2147483647
      return seed % n + 1
    end
    local near = db:open { feed = true, max_staleness = 0.5, feed_interval = 0.02 }
    assert(near:wait_ready(20))
    local wrong = {}
    fpcache.parallel {
      jobs = 20, each = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20 },
      run = function(owner)
        local model = {}
        for _ = 1, 60 do
          local key, act = ("o%d:%d"):format(owner, random(4)), random(5)
          if act == 1 then
            model[key] = random(1000)
            assert(near:set(key, model[key]))
          elseif act == 2 then
            assert(near:delete(key) ~= nil)
            model[key] = nil
          else
            local value, err = near:get(key)
            if err or value ~= model[key] then wrong[#wrong + 1] = ("%s: %s, %s"):format(key, value, model[key]) end
          end
        end
      end,
    }
    assert.same({}, wrong)
  end)

  it("keep errors as values, each to its own", function()
    local results, errors = fpcache.parallel {
      jobs = 16, each = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 },
      run = function(i)
        if i == 3 then error("broken") end
        if i == 4 then error({ code = 4 }) end
        if i == 5 then return cache:get("") end
        if i == 6 then return cache:incr("text") end
        assert(cache:set("text", "no number"))
        return i
      end,
    }
    for _, i in ipairs { 1, 2, 7, 8, 9, 10 } do assert.equal(i, results[i]) end
    assert.equal(10, results.n)
    assert.matches("^raised: .*broken", errors[3])
    assert.matches("^raised: table", errors[4])
    assert.matches("^invalid: a key must not be empty", errors[5])
    assert.matches("^invalid: ", errors[6])
    local value, err = fpcache.await(fpcache.spawn(error, "words", 0))
    assert.is_nil(value)
    assert.equal("raised: words", err)
  end)

  it("can wait for each other and for time", function()
    local first = fpcache.spawn(function() fpcache.sleep(0.02); return 1 end)
    local second = fpcache.spawn(function() return 1 + fpcache.await(first) end)
    assert.equal(2, fpcache.await(second))
    local slow = fpcache.spawn(function() return fpcache.sleep(30) end)
    assert.same({ nil, "timeout: the task is not done yet" }, { fpcache.await(slow, 0.02) })
    local impatient = fpcache.spawn(function() return fpcache.await(slow, 0.02) end)
    assert.same({ nil, "timeout: the task is not done yet" }, { fpcache.await(impatient) })
    fpcache.cancel(slow)
    assert.same({ nil, "interrupted: the task was cancelled" }, { fpcache.await(slow) })
    local lonely
    lonely = fpcache.spawn(function() return fpcache.await(lonely) end)
    assert.same({ nil, "invalid: a task cannot wait for itself" }, { fpcache.await(lonely) })
    local a, b
    a = fpcache.spawn(function() return fpcache.await(b) end)
    b = fpcache.spawn(function() return fpcache.await(a) end)
    assert.same({ nil, "invalid: the task waits for something that cannot come" }, { fpcache.await(a) })
    fpcache.cancel(a)
    assert.same({ nil, "interrupted: the task was cancelled" }, { fpcache.await(b) })
    assert.is_true(fpcache.run())
  end)

  it("are cancelled in the midst of a call, and the others go on", function()
    local locked = db:open { timeout = 20 }
    local outcome
    local ok = locked:transaction(function(tx)
      assert(tx:set("held", 1))
      local waiting = fpcache.spawn(function()
        local _, err = cache:set("held", 2) -- waits for the lock
        local _, next_err = cache:get("held")
        return err, next_err
      end)
      local other = fpcache.spawn(function() return cache:get("other") end)
      fpcache.await(other)
      fpcache.cancel(waiting)
      outcome = { fpcache.await(waiting) }
      return true
    end)
    assert.is_true(ok)
    assert.same({ "interrupted: the task was cancelled", "interrupted: the task was cancelled" }, outcome)
  end)

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
      local calls = 0
      local task = fpcache.spawn(function()
        repeat
          calls = calls + 1
          call(other)
        until other.status == "done" or calls > 1e6
        return select(2, fpcache.sleep(0))
      end)
      fpcache.step()
      fpcache.cancel(task)
      assert.is_true(fpcache.await(other))
      assert.same({ "interrupted: the task was cancelled" }, { fpcache.await(task) })
    end
  end)

  it("time out one by one", function()
    local quick = db:open { timeout = 1 }
    local locked = db:open()
    locked:transaction(function(tx)
      assert(tx:set("held", 1))
      local task = fpcache.spawn(function() return quick:set("held", 2) end)
      local _, err = fpcache.await(task)
      assert.matches("^timeout: ", err)
    end)
    assert.is_true(fpcache.await(fpcache.spawn(function() return quick:set("held", 3) end)))
  end)

  it("block where Lua cannot yield, and still answer right", function()
    assert(cache:set("k", 7))
    local task = fpcache.spawn(function()
      local inner = coroutine.wrap(function() coroutine.yield(cache:get("k")) end)
      local sorted = { 2, 1 }
      table.sort(sorted, function(a, b) return cache:get("k") == 7 and a < b end)
      return inner(), sorted[1]
    end)
    assert.same({ 7, 1 }, { fpcache.await(task) })
  end)

  it("may yield by themselves", function()
    local order = {}
    local one = fpcache.spawn(function() order[#order + 1] = 1; coroutine.yield(); order[#order + 1] = 3 end)
    local two = fpcache.spawn(function() order[#order + 1] = 2 end)
    fpcache.await(one)
    fpcache.await(two)
    assert.same({ 1, 2, 3 }, order)
  end)

  it("wait for room when too much is on its way", function()
    local tasks = {}
    assert(cache:set("k", 1))
    for i = 1, 10500 do tasks[i] = fpcache.spawn(function() return cache:get("k") end) end
    assert.is_true(fpcache.run())
    for i = 1, #tasks do assert.equal(1, (fpcache.await(tasks[i]))) end
  end)

  it("learn that the cache was closed", function()
    local locked = db:open()
    cache = db:open { timeout = 60 }
    local err, ignored -- luacheck: ignore ignored
    locked:transaction(function(tx)
      assert(tx:set("held", 1))
      local task = fpcache.spawn(function() return cache:set("held", 2) end)
      assert.is_truthy(database.eventually(function() -- it was sent, and waits
        fpcache.step()
        return db:sql([[SELECT count(*) FROM pg_stat_activity
          WHERE wait_event_type = 'Lock' AND datname = current_database()]]) == "1"
      end))
      local began = core.system.now()
      cache:close()
      assert.is_true(core.system.now() - began < 10) -- the call would wait for a minute
      ignored, err = fpcache.await(task)
    end)
    assert.matches("^unknown: ", err)
    ignored, err = fpcache.await(fpcache.spawn(function() return cache:get("k") end))
    assert.equal("closed: the cache was closed", err)
  end)

  it("take items from an iterator that waits itself", function()
    for i = 1, 30 do assert(cache:set("s" .. i, i)) end
    local next_key, state, key = cache:scan { prefix = "s" }
    local results = assert(fpcache.parallel {
      jobs = 8, each = function() key = next_key(state, key); return key end,
      run = function(name) return cache:get(name) end,
    })
    assert.equal(30, results.n)
    local _, err = fpcache.parallel { each = function() error("no more", 0) end, run = print }
    assert.equal("raised: no more", err)
  end)

  it("open sealed values, merged ones and those of long keys too", function()
    local sealed = db:open { encrypt = { keys = { k = ("a"):rep(32) } }, compress = true }
    local long = ("l"):rep(3000)
    local results, errors = fpcache.parallel {
      jobs = 64, each = (function() local i = 0; return function() i = i + 1; return i <= 200 and i or nil end end)(),
      run = function(i)
        local key = i % 10 == 0 and long .. i or "sealed" .. i
        assert(sealed:set(key, { text = ("x"):rep(i * 50) }))
        local value = assert(sealed:get(key))
        return #value.text == i * 50 and #assert(sealed:get_many { key })[key].text == i * 50
      end,
    }
    assert.is_nil(errors)
    for i = 1, 200 do assert.is_true(results[i]) end
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

  it("let policies wait without blocking", function()
    local loads, ticks = 0, 0
    local policy = fpcache.policy { ttl = 60 }
    local tasks = {}
    for i = 1, 20 do
      tasks[i] = fpcache.spawn(function()
        return cache:fetch("slow", policy, function()
          loads = loads + 1
          fpcache.sleep(0.05)
          return "loaded"
        end)
      end)
    end
    local ticker = fpcache.spawn(function()
      for _ = 1, 1000 do -- until the loader has begun, however busy the machine is
        fpcache.sleep(0.005)
        ticks = loads
        if ticks > 0 then break end
      end
    end)
    for i = 1, 20 do assert.equal("loaded", (fpcache.await(tasks[i]))) end
    fpcache.await(ticker)
    assert.equal(1, loads)
    assert.equal(1, ticks)
  end)

  it("may wait inside a codec: others take their answers meanwhile", function()
    local slow = db:open { codec = {
      encode = function(t) return t.text end,
      decode = function(text)
        fpcache.sleep(0.001) -- LuaJIT cannot yield there and says so
        return { text = text }
      end,
    } }
    for i = 1, 20 do assert(slow:set("k" .. i, { text = "text " .. i })) end
    local tasks = {}
    for i = 1, 20 do tasks[i] = fpcache.spawn(function() return slow:get("k" .. i) end) end
    for i = 1, 20 do
      local value, err = fpcache.await(tasks[i])
      if value then
        assert.equal("text " .. i, value.text)
      else
        assert.matches("^invalid: codec: .*yield", err)
      end
    end
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

  it("refuse what is no task, no function, no list", function()
    assert.has_error(function() fpcache.spawn(1) end, "bad fn (function expected, got number)")
    assert.has_error(function() fpcache.await({}) end, "bad task (what fpcache.spawn returned is expected, got table)")
    assert.has_error(function() fpcache.cancel("x") end, "bad task (what fpcache.spawn returned is expected, got string)")
    assert.has_error(function() fpcache.sleep("x") end, "bad seconds (number expected, got string)")
    assert.has_error(function() fpcache.parallel { each = {} } end, "options.run is missing (a function)")
    assert.has_error(function() fpcache.parallel { run = print } end, "options.each is missing (a list or an iterator)")
  end)

  it("can be driven from outside, by the descriptor", function()
    assert(cache:set("k", 5))
    assert.is_nil((fpcache.step()))
    local task = fpcache.spawn(function() fpcache.sleep(0.5); return cache:get("k") end)
    local pause = fpcache.step()
    assert.is_true(pause > 0 and pause <= 0.5)
    while task.status ~= "done" do fpcache.step(0.05) end
    assert.equal(5, (fpcache.await(task)))
    assert.is_true(fpcache.completions_fd() > 2)
  end)
end)

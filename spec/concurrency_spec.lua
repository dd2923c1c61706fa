-- concurrency_spec.lua -- several processes at once: nothing is lost, nothing happens twice.
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"

local PROCESSES = 4

describe("several processes at once", function()
  local db, cache

  setup(function() db = database.new() end)
  teardown(function() child.clean() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  -- Runs `body` PROCESSES times at once; all start when the last one is ready.  What each printed.
  local function run(body)
    local folder = assert(core.system.mkdtemp("/tmp/fpcache-many-"))
    finally(function() core.system.remove_tree(folder) end)
    for i = 1, PROCESSES do
      local what = child.command([[
        local url, me, count = ...
        local core = require "fpcache.core"
        local cache = assert(require("fpcache").new { connection_string = url })
        assert(cache:incr("ready"))
        local deadline = core.system.now() + 30
        while cache:get("ready") < tonumber(count) do assert(core.system.now() < deadline) end
        local function work() ]] .. body .. [[ end
        local ok, answer = pcall(work)
        io.write(tostring(answer), "\n", ok and "done" or "failed", "\n")
        cache:close()]], { db:url_of(), tostring(i), tostring(PROCESSES) })
      what.log = folder .. "/" .. i
      assert(core.spawn(what))
    end
    local answers = {}
    for i = 1, PROCESSES do
      local text
      assert.is_truthy(database.eventually(function()
        local file = io.open(folder .. "/" .. i)
        text = file and file:read("*a") or ""
        if file then file:close() end
        return text:match("done\n$") or text:match("failed\n$")
      end, 60), "process " .. i .. " ends: " .. tostring(text))
      assert.matches("done\n$", text)
      answers[i] = text:match("^(.*)\ndone\n$")
    end
    return answers
  end

  it("incr loses no count", function()
    run [[ for _ = 1, 250 do assert(cache:incr("n", 3)) end ]]
    assert.equal(PROCESSES * 250 * 3, cache:get("n"))
  end)

  it("cas loses no update", function()
    assert(cache:set("n", { count = 0 }))
    run [[ for _ = 1, 50 do
      repeat
        local entry = assert(cache:entry("n"))
        local stored, err = cache:cas("n", entry.version, { count = entry.value.count + 1 })
        assert(not err, err)
      until stored
    end ]]
    assert.same({ count = PROCESSES * 50 }, cache:get("n"))
  end)

  it("add has one winner for each key", function()
    local answers = run [[
      local won = 0
      for i = 1, 300 do if assert(cache:add("key" .. i, me) ~= nil) and cache:get("key" .. i) == me then won = won + 1 end end
      return won ]]
    local sum = 0
    for _, won in ipairs(answers) do sum = sum + tonumber(won) end
    assert.equal(300, sum)
  end)

  it("get_set hands every value to exactly one", function()
    local answers = run [[
      local seen = {}
      for i = 1, 200 do
        local old, err = cache:get_set("slot", me .. ":" .. i)
        assert(not err, err)
        seen[#seen + 1] = old
      end
      return table.concat(seen, " ") ]]
    local seen, count = {}, 0
    for _, answer in ipairs(answers) do
      for value in answer:gmatch("%S+") do
        assert.is_nil(seen[value], value .. " was handed out twice")
        seen[value] = true
        count = count + 1
      end
    end
    assert.equal(PROCESSES * 200 - 1, count, "all but the first call got a value, all but the last value were got")
    assert.is_nil(seen[cache:get("slot")])
  end)

  it("get_set and get_delete together lose nothing", function()
    local answers = run [[
      local seen = {}
      for i = 1, 150 do
        local old, err = cache:get_set("slot", me .. ":" .. i)
        assert(not err, err)
        seen[#seen + 1] = old
        if i % 3 == 0 then seen[#seen + 1] = cache:get_delete("slot") end
      end
      return table.concat(seen, " ") ]]
    local seen, count = {}, 0
    for _, answer in ipairs(answers) do
      for value in answer:gmatch("%S+") do
        assert.is_nil(seen[value])
        seen[value] = true
        count = count + 1
      end
    end
    assert.equal(PROCESSES * 150 - (cache:exists("slot") and 1 or 0), count)
  end)

  it("set_many of the same keys in other orders does not deadlock", function()
    run [[ for round = 1, 15 do
      local i = 0
      assert(cache:set_many(function()
        i = i + 1
        if i <= 400 then return "key" .. (me * i * 7 + round) % 400, me .. ":" .. round end
      end, { batch = 1000 }))
      local keys = {}
      for n = 1, 50 do keys[n] = "key" .. (me * n * 11 + round) % 400 end
      assert(cache:delete_many(keys))
    end ]]
    assert.is_true(cache:count() <= 401)
  end)

  it("a set_many is seen whole or not at all", function()
    assert(cache:set_many { a = 0, b = 0 })
    run [[
      for round = 1, 100 do
        if tonumber(me) <= 2 then
          assert(cache:set_many { a = me .. round, b = me .. round })
        else
          local values = assert(cache:get_many { "a", "b" })
          assert(values.a == values.b, "half a write was seen")
        end
      end ]]
  end)

  it("cleanup by all at once deletes each row once", function()
    db:sql([[INSERT INTO cache (user_id, key, value, expires_at)
      SELECT 'app', convert_to('old' || i, 'UTF8'), '\x', now() - interval '1 s' FROM generate_series(1, 20000) AS i]])
    local answers = run [[ return assert(cache:cleanup()) ]]
    local sum = 0
    for _, n in ipairs(answers) do sum = sum + tonumber(n) end
    sum = sum + cache:cleanup()
    assert.equal(20000, sum)
    assert.equal("1", db:sql("SELECT count(*) FROM cache"))
  end)
end)

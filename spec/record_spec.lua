-- record_spec.lua -- traces are recorded: with or without their keys, by one process or several.
local core = require "fpcache.core"
local database = require "support.database"
local replay = require "fpcache.replay"
local traces = require "support.traces"

local system = core.system
local read = traces.read

describe("traces are recorded", function()
  local db, dir

  setup(function()
    db = database.new()
    dir = assert(system.mkdtemp("/tmp/fpcache-trace-"))
  end)
  teardown(function() assert(system.remove_tree(dir)) end)
  after_each(function() db:close_all() end)

  it("with keys that nobody can tell, or as they are", function()
    local path = dir .. "/recorded"
    local cache = db:open { record = path, namespace = "n" }
    assert(cache:set("secret key", "12345", 60))
    cache:get("secret key")
    cache:get("none")
    assert(cache:set_many({ a = "x", b = { 1 } }, { ttl = { a = 5 } }))
    cache:get_many { "a", "zz" }
    cache:fetch("f", 60, function() return "loaded" end)
    cache:delete("a")
    cache:exists("b")
    cache:add("b", 1)
    cache:close()
    local list = read(path)
    assert.equal(11 - 1, #list) -- what was refused is passed over
    assert.equal("set", list[1][2])
    assert.matches("^%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x$", list[1][3])
    assert.same({ list[1][3], 10, 5, 60 }, { list[2][3], list[1][4], list[1][5], list[1][6] })
    assert.equal(384, system.stat(path).mode % 512)
    local file = assert(io.open(path))
    local text = file:read("*a")
    file:close()
    assert.is_nil(text:find("secret", 1, true))
    -- the hash is an HMAC-SHA-256
    assert.equal("f7bc83f430538424", core.disguise_key("key", "The quick brown fox jumps over the lazy dog"))
    cache = db:open { record = { file = dir .. "/plain-%p", keys = true }, namespace = "n" }
    cache:get("a,b\n%")
    cache:close()
    assert.equal("n/a%2cb%0a%25", read(dir .. "/plain-" .. system.pid())[1][3])
  end)

  it("with walks, clears, tags, and what an iterator gives", function()
    for _, plain in ipairs { false, true } do
      local path = dir .. "/whole" .. tostring(plain)
      local cache = db:open { record = { file = path, keys = plain }, namespace = "n" }
      assert(cache:clear())
      local i = 0
      assert.equal(3, cache:set_many(function()
        i = i + 1
        if i <= 3 then return "k" .. i, ("v"):rep(i), i == 2 and 9 or nil end
      end, { ttl = "1m", tags = { "a b", "c" } }))
      local seen = {}
      for key in cache:scan { page = 2 } do seen[#seen + 1] = key end
      assert.same({ "k1", "k2", "k3" }, seen)
      assert.equal(3, cache:set_many(cache:scan {}))
      assert.equal(3, #cache:keys())
      assert.equal(3, cache:count())
      assert(cache:transaction(function(tx)
        for _ in tx:scan {} do i = i + 1 end
        return true
      end))
      assert(cache:set("t", "x", { ttl = "2s", tags = "c" }))
      assert(cache:invalidate_tag("c"))
      assert(cache:clear { all = true })
      local stats = cache:stats().events
      cache:close()
      local list, ops = read(path), {}
      for at, one in ipairs(list) do
        assert.is_table(one, tostring(one))
        ops[at] = one[2]
      end
      assert.equal("clear set set set scan scan scan set set set scan scan scan set tag clear", table.concat(ops, " "))
      assert.same({ 3, 60, 9, 60 }, { list[2][5] + list[3][5], list[2][6], list[3][6], list[4][6] })
      assert.equal(2, #list[2][7].tags)
      assert.equal(list[14][7].tags[1], list[2][7].tags[2])
      assert.equal(list[15][7].tags[1], list[2][7].tags[2])
      assert.equal(2, list[14][6])
      assert.same({ 2, 1, 3 }, { list[5][7].rows, list[6][7].rows, list[11][7].rows })
      assert.equal(plain and "n" or 8, plain and list[1][7].space or #list[1][7].space)
      assert.is_true(list[16][7].all)
      assert.is_nil(list[1][7].all)
      assert.equal(0, stats.errors)
      assert.equal(2, assert(replay.run { traces = { path } }).settings[1].clears - 1)
    end
  end)

  it("whatever goes wrong in the calls", function()
    local cache = db:open { record = dir .. "/wrong" }
    assert.has_error(function() cache:set("k", "v", { tags = 7 }) end)
    assert.has_error(function() cache:scan { page = "x" } end)
    assert.has_error(function() cache:set_many(function() error("broken") end) end)
    assert.is_nil((cache:set("k", "v", { tags = { ("x"):rep(10000) } })))
    assert(cache:cas("k", 1, 99) ~= nil)
    local scan = assert(cache:scan {})
    cache:close()
    assert.is_nil((scan:next()))
    for _, one in ipairs(read(dir .. "/wrong")) do assert.is_table(one) end
  end)

  it("by several processes into one file, the ends of all of them", function()
    local child = require "support.child"
    local path = dir .. "/together"
    local what = child.command([[
      local cache = assert(require("fpcache").new { connection_string = ..., feed = false })
      for i = 1, 2000 do cache:get("k" .. i % 300) end
      os.exit(0)]], { db:url_of() }) -- without close
    local argv = { "/bin/sh", "-c", '"$0" "$@" & "$0" "$@" & "$0" "$@" & wait' }
    for _, word in ipairs(what.argv) do argv[#argv + 1] = word end
    for _, line in ipairs { "FPCACHE_RECORD=" .. path, "FPCACHE_RECORD_SECRET=same" } do what.env[#what.env + 1] = line end
    local result = assert(core.run { argv = argv, env = what.env, timeout = 60 })
    assert.equal("", result.output)
    local count, keys = 0, {}
    for _, record in ipairs(read(path)) do
      assert.is_table(record)
      count, keys[record[3]] = count + 1, true
    end
    local distinct = 0
    for _ in pairs(keys) do distinct = distinct + 1 end
    assert.equal(6000, count)
    assert.equal(300, distinct)
    child.clean()
  end)

  it("up to a size, and by a sample of the keys", function()
    local cache = db:open { record = { file = dir .. "/short", max_bytes = 2000 } }
    for i = 1, 100 do cache:get("k" .. i) end
    local stats = cache:stats().events.record
    cache:close()
    assert.is_true(stats.dropped > 0 and stats.lines > 0)
    assert.is_true(system.stat(dir .. "/short").size <= 2000)
    cache = db:open { record = { file = dir .. "/part", sample = 0.25 } }
    for i = 1, 400 do cache:get("k" .. i) end
    cache:close()
    local lines = #read(dir .. "/part")
    assert.is_true(lines > 50 and lines < 150, tostring(lines))
    local refused, err = require("fpcache").new { connection_string = db:url_of(), record = "/nowhere/at/all" }
    assert.is_nil(refused)
    assert.matches("^invalid: cannot record into ", err)
    cache = db:open { record = "/dev/full" }
    for _ = 1, 200 do cache:get("k") end
    assert.is_string(cache:stats().events.record.last_error)
  end)

  it("a full disk is noticed, also by what LuaJIT has compiled", function()
    local recorder = require "fpcache.observe.recorder"
    local cache = db:open()
    local function open(path) return assert(recorder.open(path, cache)) end
    for i = 1, 100 do
      local good = open(dir .. "/good" .. i)
      for _ = 1, 30 do good:flush() end
      good.file:close()
    end
    for _ = 1, 20 do
      local full = open("/dev/full")
      assert.is_string(full.last_error)
      full.file:close()
    end
  end)

  it("and say of the same settings what the application had", function()
    local cache = db:open { record = dir .. "/true", feed = true, feed_interval = 0.02, near_size = 50, near_ttl = 3600 }
    local items, state = {}, 7
    for i = 1, 300 do items["k" .. i] = ("v"):rep(i) end
    assert(cache:set_many(items))
    assert(cache:wait_ready(20))
    for _ = 1, 3000 do
      state = (state * 16807) % 2147483647
      cache:get("k" .. math.floor((state / 2147483647) ^ 3 * 400)) -- some are not there
    end
    local stats = cache:stats()
    cache:close()
    local result = assert(replay.run {
      traces = { dir .. "/true" }, settings = { { near_entries = 50, near_ttl = 3600 } },
    }).settings[1]
    assert.equal(stats.near.hits, result.near_hits)
    assert.equal(stats.filter.absent, result.filter_absent)
    assert.equal(stats.near.evictions, result.near_evictions)
  end)
end)

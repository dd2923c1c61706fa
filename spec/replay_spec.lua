-- replay_spec.lua -- traces: read in every format, played.
local core = require "fpcache.core"
local files = require "support.files"
local replay = require "fpcache.replay"
local trace = require "fpcache.replay.trace"
local traces = require "support.traces"

local system = core.system
local read = traces.read

describe("traces", function()
  local dir

  setup(function() dir = assert(system.mkdtemp("/tmp/fpcache-trace-")) end)
  teardown(function() assert(system.remove_tree(dir)) end)

  local function write(name, text) return files.write(dir .. "/" .. name, text) end

  local function u32(n)
    return string.char(n % 256, math.floor(n / 256) % 256, math.floor(n / 65536) % 256, math.floor(n / 16777216) % 256)
  end

  local function oracle(time, object, size) return u32(time) .. u32(object) .. u32(0) .. u32(size) .. ("\255"):rep(8) end

  describe("are read", function()
    it("in Twitter's format, whose keys may hold commas", function()
      local list, format = read(write("twitter",
        "0,abc,3,512,7,get,0\n5,a,b,c,5,0,7,gets,0\n6,abc,3,99,1,set,3600\n7,x,1,,1,delete,0\n"))
      assert.equal("twitter", format)
      assert.same({ 0, "get", "abc", 3, 512 }, list[1])
      assert.same({ 5, "get", "a,b,c", 5, nil, nil, { none = true } }, list[2])
      assert.same({ 6, "set", "abc", 3, 99, 3600 }, list[3])
      assert.equal("delete", list[4][2])
    end)

    it("in libCacheSim's CSV, with a header, other columns and line ends", function()
      local list, format = read(write("a.csv", "time, object, size\r\n1, x, 10\r\n2,y,20\r\n"))
      assert.equal("csv", format)
      assert.same({ { 1, "get", "x", 1, 10 }, { 2, "get", "y", 1, 20 } }, list)
      list = read(write("b.csv", "x,9,1.5,77\n"), { columns = assert(trace.columns("key=1,time=3,size=4")) })
      assert.same({ { 1.5, "get", "x", 1, 77 } }, list)
      for _, text in ipairs { "", "key=1", "time=1,key=x", "rubbish" } do
        local columns, err = trace.columns(text)
        assert.is_nil(columns)
        assert.matches("^invalid: ", err)
      end
    end)

    it("as oracleGeneral", function()
      local list, format = read(write("t.oracleGeneral", oracle(3, 1, 4096) .. oracle(4294967295, 300, 1) .. "torn"))
      assert.equal("oracle", format)
      assert.equal(3, #list)
      assert.same({ 3, "get", "\1\0\0\0\0\0\0\0", 8, 4096 }, list[1])
      assert.same({ 4294967295, "get", "\44\1\0\0\0\0\0\0", 8, 1 }, list[2])
      assert.matches("within a record", list[3])
    end)

    it("in our own, writers mixed, and none of a later version", function()
      local head = "#fpcache-trace 1 keys=hashed sample=0.5\n"
      local path = write("ours", head .. "10.5,get,aa,4,9,,hit db,80\n" .. head .. "11,set,bb,4,7,60,refused,80\n"
        .. "12,set,bb,4,7,60,done,80\n13,fetch,cc,1,,,loaded,9\n#what\nnonsense\n14,delete,aa,4,,,done,1\n")
      local list, format = read(path)
      assert.equal("fpcache", format)
      assert.same({ 10.5, "get", "aa", 4, 9 }, list[1])
      assert.same({ 12, "set", "bb", 4, 7, 60 }, list[2]) -- what was refused changed nothing
      assert.equal("fetch", list[3][2])
      assert.is_string(list[4])
      assert.is_string(list[5])
      assert.equal("delete", list[6][2])
      assert.equal(0.5, assert(trace.open(path)).sample)
      local report, err = replay.run { traces = { write("later", "#fpcache-trace 2 x\n") } }
      assert.is_nil(report)
      assert.matches("version 2", err)
    end)

    it("whatever their bytes are: an answer, never an error, never more memory than a piece", function()
      local state = 12345
      local function random(n)
        state = (state * 1103515245 + 12345) % 2147483648
        return math.floor(state / 65536) % n
      end
      local seeds = { "0,abc,3,512,7,get,0\n", "1,x,10\n", oracle(3, 1, 4096),
        "#fpcache-trace 1 keys=hashed sample=1\n10,get,a,1,1,,hit,1\n" }
      local formats = { "twitter", "csv", "oracle", "fpcache" }
      for round = 1, 400 do
        local which = round % 4 + 1
        local text, bytes = seeds[which]:rep(1 + random(20)), {}
        for i = 1, #text do bytes[i] = random(12) == 0 and string.char(random(256)) or text:sub(i, i) end
        local path = write("fuzz", table.concat(bytes):sub(1, random(#text) + 1))
        local ok, report = pcall(replay.run, { traces = { path }, format = formats[which], max_errors = 1000 })
        assert.is_true(ok, tostring(report))
      end
      local report, err = replay.run { traces = { write("endless", ("x"):rep(3 * 1024 * 1024)) }, format = "csv" }
      assert.is_nil(report)
      assert.matches("^invalid: a record of .* has more than 1048576 bytes", err)
    end)

    it("or refused with a reason", function()
      for path, words in pairs { [dir .. "/nowhere"] = "cannot read", [write("words", "hello\n")] = "what format",
        [write("empty", "")] = "what format", [dir] = "" } do
        local report, err = replay.run { traces = { path } }
        assert.is_nil(report)
        assert.matches("^invalid: .*" .. words, err)
      end
      local report, err = replay.run { traces = { write("bad.csv", "1,x,1\n" .. ("x,\n"):rep(5)) }, max_errors = 3 }
      assert.is_nil(report)
      assert.matches("record 5: .*more than 3 bad", err)
    end)
  end)

  describe("are played", function()
    local function only(text, setting, more)
      local opts = { traces = { write("played", text) }, settings = { setting } }
      for name, value in pairs(more or {}) do opts[name] = value end
      return assert(replay.run(opts)).settings[1]
    end

    it("with the near cache, the filter, TTLs and deletes counted exactly", function()
      local text = "0,a,1,5,1,get,0\n0,a,1,5,1,set,10\n1,a,1,5,1,get,0\n2,a,1,5,1,get,0\n11,a,1,5,1,get,0\n12,a,1,5,1,set,0\n"
        .. "13,a,1,5,1,get,0\n80,a,1,5,1,get,0\n81,a,1,0,1,delete,0\n82,a,1,5,1,get,0\n"
      local result = only(text, { near_entries = 10, filter = true })
      assert.equal(7, result.reads)
      assert.equal(2, result.writes)
      assert.equal(1, result.deletes)
      assert.equal(1, result.near_hits)     -- at 2; at 80 it is older than near_ttl
      assert.equal(2, result.filter_absent) -- at 0 and at 82
      assert.equal(3, result.server_hits)   -- at 1, 13 and 80
      assert.equal(1, result.server_misses) -- at 11: expired
      assert.equal(7, result.statements)
      assert.equal(15, result.server_bytes)
      result = only(text, { near_entries = 0, filter = false })
      assert.equal(0, result.near_hits + result.filter_absent)
      assert.equal(0, result.saved)
      result = only(text .. "83,a,1,5,1,get,0\n", { near_entries = 10, filter = false })
      assert.equal(1, result.near_absent) -- at 83, which the miss at 82 taught
    end)

    it("with exists, which keeps nothing", function()
      local head = "#fpcache-trace 1 keys=plain sample=1\n0,set,a,1,5,,done,1\n"
      local result = only(head .. ("1,exists,a,1,,,hit,1\n"):rep(3) .. "2,get,a,1,5,,hit,1\n3,exists,a,1,,,hit,1\n", {})
      assert.equal(4, result.server_hits)
      assert.equal(1, result.near_hits)
    end)

    it("with room for so many entries, in so many processes", function()
      local lines = {}
      for round = 0, 9 do
        for i = 1, 10 do lines[#lines + 1] = ("%d,key%d,100"):format(round, i) end
      end
      local text = table.concat(lines, "\n") .. "\n"
      assert.equal(80, only(text, { near_entries = 10, filter = false }).near_hits) -- a miss, a read, then hits
      assert.is_true(only(text, { near_entries = 5, filter = false }).near_hits < 50)
      assert.equal(0, only(text, { near_entries = 10, near_bytes = 100, filter = false }).near_hits)
      local shared = only(text, { near_entries = 10, filter = false, processes = 3 })
      assert.is_true(shared.near_hits < 80 and shared.near_hits > 0)
      assert.equal(10, shared.loads)
    end)

    it("with policies", function()
      local text = "0,a,1\n7,a,1\n9,a,1\n12,a,1\n25,a,1\n40,a,1\n"
      local function with(policy) return only(text, { near_entries = 0, filter = false, policy = policy }) end
      assert.equal(4, with({ ttl = 10 }).loads)                        -- 0, 12, 25, 40
      assert.equal(2, with({ ttl = 10, stale_ttl = 5 }).stale)         -- 12 and 25
      assert.equal(1, with({ ttl = 10, refresh_ahead = 0.8 }).renewals) -- at 9
      assert.equal(3, with({ ttl = 10, sliding = true }).loads)        -- 0, 25, 40
      assert.equal(1, only(text, { near_entries = 0, filter = false, ttl = 1000 }).loads)
      assert.equal(6, with({ ttl = 10, beta = 5000 }).loads)           -- 250 s × -ln(chance) before its end: at each
      assert.equal(4, with({ ttl = 10, beta = 0.01 }).loads)
      local lines = {}
      for round = 0, 1 do -- read again after three quarters of the ttl: about half of them are there still
        for i = 1, 400 do lines[#lines + 1] = ("%g,a%d,1"):format(round * 7.5, i) end
      end
      local half = table.concat(lines, "\n") .. "\n"
      local loads = only(half, { near_entries = 0, filter = false, policy = { ttl = 10, jitter = 0.5 } }).loads
      assert.is_true(loads > 550 and loads < 650, loads)
      assert.equal(loads, only(half, { near_entries = 0, filter = false, policy = { ttl = 10, jitter = 0.5 } }).loads)
      assert.equal(400, only(half, { near_entries = 0, filter = false, policy = { ttl = 10 } }).loads)
      assert.error_matches(function() with { ttl = 10, soft_timeout = 1 } end, "soft_timeout is not simulated: it is about load")
      assert.error_matches(function() with { ttl = 10, tags = "x" } end, "tags is not simulated: it gives names")
      assert.error_matches(function() with { ttl = 10, tll = 1 } end, "tll is not simulated, and is no field of a policy")
      assert.has_error(function() with { ttl = "never" } end)
    end)

    it("with near = false, and with marks of what the origin has not", function()
      local head = "#fpcache-trace 1 keys=plain sample=1\n"
      local text = head .. "0,fetch,a,1,,,loaded loader,9\n1,fetch,a,1,,,loaded loader,9\n2,fetch,a,1,,,loaded loader,9\n"
        .. "30,fetch,a,1,,,loaded loader,9\n"
      local function with(policy, near) return only(text, { near_entries = near or 0, policy = policy }) end
      assert.equal(4, with({ ttl = 10 }).loads)
      local result = with { ttl = 10, negative_ttl = 20 }
      assert.same({ 2, 4 }, { result.loads, result.server_misses }) -- at 0 and 30; whatever the filter says, fetch asks
      assert.equal(1, with({ ttl = 10, negative_ttl = 20 }, 10).near_absent) -- at 2: at 1 the server said it
      text = head .. "0,fetch,a,1,7,,loaded loader,9\n1,get,a,1,7,,hit,9\n2,get,a,1,7,,hit,9\n"
      assert.equal(1, with({ ttl = 10 }, 10).near_hits)
      assert.equal(0, with({ ttl = 10, near = false }, 10).near_hits)
    end)

    it("with one who loads, or each process by itself", function()
      local lines = {}
      for i = 1, 8 do lines[i] = ("0.%d,a,1"):format(i) end
      local text = table.concat(lines, "\n") .. "\n2,a,1\n"
      local function with(lock)
        return only(text, { near_entries = 0, filter = false, processes = 4, load_seconds = 1,
          policy = { ttl = 60, lock = lock } })
      end
      local result = with "cluster"
      assert.same({ 1, 7, 1, 1 }, { result.loads, result.waits, result.server_hits, result.load_time })
      result = with "process"
      assert.same({ 4, 4, 1 }, { result.loads, result.waits, result.server_hits })
    end)

    it("with a filter of another size and rate", function()
      local lines = {}
      for i = 1, 3000 do lines[i] = ("0,k%d,2,5,1,set,0"):format(i) end
      for i = 1, 3000 do lines[#lines + 1] = ("1,n%d,2,0,1,get,0"):format(i) end
      local text = table.concat(lines, "\n") .. "\n"
      local function misses(fpr)
        return only(text, { near_entries = 0, filter_capacity = 3000, filter_fpr = fpr }).server_misses
      end
      assert.is_true(misses(0.0001) < 20)
      assert.is_true(misses(0.1) > 30)
      assert.is_true(only(text, { filter_capacity = 1000 }).filter_bytes < only(text, { filter_capacity = 1e6 }).filter_bytes)
      text = ("1,a,1,0,1,get,0\n1,b,1,0,1,get,0\n"):rep(10) .. "8,a,1,0,1,get,0\n"
      local function remembered(entries, seconds)
        return only(text, { filter = false, near_negative_entries = entries, near_negative_ttl = seconds }).near_absent
      end
      assert.same({ 19, 18 }, { remembered(2, 10), remembered(2, 5) })
      assert.is_true(remembered(1, 10) < 10)
    end)

    it("with clears, invalidated tags and walks", function()
      local head = "#fpcache-trace 1 keys=plain sample=1\n"
      local text = head .. "0,set,a,1,5,,done,1\n0,set,n/b,1,5,,done,1,n,t u\n0,set,n/c,1,5,,done,1,n\n"
        .. "1,get,n/b,1,5,,hit,1,n\n2,tag,,,,,done,1,n,u\n3,get,n/b,1,,,miss,1,n\n3,get,n/c,1,5,,hit,1,n\n"
        .. "4,clear,,,,,done,1,n\n5,get,n/c,1,,,miss,1,n\n5,get,a,1,5,,hit,1\n6,scan,,,500,,done 40,9\n"
        .. "7,set,n/d,1,5,,done,1,n\n7,clear,*,,,,done,1\n8,get,a,1,,,miss,1\n8,get,n/d,1,,,miss,1,n\n9,clear,,what\n"
      local result = only(text, { near_entries = 0, filter = false })
      assert.same({ 3, 4 }, { result.server_hits, result.server_misses })
      assert.same({ 1, 40, 3, 15 }, { result.scans, result.scan_rows, result.clears, result.statements })
      result = only(text, { near_entries = 10, filter = true })
      assert.same({ 3, 4 }, { result.server_hits + result.near_hits, result.filter_absent })
      assert.equal(1, only(text, {}, { sample = 0.0001 }).scans) -- all of them, whatever the sample
    end)

    it("by a sample of the keys that tells about all of them", function()
      local lines, state = {}, 1
      for i = 1, 60000 do
        state = (state * 16807) % 2147483647
        lines[i] = ("%d,key%d,100"):format(math.floor(i / 100), math.floor((state / 2147483647) ^ 4 * 20000))
      end
      local text = table.concat(lines, "\n") .. "\n"
      local whole = only(text, { near_entries = 2000, near_ttl = 1000 })
      local part = only(text, { near_entries = 2000, near_ttl = 1000 }, { sample = 0.3 })
      assert.is_true(math.abs(whole.near_ratio - part.near_ratio) < 0.1, whole.near_ratio .. " " .. part.near_ratio)
      assert.is_true(part.statements > whole.statements * 0.6 and part.statements < whole.statements * 1.6)
      -- with one key that has half of the calls, which the sample has or has not
      for i = 1, 60000 do lines[i] = lines[i] .. ("\n%d,hot,100"):format(math.floor(i / 100)) end
      text = table.concat(lines, "\n") .. "\n"
      whole = only(text, { near_entries = 2000, near_ttl = 1000 })
      part = only(text, { near_entries = 2000, near_ttl = 1000 }, { sample = 0.3 })
      assert.is_true(math.abs(whole.near_ratio - part.near_ratio) < 0.05, whole.near_ratio .. " " .. part.near_ratio)
      assert.is_true(math.abs(whole.reads - part.reads) < 10)
      whole = only(text, { near_entries = 0, filter = false })
      part = only(text, { near_entries = 0, filter = false }, { sample = 0.3 })
      assert.is_true(math.abs(whole.statements / part.statements - 1) < 0.2)
      local report, err = replay.run { traces = { dir .. "/played" }, max_keys = 1000 }
      assert.is_nil(report)
      assert.matches("more keys than max_keys", err)
    end)
  end)
end)

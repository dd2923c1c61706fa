-- replay_play_spec.lua -- traces played at a real server: what the model says is what happens there.
local admin = require "fpcache.admin"
local codec = require "fpcache.codec"
local core = require "fpcache.core"
local database = require "support.database"
local interpreter = require "support.interpreter"
local replay = require "fpcache.replay"
local server = require "support.server"

describe("a trace played at a server", function()
  local db, dir

  setup(function()
    db = database.new()
    dir = assert(core.system.mkdtemp("/tmp/fpcache-play-"))
  end)
  teardown(function() assert(core.system.remove_tree(dir)) end)
  after_each(function() db:close_all() end)

  local function write(text)
    local file = assert(io.open(dir .. "/trace", "wb"))
    file:write(text)
    file:close()
    return dir .. "/trace"
  end

  local function play(setting, more)
    local opts = { traces = { dir .. "/trace" }, settings = { setting }, server = { connection_string = db:url_of() } }
    for name, value in pairs(more or {}) do opts[name] = value end
    local measured, err = replay.play(opts)
    assert.equal("0", db:sql("SELECT count(*) FROM cache"), "what was played with is gone")
    return measured and measured[1], err
  end

  local function model(setting) return assert(replay.run { traces = { dir .. "/trace" }, settings = { setting } }).settings[1] end

  it("has the hit ratio that the model says, near cache, filter and absent keys included", function()
    local lines, state = { "#fpcache-trace 1 keys=hashed sample=1" }, 7
    for i = 1, 1500 do
      state = (state * 16807) % 2147483647
      local key = math.floor((state / 2147483647) ^ 3 * 300)
      local op = i % 7 == 0 and "set" or i % 31 == 0 and "delete" or "get"
      lines[#lines + 1] = ("%.3f,%s,%016x,20,%d,,done,9,%s"):format(i / 1000, op, key, key, key % 2 == 0 and "5a" or "")
    end
    write(table.concat(lines, "\n") .. "\n")
    for _, setting in ipairs { { near_entries = 0, filter = false }, { near_entries = 50 } } do
      local said, measured = model(setting), assert(play(setting, { speed = 1 }))
      assert.equal(said.reads, measured.reads)
      assert.near(said.hit_ratio, measured.hit_ratio, 1e-9)
      assert.near(said.near_ratio, measured.near_ratio, 0.1) -- the shelf's order goes by the processor's time
      assert.equal(1500, measured.calls)
      assert.is_true(measured.round_trip_seconds > 0 and measured.round_trip_seconds <= measured.seconds)
    end
  end)

  it("loads what the policy loads, clears what was cleared, and pads keys to their length", function()
    local lines = {
      "fetch,a1,100,2000000,,loaded loader,5000", "fetch,a1,100,50,,hit db,9", "set,b2,2,5,60,done,9,cc,7f",
      "get,b2,2,5,,hit db,9,cc", "tag,,,,,done,9,cc,7f", "get,b2,2,,,miss db,9,cc", "set,b2,2,5,,done,9,cc",
      "clear,,,,,done,9,cc",
      "get,b2,2,,,miss db,9,cc", "scan,,,9,,done 1,9", "exists,a1,100,,,hit db,9", "delete,a1,100,,,done,9",
      "clear,*,,,,done,9", "fetch,none,4,,,loaded loader,9", "fetch,none,4,,,loaded loader,9",
    }
    for i, line in ipairs(lines) do lines[i] = ("%g,%s\n"):format(i / 100, line) end
    write("#fpcache-trace 1 keys=hashed sample=1\n" .. table.concat(lines))
    for _, processes in ipairs { 1, 2 } do
      local setting = { near_entries = 0, filter = false, policy = { ttl = 600, negative_ttl = 600 }, processes = processes }
      local said, measured = model(setting), assert(play(setting, { speed = 10 }))
      assert.equal(15, measured.calls)
      assert.equal(said.reads, measured.reads)
      assert.equal(said.loads, measured.loads)
      assert.near(said.hit_ratio, measured.hit_ratio, 1e-9)
      assert.near(3 / 8, measured.hit_ratio, 1e-9)
    end
  end)

  it("lets entries expire as they did, in less time", function()
    write("0,a,1,5,1,set,240\n1,a,1,5,1,get,0\n300,a,1,0,1,get,0\n")
    local measured = assert(play({ near_entries = 0, filter = false }, { speed = 150 }))
    assert.equal(0.5, measured.hit_ratio)
    assert.is_true(measured.seconds >= 2)
  end)

  it("plays a sample, and as many calls as wanted", function()
    local lines = {}
    for i = 1, 400 do lines[i] = ("0,key%d,4,9,1,set,60"):format(i) end
    write(table.concat(lines, "\n") .. "\n")
    assert.equal(30, assert(play({}, { limit = 30 })).calls)
    local part = assert(play({}, { sample = 0.25 })).calls
    assert.is_true(part > 50 and part < 150, part)
  end)

  it("leaves nothing behind when it fails", function()
    write("0,a,1,5,1,set,60\n0,b,1,5,1,set,60\nwhat\n")
    local measured, err = play({ near_entries = 0, filter = false }, { max_errors = 0 })
    assert.is_nil(measured)
    assert.matches("record 3: ", err)
    measured, err = replay.play { traces = { dir .. "/trace" }, server = { connection_string = "host=/nowhere" } }
    assert.is_nil(measured)
    assert.matches("^connect: ", err)
    assert.has_error(function() replay.play { traces = { dir .. "/trace" } } end)
  end)

  it("by the command, with the server's own time where it keeps it", function()
    write("0,a,1,5,1,set,0\n" .. ("0,a,1,5,1,get,0\n"):rep(20))
    local fpcache = interpreter.new { FPCACHE_URL = db:url_of() }
    local srv = server.new { shared_preload_libraries = "'pg_stat_statements'" }
    local url = srv:fresh_database()
    srv:sql("CREATE EXTENSION pg_stat_statements", url)
    assert(admin.setup { connection_string = url })
    local answer = fpcache { "replay", dir .. "/trace", "--server", url, "--play", "--near-entries", "0,10", "--json" }
    srv:destroy()
    assert.equal(0, answer.code, answer.err)
    for i, one in ipairs(assert(codec.json.decode(answer.out)).settings) do
      assert.equal(1, one.measured.hit_ratio)
      assert.is_true(one.measured.statements >= (i == 1 and 21 or 2) and one.measured.server_seconds > 0)
    end
    answer = fpcache { "replay", dir .. "/trace", "--server", db:url_of(), "--play" }
    assert.matches("\nPlayed there, 100 times as fast as recorded:\n", answer.out)
    for _, words in ipairs { { "--play" }, { "-", "--format", "csv", "--play", "--server", db:url_of() } } do
      answer = fpcache { "replay", dir .. "/trace", (table.unpack or unpack)(words) } -- luacheck: ignore
      assert.equal(1, answer.code)
      assert.matches("--play ", answer.err, 1, true)
    end
    fpcache:remove()
  end)
end)

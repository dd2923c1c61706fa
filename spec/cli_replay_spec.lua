-- cli_replay_spec.lua -- `fpcache record` and `fpcache replay`.
local codec = require "fpcache.codec"
local database = require "support.database"
local interpreter = require "support.interpreter"

describe("fpcache record and replay", function()
  local db, fpcache

  setup(function() db = database.new() end)
  before_each(function() fpcache = interpreter.new { FPCACHE_URL = db:url_of() } end)
  after_each(function()
    fpcache:remove()
    db:close_all()
  end)

  it("record a program with its children, and pass on its exit code", function()
    fpcache:file("app.lua", [[
      local cache = assert(require("fpcache").new { feed = false })
      cache:set("it's", "value")
      for _ = 1, 20 do cache:get("it's") end
      os.execute(arg[1] .. " get \"it's\"")
      os.exit(tonumber(arg[2]))]])
    local answer = fpcache { "record", "trace", "--keys", "--", interpreter.path, "app.lua", interpreter.path, "7" }
    assert.equal("value\n", answer.out)
    assert.equal(7, answer.code)
    answer = fpcache { "replay", "trace", "--near-entries", "0,10", "--json", "--server", db:url_of() }
    assert.equal(0, answer.code, answer.err)
    local report = assert(codec.json.decode(answer.out))
    assert.equal("fpcache-replay", report.kind)
    assert.equal(22, report.calls)
    assert.equal(2, #report.settings)
    assert.equal(21, report.settings[1].server_hits)
    assert.equal(20, report.settings[2].near_hits)
    assert.is_true(report.server.hit > 0 and report.server.set > 0)
    assert.is_true(report.settings[1].server_seconds > report.settings[2].server_seconds)
    assert.equal("1", db:sql("SELECT count(*) FROM cache"), "the measured keys are gone")
    answer = fpcache { "replay", "trace", "--filter", "both", "--policy", "ttl=5,sliding" }
    assert.matches("22 calls of 0 s\n", answer.out)
    assert.matches("policy sliding=true ttl=5", answer.out)
  end)

  it("tell what is wrong", function()
    assert.equal(2, fpcache { "record" }.code)
    assert.equal(2, fpcache { "replay" }.code)
    assert.equal(2, fpcache { "replay", "x", "--near-bytes", "many" }.code)
    local answer = fpcache { "record", "trace", "--", "/bin/true" }
    assert.equal(1, answer.code)
    assert.matches("no cache was opened", answer.err)
    answer = fpcache { "replay", "nowhere" }
    assert.equal(1, answer.code)
    assert.matches("^fpcache: invalid: cannot read ", answer.err)
    fpcache:file("t.csv", "1,a,1\n")
    answer = fpcache { "replay", "t.csv", "--policy", "ttl=5,soft_timeout=1" }
    assert.matches("soft_timeout is not simulated: it is about loading that fails", answer.err)
    assert.equal(1, answer.code)
    assert.equal(1, fpcache { "replay", "t.csv", "--server", "host=/nowhere" }.code)
  end)

  it("read standard input", function()
    local answer = fpcache { "replay", "-", "--format", "csv", input = "1,a,1\n2,a,1\n3,a,1\n" }
    assert.equal(0, answer.code, answer.err)
    assert.matches("3 calls of 2 s\n", answer.out)
  end)
end)

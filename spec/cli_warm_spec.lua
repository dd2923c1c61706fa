-- cli_warm_spec.lua -- `fpcache warm`: the command, killed in the middle and run again.
local codec = require "fpcache.codec"
local core = require "fpcache.core"
local database = require "support.database"
local interpreter = require "support.interpreter"

local SIGINT, SIGKILL = 2, 9

describe("fpcache warm", function()
  local db, fpcache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    fpcache = interpreter.new { FPCACHE_URL = db:url_of() }
  end)
  after_each(function()
    fpcache:remove()
    db:close_all()
  end)

  local function products(count)
    local lines = {}
    for i = 1, count do lines[i] = ('{"id":%d,"name":"product %d"}'):format(i, i) end
    return fpcache:file("products.jsonl", table.concat(lines, "\n") .. "\n")
  end

  it("fills the cache and says so", function()
    local answer = fpcache { "warm", products(1234), "--key", "p:{id}", "--ttl", "3600", "--namespace", "shop" }
    assert.equal(0, answer.code, answer.err)
    assert.equal("", answer.out)
    assert.equal("1,234 records, 1,234 stored, 0 bad, 0:00\n", answer.err)
    local cache = db:open { namespace = "shop" }
    assert.same({ id = 77, name = "product 77" }, (cache:get("p:77")))
    assert.is_true(cache:ttl("p:77") > 3500)
  end)

  it("answers in JSON, and reads standard input and queries", function()
    local answer = fpcache { "warm", "-", "--format", "csv", "--key", "{a}", "--value", "{b}", "--json", "--quiet",
      input = "a,b\n1,x\n2,y\n3\n" }
    local result = assert(codec.json.decode(answer.out))
    assert.same({ true, 3, 2, 1 }, { result.done, result.read, result.stored, result.bad })
    assert.equal("", answer.err)
    assert.equal("y", (db:open():get("2")))
    answer = fpcache { "warm", "--sql", "SELECT 5 AS id", "--key", "q:{id}", "--from", db.url }
    assert.equal(0, answer.code, answer.err)
    assert.same({ id = 5 }, (db:open():get("q:5")))
    answer = fpcache { "warm", "--sql", "SELECT 6 AS id", "--key", "q:{id}" }
    assert.equal(0, answer.code, answer.err)
    assert.is_true(db:open():exists("q:6"))
  end)

  it("draws a bar on a terminal", function()
    local answer = fpcache:on_terminal({ "warm", products(30000), "--key", "p:{id}", "--batch", "1000" }, "")
    assert.equal(0, answer.code, answer.out)
    assert.matches("\r%[#+%.+%] +%d+ %%  [%d,]+ records, [%d,]+/s  %d:%d%d left", answer.out)
    assert.matches("30,000 records, 30,000 stored, 0 bad", answer.out, 1, true)
  end)

  for signal, what in pairs { [SIGKILL] = "killed", [SIGINT] = "interrupted" } do
    it("goes on where it was " .. what .. ", without a gap", function()
      local count = 60000
      local resume = fpcache.dir .. "/resume"
      local words = { "warm", products(count), "--key", "p:{id}", "--resume", resume, "--batch", "500", "--json", "--quiet" }
      local slow = { "--rate", "5000" } -- it takes twelve seconds, if it is let
      for i, word in ipairs(words) do table.insert(slow, i, word) end
      local job = fpcache:start(slow)
      assert.is_truthy(database.eventually(function() return core.system.stat(resume) end))
      assert.equal(128 + signal, job:kill(signal))
      local before = tonumber(db:sql("SELECT count(*) FROM cache"))
      assert.is_true(before >= 500 and before < count, before .. " rows")
      local answer = fpcache(words)
      assert.equal(0, answer.code, answer.err)
      local result = assert(codec.json.decode(answer.out))
      assert.same({ true, count, count, true }, { result.done, result.read, result.stored, result.resumed })
      assert.equal(tostring(count), db:sql("SELECT count(*) FROM cache"))
      assert.equal("0", db:sql([[SELECT count(*) FROM generate_series(1, ]] .. count .. [[) AS i
        LEFT JOIN cache ON key = convert_to('p:' || i, 'UTF8') AND convert_from(value, 'UTF8')::json->>'name' = 'product ' || i
        WHERE key IS NULL]]))
      assert.is_nil(core.system.stat(resume))
    end)
  end

  it("refuses wrong command lines, and tells failures", function()
    for _, words in ipairs { {}, { "x.jsonl" }, { "--key", "k" }, { "a", "--sql", "SELECT 1", "--key", "k" },
      { "a.jsonl", "--key", "k", "--from", "x" }, { "a.jsonl", "--key", "k", "--format", "xml" } } do
      table.insert(words, 1, "warm")
      local answer = fpcache(words)
      assert.equal(2, answer.code, answer.err)
    end
    local answer = fpcache { "warm", "/none.jsonl", "--key", "k" }
    assert.equal(1, answer.code)
    assert.matches("^fpcache: invalid: cannot read /none.jsonl", answer.err:match("[^\n]*cannot.*"))
    answer = fpcache { "warm", products(10), "--key", "{none}", "--max-errors", "3", "--errors", fpcache.dir .. "/err" }
    assert.equal(1, answer.code)
    assert.matches("4 bad records are more than max_errors (3)", answer.err, 1, true)
    local path = fpcache:file("bad.jsonl", '{"id":1}\n{"no":1}\n{\n')
    answer = fpcache { "warm", path, "--key", "{id}" }
    assert.equal(0, answer.code)
    assert.matches(("\nthe first bad one: %s, line 2: .* %%(%%-%%-errors FILE tells all%%)\n$"):format(path:gsub("%p", "%%%0")),
      answer.err)
    answer = fpcache { "warm", path, "--key", "{id}", "--errors", fpcache.dir .. "/err" }
    assert.is_nil(answer.err:find("the first bad one", 1, true))
    answer = fpcache { "warm", products(10), "--key", "{id}", "--rate", "0" }
    assert.equal(1, answer.code)
    assert.matches("invalid: rate: must be more than 0, got 0", answer.err, 1, true)
  end)
end)

-- warm_spec.lua -- warm-ups: formats, templates, bad records, places to go on from.
local codec = require "fpcache.codec"
local core = require "fpcache.core"
local database = require "support.database"
local files = require "support.files"
local fpcache = require "fpcache"

describe("fpcache.warm", function()
  local db, cache, dir

  setup(function()
    db = database.new()
    dir = assert(core.system.mkdtemp("/tmp/fpcache-warm-"))
  end)
  teardown(function() assert(core.system.remove_tree(dir)) end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function write(name, text) return files.write(dir .. "/" .. name, text) end

  local function warm(opts)
    opts.cache = cache
    opts.key = opts.key or (not opts.map and "k:{id}" or nil)
    opts.jobs = opts.jobs or 1
    return fpcache.warm(opts)
  end

  --- Everything in the cache.
  local function all()
    local found = {}
    for key, value in cache:scan() do found[key] = value end
    return found
  end

  it("reads JSON Lines, with empty lines and without a last line end", function()
    local state = assert(warm { source = write("a.jsonl", '{"id":1,"v":[1,2.5]}\r\n\n{"id":"x","v":null}'), ttl = 60 })
    assert.same({ 2, 2, 0 }, { state.read, state.stored, state.bad })
    assert.same({ ["k:1"] = { id = 1, v = { 1, 2.5 } }, ["k:x"] = { id = "x", v = fpcache.null } }, all())
    assert.is_true(cache:ttl("k:1") > 50)
  end)

  it("takes durations, from templates too", function()
    assert(warm { source = write("a.jsonl", '{"id":1,"for":"2h"}\n{"id":2,"for":30}\n'), ttl = "{for}" })
    assert.is_true(cache:ttl("k:1") > 7000 and cache:ttl("k:2") <= 30)
    assert(warm { source = write("a.jsonl", '{"id":1}'), ttl = "5m" })
    assert.is_true(cache:ttl("k:1") > 290 and cache:ttl("k:1") <= 300)
    assert(warm { source = write("a.jsonl", '{"id":1}'), map = function(record) return "k:" .. record.id, 1 end, ttl = "5m" })
    assert.equal(1, assert(warm { source = write("a.jsonl", '{"id":1,"for":"soon"}'), ttl = "{for}", max_errors = 5 }).bad)
  end)

  it("reads a JSON array, whatever is in it", function()
    local text = ' \n[ {"id":1,"s":"a ] } \\" , \\\\"}, {"id":2,"n":[[],{}]}\n,\n{"id":3}\n]\n'
    assert.equal(3, assert(warm { source = write("a.json", text) }).stored)
    assert.equal('a ] } " , \\', all()["k:1"].s)
    for broken, why in pairs { ["{}"] = "begins with", ["[1,2"] = "ends inside", ["[{\"a\": \"x"] = "ends inside",
      [""] = "begins with", ["["] = "ends inside" } do
      local ok, err = warm { source = write("b.json", broken) }
      assert.is_nil(ok)
      assert.matches(why, err, 1, true)
    end
    assert.equal(0, assert(warm { source = write("b.json", "[]") }).read)
    assert.equal(1, assert(warm { source = write("b.json", '[{"id":1},]') }).bad)
  end)

  it("reads CSV and TSV", function()
    local csv = '\239\187\191id,name,"odd, column"\r\n1,plain,x\r\n2,"quoted ""word"", and\ntwo lines",\n3,a\n4,"x"y,z\n5,"open'
    local state = assert(warm { source = write("a.csv", csv), errors = dir .. "/err" })
    assert.same({ 5, 2, 3 }, { state.read, state.stored, state.bad })
    assert.same({
      ["k:1"] = { id = "1", name = "plain", ["odd, column"] = "x" },
      ["k:2"] = { id = "2", name = 'quoted "word", and\ntwo lines', ["odd, column"] = "" },
    }, all())
    local errors = {}
    for line in files.read(dir .. "/err"):gmatch("[^\n]+") do errors[#errors + 1] = codec.json.decode(line) end
    assert.same({ 5, 6, 7 }, { errors[1].line, errors[2].line, errors[3].line })
    assert.equal("2 fields, the header has 3", errors[1].error)
    assert.equal("a quoted field ends before its separator", errors[2].error)
    assert.equal("a quoted field has no end", errors[3].error)
    assert.equal(1, assert(warm { source = write("a.tsv", "id\tv\n7\ta,b\n") }).stored)
    assert.equal(2, assert(warm { source = write("a.txt", " one \n\ntwo"), format = "lines", key = "l:{line}" }).stored)
    assert.same({ line = "one" }, (cache:get("l:one")))
    assert.same({ id = "7", v = "a,b" }, (cache:get("k:7")))
  end)

  it("reads Debian's control format", function()
    local text = "\n\nid: 1\nText: first\n  second\n .\n# remark\n\n\nid:2\nEmpty:\n\nno field\nid: 3"
    local state = assert(warm { format = "deb822", errors = dir .. "/err", source = write("a.control", text) })
    assert.same({ 3, 2, 1 }, { state.read, state.stored, state.bad })
    assert.same({ ["k:1"] = { id = "1", Text = "first\n second\n." }, ["k:2"] = { id = "2", Empty = "" } }, all())
    assert.matches('"line":13', files.read(dir .. "/err"))
  end)

  it("comes to the same in every format, over records of any length", function()
    local seed = math.random(1000000)
    math.randomseed(seed)
    local records, jsonl, csv = {}, {}, { "id,text" }
    for i = 1, 400 do
      local bytes = {}
      for j = 1, math.random(0, i % 50 == 0 and 9000 or 900) do bytes[j] = ("ab,\"\n\\]}[{ü"):sub(math.random(10)):sub(1, 1) end
      local text = table.concat(bytes):gsub("[\128-\255]", "")
      records["k:" .. i] = { id = ("%d"):format(i), text = text }
      jsonl[i] = assert(codec.json.encode(records["k:" .. i]))
      csv[i + 1] = ('%d,"%s"'):format(i, (text:gsub('"', '""')))
    end
    for name, text in pairs {
      ["p.jsonl"] = table.concat(jsonl, "\n"),
      ["p.json"] = "[" .. table.concat(jsonl, (" "):rep(1000) .. ",\n") .. "]",
      ["p.csv"] = table.concat(csv, "\r\n") .. "\r\n",
    } do
      cache:clear()
      local state = assert(warm { source = write(name, text), batch = 37 })
      assert.equal(400, state.stored, name .. ", seed " .. seed)
      assert.same(records, all())
    end
  end)

  it("reads the rows of a query on any server", function()
    local state = assert(warm {
      source = { connection_string = db.url,
        sql = "SELECT i AS id, i % 2 = 0 AS even, NULL AS nothing FROM generate_series(1, 5000) AS i" },
    })
    assert.equal(5000, state.stored)
    assert.same({ id = 4999, even = false }, (cache:get("k:4999")))
    local ok, err = warm { source = { sql = "SELECT nonsense", connection_string = db.url } }
    assert.is_nil(ok)
    assert.matches("nonsense.*in the source's query", err)
    ok, err = warm { source = { sql = "SELECT 1 / (3 - i) AS id FROM generate_series(1, 5) AS i", connection_string = db.url } }
    assert.is_nil(ok)
    assert.matches("division by zero", err)
    ok, err = warm { source = { sql = "INSERT INTO cache DEFAULT VALUES", connection_string = db.url } }
    assert.is_nil(ok, "reads only")
    assert.matches("^server: ", err)
  end)

  it("takes what an iterator gives, and what map makes of it", function()
    local i = 0
    local state = assert(warm {
      source = function() i = i + 1 if i <= 4 then return i end end,
      map = function(n)
        if n == 1 then return nil end -- nothing to store
        if n == 2 then return nil, "two is bad" end
        return "n" .. n, n, n == 3 and 100 or nil
      end,
      ttl = 1000,
    })
    assert.same({ 4, 2, 1 }, { state.read, state.stored, state.bad })
    assert.is_true(cache:ttl("n3") <= 100 and cache:ttl("n4") > 900)
  end)

  it("fills templates", function()
    local path = write("t.jsonl", '{"id":9007199254740993,"a":{"b":[true,"x"]},"f":0.5,"ttl":7}')
    assert(warm { source = path, key = "{{{id}}}-{a.b.1}-{a.b.2}-{f}", value = "<{f}>", ttl = "{ttl}" })
    assert.equal("<0.5>", (cache:get("{9007199254740993}-true-x-0.5")))
    assert.is_true(cache:ttl("{9007199254740993}-true-x-0.5") <= 7)
    assert(warm { source = path, key = "raw", value = "{a}" })
    assert.same({ b = { true, "x" } }, (cache:get("raw")))
    for key, why in pairs { ["{none}"] = "no field none", ["{a}"] = "is a list or an object" } do
      local state = assert(warm { source = path, key = key, errors = dir .. "/err" })
      assert.equal(1, state.bad)
      assert.matches(why, files.read(dir .. "/err"), 1, true)
    end
    for _, key in ipairs { "{", "a}", "{}", "{a{b}}" } do
      local ok, err = warm { source = path, key = key }
      assert.is_nil(ok)
      assert.matches("^invalid: the template", err)
    end
  end)

  it("passes over bad records, up to a number", function()
    local path = write("bad.jsonl", '{"id":1}\nnot json\n{"id":2}\n{"no":1}\n{"id":3}\n')
    local state = assert(warm { source = path, max_errors = 2 })
    assert.same({ 5, 3, 2 }, { state.read, state.stored, state.bad })
    local ok, err, reached = warm { source = path, max_errors = 1 }
    assert.is_nil(ok)
    assert.matches("more than max_errors (1); the last: " .. path .. ", line 4: no field id", err, 1, true)
    assert.equal(2, reached.bad)
    -- What only the cache can refuse is a bad record too.
    cache = db:open { max_value_bytes = 20 }
    path = write("big.jsonl", '{"id":1}\n{"id":2,"x":"' .. ("x"):rep(50) .. '"}\n{"id":3}\n')
    state = assert(warm { source = path, errors = dir .. "/err" })
    assert.same({ 3, 2, 1 }, { state.read, state.stored, state.bad })
    assert.matches('"line":2', files.read(dir .. "/err"))
  end)

  it("stores nothing in a dry run", function()
    local state = assert(warm { source = write("d.jsonl", '{"id":1}\n{"x":1}\n'), dry_run = true, resume = dir .. "/none" })
    assert.same({ 2, 1, 1 }, { state.read, state.stored, state.bad })
    assert.same({}, all())
    assert.is_nil(files.read(dir .. "/none"))
  end)

  for _, format in ipairs { "jsonl", "json", "csv", "sql" } do
    it("goes on after an interruption, " .. format, function()
      local lines, rows = {}, { "id" }
      for i = 1, 1000 do lines[i], rows[i + 1] = ('{"id":%d}'):format(i), tostring(i) end
      local text = { jsonl = table.concat(lines, "\n"), json = "[" .. table.concat(lines, ",\n") .. "]",
        csv = table.concat(rows, "\n") }
      local source = text[format] and write("r." .. format, text[format])
        or { sql = "SELECT i AS id FROM generate_series(1, 1000) AS i ORDER BY i", connection_string = db.url }
      local resume, sets = dir .. "/resume", 0
      local real = cache.set_many
      local seen = {}
      cache.set_many = function(self, items)
        sets = sets + 1
        if sets == 5 then error("killed here") end
        return real(self, function()
          local key, value, ttl = items()
          if key then seen[key] = (seen[key] or 0) + 1 end
          return key, value, ttl
        end)
      end
      assert.has_error(function() warm { source = source, batch = 100, resume = resume } end)
      local state = assert(warm { source = source, batch = 100, resume = resume })
      assert.is_true(state.resumed)
      assert.same({ 1000, 1000 }, { state.read, state.stored })
      for i = 1, 1000 do assert.equal(1, seen["k:" .. i], "key " .. i) end
      assert.equal(1000, cache:count())
      assert.is_nil(files.read(resume), "a job that is done leaves no place behind")
    end)
  end

  it("stores several batches at once, and of a key that comes twice the last record", function()
    local seed = math.random(1000000)
    math.randomseed(seed)
    local rows, last = {}, {}
    for i = 1, 3000 do
      local id = math.random(200)
      rows[i], last["k:" .. id] = ('{"id":%d,"v":%d}'):format(id, i), { id = id, v = i }
    end
    local at_once, most = 0, 0
    local real = cache.set_many
    cache.set_many = function(...)
      at_once = at_once + 1
      most = math.max(most, at_once)
      fpcache.sleep(math.random() / 200) -- overtakes, unless they wait for each other
      local count, err = real(...)
      at_once = at_once - 1
      return count, err
    end
    local state = assert(warm { source = write("twice.jsonl", table.concat(rows, "\n")), batch = 7, jobs = 6 })
    assert.same({ 3000, 3000 }, { state.read, state.stored }, "seed " .. seed)
    assert.same(last, all())
    assert.is_true(most > 1, "several at once")
  end)

  it("goes on exactly after an interruption with batches under way, bad records included", function()
    local rows = {}
    for i = 1, 2000 do rows[i] = i % 100 == 50 and "bad" or ('{"id":%d}'):format(i) end
    local path, resume, errors = write("many.jsonl", table.concat(rows, "\n")), dir .. "/resume", dir .. "/err"
    local sets, done, real = 0, 0, cache.set_many
    cache.set_many = function(self, items)
      sets = sets + 1
      if sets == 9 then
        for _ = 1, 20000 do -- others overtake it
          if done >= 11 then break end
          fpcache.sleep(0.001)
        end
        error("killed here")
      end
      local count, err = real(self, items)
      done = done + 1
      return count, err
    end
    local job = { source = path, batch = 20, jobs = 5, resume = resume, errors = errors, max_errors = 1000 }
    assert.has_error(function() warm(job) end, "killed here")
    local before = cache:count()
    local place = codec.json.decode(files.read(resume))
    assert.is_true(place.read <= 160 and before > place.read, "what is after the gap is not in the file")
    local state = assert(warm(job))
    assert.same({ 2000, 1980, 20 }, { state.read, state.stored, state.bad })
    assert.equal(1980, cache:count())
    local seen = {}
    for line in files.read(errors):gmatch("[^\n]+") do seen[#seen + 1] = codec.json.decode(line).line end
    local expected = {}
    for i = 50, 2000, 100 do expected[#expected + 1] = i end
    assert.same(expected, seen)
  end)

  it("does not go on where that would be wrong", function()
    local path = write("s.jsonl", '{"id":1}\n{"id":2}\n')
    local resume = write("resume", "nonsense")
    local ok, err = warm { source = path, resume = resume }
    assert.is_nil(ok)
    assert.matches("is no resume file", err)
    write("resume", '{"version":1,"names":["other"],"source":1,"place":{}}')
    ok, err = warm { source = path, resume = resume }
    assert.is_nil(ok)
    assert.matches("other sources", err)
    write("resume", ('{"version":1,"names":["%s"],"source":1,"place":{"offset":9,"line":1,"size":5,"count":0},'
      .. '"read":1,"stored":1,"bad":0}'):format(path))
    ok, err = warm { source = path, resume = resume }
    assert.is_nil(ok)
    assert.matches("has 18 bytes now and had 5", err)
    os.remove(resume)
    assert.has_error(function() warm { source = function() end, resume = resume } end,
      "options.resume: an iterator cannot be resumed")
  end)

  it("tries again what passes", function()
    local real, failures = cache.set_many, 0
    cache.set_many = function(self, items)
      if failures < 3 then
        failures = failures + 1
        return nil, "connect: the server went away"
      end
      return real(self, items)
    end
    assert.equal(2, assert(warm { source = write("t.jsonl", '{"id":1}\n{"id":2}\n') }).stored)
    assert.equal(3, failures)
    cache.set_many = function() return nil, "denied: no" end
    local ok, err = warm { source = dir .. "/t.jsonl" }
    assert.is_nil(ok)
    assert.equal("denied: no", err)
  end)

  it("keeps to a rate", function()
    local lines = {}
    for i = 1, 60 do lines[i] = ('{"id":%d}'):format(i) end
    local states = {}
    local state = assert(warm { source = write("rate.jsonl", table.concat(lines, "\n")), rate = 100,
      on_progress = function(s) states[#states + 1] = s.read end })
    assert.is_true(state.seconds >= 0.55, state.seconds)
    assert.equal(20, states[1])
  end)

  it("refuses what makes no sense", function()
    local path = write("x.txt", "{}")
    local ok, err = warm { source = path }
    assert.is_nil(ok)
    assert.matches("what format has", err)
    ok, err = warm { source = dir .. "/none.jsonl" }
    assert.is_nil(ok)
    assert.matches("cannot read", err)
    for _, opts in ipairs { {}, { source = {} }, { source = path, map = print, key = "x" }, { source = path, batch = 0 },
      { source = path, rate = 0 }, { source = path, nonsense = 1 }, { source = { 1 } } } do
      assert.has_error(function() warm(opts) end)
    end
  end)
end)

-- warm_http_spec.lua -- warm-ups from real HTTP and HTTPS servers: sources, values, tries, limits.
local codec = require "fpcache.codec"
local core = require "fpcache.core"
local database = require "support.database"
local files = require "support.files"
local fpcache = require "fpcache"
local interpreter = require "support.interpreter"
local workspace = require "support.workspace"

local ALWAYS = 1000000

describe("a warm-up over HTTP", function()
  local db, cache, ws, dir

  setup(function()
    db = database.new()
    ws = workspace.start()
    dir = assert(core.system.mkdtemp("/tmp/fpcache-warm-"))
  end)
  teardown(function()
    ws:stop()
    assert(core.system.remove_tree(dir))
  end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
    ws:reset()
  end)
  after_each(function()
    db:close_all()
    assert.equal(0, core.open_objects())
  end)

  --- What a path answers from now on.
  local function serve(path, answer)
    answer.path, answer.times = "^GET " .. path .. "$", answer.times or ALWAYS
    answer.status = answer.status or 200
    ws:fault(answer)
  end

  local function write(name, text) return files.write(dir .. "/" .. name, text) end

  local function requests(path) return ws:count("GET " .. path) end

  --- Few pauses: the server is at hand.
  local function http(more)
    local o = { first_pause = 0.01, longest_pause = 0.05 }
    for name, value in pairs(more or {}) do o[name] = value end
    return o
  end

  local function warm(opts)
    opts.cache, opts.http = cache, http(opts.http)
    opts.key = opts.key or "k:{id}"
    return fpcache.warm(opts)
  end

  it("reads sources in every format, by suffix and by what the server says", function()
    serve("/a.jsonl", { body = '{"id":1}\n{"id":2}\n' })
    serve("/b", { body = '[{"id":3},{"id":4}]', type = "application/json; charset=utf-8" })
    serve("/c", { body = "id,v\n5,x\n", type = "text/csv" })
    serve("/d.tsv", { body = "id\tv\n6\ty\n", type = "application/octet-stream" })
    local list = {}
    for i, path in ipairs { "/a.jsonl?token=s3cret", "/b", "/c", "/d.tsv" } do list[i] = ws.plain_url .. path end
    local state = assert(warm { source = list })
    assert.same({ 6, 6, 0 }, { state.read, state.stored, state.bad })
    assert.same({ id = "6", v = "y" }, (cache:get("k:6")))
    local ok, err = warm { source = ws.plain_url .. "/login.html" } -- whatever has no format
    assert.is_nil(ok)
    assert.is_nil(err:find("s3cret"))
  end)

  it("trusts servers by their certificates only", function()
    serve("/a.jsonl", { body = '{"id":1}\n' })
    assert.equal(1, assert(warm { source = ws.url .. "/a.jsonl", http = { ca_file = ws.ca_file } }).stored)
    local ok, err = warm { source = ws.url .. "/a.jsonl", http = { tries = 1 } }
    assert.is_nil(ok)
    assert.matches("^connect: localhost:%d+/a.jsonl: .*certificate", err)
    serve("/to", { status = 302, headers = { Location = ws.plain_url .. "/a.jsonl" } })
    ok, err = warm { source = ws.url .. "/to", format = "jsonl", http = { ca_file = ws.ca_file } }
    assert.is_nil(ok, "never from https to http")
    assert.matches("^invalid: ", err)
    assert.equal(1, assert(warm { source = ws.plain_url .. "/to", format = "jsonl" }).stored)
  end)

  it("tries again what may pass, and says what does not", function()
    serve("/a.jsonl", { status = 503, times = 1 })
    serve("/a.jsonl", { status = 429, headers = { ["Retry-After"] = "0" }, times = 1 })
    serve("/a.jsonl", { body = '{"id":1}\n{"id":2}\n', cut = "middle", times = 1 })
    serve("/a.jsonl", { cut = "before", times = 1 })
    serve("/a.jsonl", { body = '{"id":1}\n{"id":2}\n' })
    local before = requests("/a.jsonl")
    assert.equal(2, assert(warm { source = ws.plain_url .. "/a.jsonl" }).stored)
    assert.equal(5, requests("/a.jsonl") - before)
    for status, code in pairs { [404] = "invalid", [401] = "auth", [403] = "denied", [501] = "invalid" } do
      local path = "/s" .. status .. ".jsonl"
      serve(path, { status = status })
      local ok, err = warm { source = ws.plain_url .. path }
      assert.is_nil(ok)
      assert.matches(("^%s: 127.0.0.1:%%d+%s answered %d$"):format(code, path, status), err)
      assert.equal(1, requests(path))
    end
    serve("/busy.jsonl", { status = 503 })
    local ok, err = warm { source = ws.plain_url .. "/busy.jsonl", http = { tries = 3 } }
    assert.is_nil(ok)
    assert.matches("^server: .* answered 503$", err)
    assert.equal(3, requests("/busy.jsonl"))
    serve("/later.jsonl", { status = 503, headers = { ["Retry-After"] = "3600" } })
    assert.is_nil((warm { source = ws.plain_url .. "/later.jsonl" }))
    assert.equal(1, requests("/later.jsonl"), "longer than the longest pause: not waited for")
  end)

  it("keeps to its limits: bytes, seconds, redirects", function()
    serve("/big.jsonl", { body_size = 100000 })
    local ok, err = warm { source = ws.plain_url .. "/big.jsonl", http = { max_bytes = 99999 } }
    assert.is_nil(ok)
    assert.matches("^invalid: .*big.jsonl has more than 99999 bytes", err)
    serve("/loop.jsonl", { status = 302, headers = { Location = "/loop.jsonl" } })
    ok, err = warm { source = ws.plain_url .. "/loop.jsonl" }
    assert.is_nil(ok)
    assert.matches("chain of redirects", err)
    serve("/slow", { body = "x", delay = 60 })
    local from = core.system.now()
    local state = assert(warm { source = write("slow.lines", ws.plain_url .. "/slow\n"), format = "lines", key = "{line}",
      url = "{line}", errors = dir .. "/err", http = { timeout = 0.3, tries = 2 } })
    assert.equal(1, state.bad)
    assert.is_true(core.system.now() - from < 30)
    assert.matches("timeout: ", files.read(dir .. "/err"))
    ok, err = warm { source = "http://me:pw@127.0.0.1/x.jsonl", http = { tries = 1 } }
    assert.is_nil(ok)
    assert.is_nil(err:find("pw"))
  end)

  it("fetches one value for each record, several at once", function()
    for i = 1, 16 do
      serve("/v/" .. i, { body = ('{"n":%d}'):format(i), type = "application/json", meets = 16 })
    end
    serve("/v/17", { body = "\0plain", type = "text/plain" })
    serve("/v/18", { body = "{broken", type = "application/problem+json" })
    serve("/v/20", { body = "", type = "text/plain" })
    local ids = { "id" }
    for i = 1, 20 do ids[i + 1] = tostring(i) end
    local state = assert(warm { source = write("ids.csv", table.concat(ids, "\n")), url = ws.plain_url .. "/v/{id}",
      http = { parallel = 16, headers = { "X-Token: t0ken" } }, errors = dir .. "/err", ttl = 100 })
    assert.same({ 20, 18, 2 }, { state.read, state.stored, state.bad })
    assert.same({ n = 16 }, (cache:get("k:16")))
    assert.equal("\0plain", (cache:get("k:17")))
    assert.equal("", (cache:get("k:20")))
    assert.is_true(cache:ttl("k:1") <= 100)
    local errors = {}
    for line in files.read(dir .. "/err"):gmatch("[^\n]+") do errors[#errors + 1] = codec.json.decode(line) end
    assert.same({ 19, 20 }, { errors[1].line, errors[2].line })
    assert.matches("^invalid: .*/v/19 is a chain of redirects$", errors[2].error)
    local told = ws:report().requests
    assert.equal("t0ken", told[#told].headers["x-token"])
  end)

  it("goes on after an interruption, and not in another file", function()
    local rows = {}
    for i = 1, 500 do rows[i] = ('{"id":%d}'):format(i) end
    serve("/r.jsonl", { body = table.concat(rows, "\n"), headers = { ETag = '"one"' } })
    local real, sets = cache.set_many, 0
    cache.set_many = function(...)
      sets = sets + 1
      if sets == 3 then error("killed here") end
      return real(...)
    end
    local job = { source = ws.plain_url .. "/r.jsonl", batch = 100, resume = dir .. "/resume", jobs = 1 }
    assert.has_error(function() warm(job) end)
    local kept = files.read(dir .. "/resume")
    local state = assert(warm(job))
    assert.same({ true, 500, 500 }, { state.resumed, state.read, state.stored })
    assert.equal(500, cache:count())
    write("resume", kept)
    ws:reset()
    serve("/r.jsonl", { body = table.concat(rows, "\n"), headers = { ETag = '"two"' } })
    local ok, err = warm(job)
    assert.is_nil(ok)
    assert.matches("is another one than when the job was interrupted", err)
  end)

  it("leaves no files, and refuses what makes no sense", function()
    serve("/a.jsonl", { body = '{"id":1}\n' })
    local tool = interpreter.new { FPCACHE_URL = db:url_of(), TMPDIR = dir }
    local answer = tool { "warm", ws.plain_url .. "/a.jsonl", "--key", "{id}", "--quiet" }
    assert.equal(0, answer.code, answer.err)
    answer = tool { "warm", ws.plain_url .. "/none.jsonl", ws.plain_url .. "/a.jsonl", "--key", "{id}", "--quiet",
      "--http-max-bytes", "1" }
    assert.equal(1, answer.code)
    local list = assert(core.run { argv = { "find", dir, "-mindepth", "1", "-name", "fpcache-warm-*" } }).output
    assert.equal("", list)
    tool:remove()
    for _, opts in ipairs { { http = { parallel = 0 } }, { http = { headers = { "no colon" } } },
      { http = { headers = { "a: b\r\nc: d" } } }, { http = { nonsense = 1 } },
      { url = "{id}", value = "{id}" }, { jobs = 0 } } do
      opts.source = opts.source or ws.plain_url .. "/a.jsonl"
      assert.has_error(function() warm(opts) end)
    end
  end)

  it("is a command: a list of URLs", function()
    for i = 1, 3 do serve("/u" .. i, { body = tostring(i), type = "application/json" }) end
    local tool = interpreter.new { FPCACHE_URL = db:url_of() }
    local list = {}
    for i = 1, 3 do list[i] = ws.url .. "/u" .. i end
    local answer = tool { "warm", "--urls", tool:file("list.txt", table.concat(list, "\n") .. "\n\n"), "--json", "--quiet",
      "--http-ca", ws.ca_file, "--header", "X-One: 1", "--header", "X-Two: 2" }
    assert.equal(0, answer.code, answer.err)
    assert.equal(2, (cache:get(ws.url .. "/u2")))
    local told = ws:report().requests
    assert.equal("2", told[#told].headers["x-two"])
    assert.equal(2, tool({ "warm", "--urls", "x", "--value-url", "{line}" }).code)
    tool:remove()
    -- --url is the cache's, as with every command.
    tool = interpreter.new()
    answer = tool { "warm", tool:file("ids.csv", "id\n1\n3\n"), "--key", "id:{id}", "--value-url", ws.plain_url .. "/u{id}",
      "--url", db:url_of(), "--quiet" }
    assert.equal(0, answer.code, answer.err)
    assert.equal(3, (cache:get("id:3")))
    answer = tool { "warm", tool:file("ids.csv", "id\n5\n"), "--key", "id:{id}", "--url", db:url_of(), "--quiet" }
    assert.equal(0, answer.code, answer.err)
    assert.same({ id = "5" }, (cache:get("id:5")))
    tool:remove()
  end)
end)

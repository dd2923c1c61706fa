-- nginx_response_faults_spec.lua -- cached responses while the origin or the database fails, and what is refused.
local core = require "fpcache.core"
local database = require "support.database"
local nginx = require "support.nginx"
local postgres = require "support.server"
local responses = require "support.responses"

if not nginx.is_testable then return end

describe("fpcache.nginx.cache_response", function()
  local db, origin, front
  local number, passed = 0, 0

  setup(function()
    db = database.new()
    origin = responses.origin()
    front = responses.front(origin.port, { connection_string = db:url_of(), feed = false }, {
      server = [[location = /counts { content_by_lua_block {
        ngx.print(require("fpcache.core").json_encode(require("fpcache.nginx").response().counts))
      } }]],
    })
  end)

  before_each(function() origin:body("/become") end)

  teardown(function()
    assert.is_true(front:stop())
    assert.is_true(origin:stop())
    db:close_all()
  end)

  --- A path of this test alone.
  local function path(query)
    number = number + 1
    return ("/f%d?%s"):format(number, query)
  end

  local function get(target) return front:get(target) end

  --- Lets time pass for what is kept: at the server, and for nginx.
  local function pass_time(seconds)
    passed = passed + seconds
    db:age(seconds)
    front:body("/later?by=" .. passed)
  end

  it("lets clients not wait for an origin that failed just now, and comes back when it does", function()
    local target = path("cc=max-age=3,stale-if-error=600")
    get(target)
    pass_time(4)
    origin:body("/become?status=503")
    get(target)
    pass_time(2) -- the pause is over
    origin:body("/become?status=503&held=1")
    assert.equal("STALE", get(target).headers["x-cache"]) -- the origin has not answered
    origin:body("/become")
    pass_time(2)
    assert.is_truthy(database.eventually(function() return get(target).headers["x-cache"] == "HIT" end))
    pass_time(4)
    assert.equal("EXPIRED", get(target).headers["x-cache"]) -- it is no more taken for failing
  end)

  it("counts each answer by what its X-Cache says", function()
    local function counts() return core.json_decode(front:body("/counts")) end
    local before, told = counts(), {}
    local function ask(expected, target, opts)
      local outcome = front:get(target, opts).headers["x-cache"]
      assert.equal(expected, outcome)
      told[outcome] = (told[outcome] or 0) + 1
    end
    local target = path("cc=max-age=60,stale-if-error=600&etag=a")
    ask("MISS", target)
    ask("HIT", target)
    ask("BYPASS", target, { headers = { Range = "bytes=0-1" } })
    local other = path("cc=max-age=60")
    ask("MISS", other)
    ask("EXPIRED", other, { headers = { ["Cache-Control"] = "no-cache" } })
    ask("REVALIDATED", target, { headers = { ["Cache-Control"] = "no-cache" } })
    pass_time(61)
    origin:body("/become?status=503")
    ask("STALE", target)
    origin:body("/become")
    ask("BYPASS", target, { method = "POST", body = "x" })
    local after = counts()
    for _, outcome in ipairs { "HIT", "MISS", "STALE", "BYPASS", "EXPIRED", "REVALIDATED" } do
      assert.equal(told[outcome], after[outcome] - before[outcome], outcome)
    end
    assert.equal(1, after.purged - before.purged)
  end)

  it("answers from the origin while the database is down, and recovers", function()
    local own = postgres.new()
    local url = own:fresh_database()
    assert(require("fpcache.admin").setup { connection_string = url })
    local alone = responses.front(origin.port, { connection_string = url, feed = false, timeout = 1, breaker_pause = 0.1 })
    local target = path("cc=max-age=60")
    alone:get(target)
    assert.equal("HIT", alone:get(target).headers["x-cache"])
    own:stop("immediate")
    for _ = 1, 5 do
      local answer = alone:get(target)
      assert.same({ 200, "MISS" }, { answer.status, answer.headers["x-cache"] })
    end
    own:start()
    local function hits()
      alone:get(target)
      return alone:get(target).headers["x-cache"] == "HIT"
    end
    assert.is_truthy(database.eventually(hits))
    local load = alone:start_load { path = target, connections = 8, seconds = 3 }
    own:restart("immediate")
    local result = load:read()
    assert.same({ 0, 0, 0 }, { result.not_2xx, result.connect, result.timeout }, result.text)
    assert.is_truthy(database.eventually(hits))
    assert.is_true(alone:stop())
    own:destroy()
  end)

  it("has near caches see a purge elsewhere", function()
    local other = responses.front(origin.port, { connection_string = db:url_of(), feed_interval = 0.02, max_staleness = 0.5 }, {
      server = [[location = /near { content_by_lua_block { ngx.print(require("fpcache.nginx").cache():stats().near.hits) } }]],
    })
    local target = path("cc=max-age=60&tags=shop")
    assert.is_truthy(database.eventually(function()
      other:get(target)
      return tonumber(other:body("/near")) > 0
    end))
    assert.equal("HIT", other:get(target).headers["x-cache"])
    assert.equal("1", front:body("/purge?tag=shop"))
    assert.is_truthy(database.eventually(function() return other:get(target).headers["x-cache"] == "MISS" end))
    assert.is_true(other:stop())
  end)

  it("says what is wrong with lua_code_cache off", function()
    local own = responses.front(origin.port, { connection_string = db:url_of(), feed = false }, {
      http = "lua_shared_dict clock 1m; lua_code_cache off;",
    })
    assert.equal(500, own:get(path("cc=max-age=60")).status)
    assert.matches('no responses are called "default"; set them up by cache_response in init_worker_by_lua', own:log(), 1, true)
    assert.is_true(own:stop())
  end)

  it("gives what is stale while nothing listens at the origin", function()
    local short = responses.origin()
    local own = responses.front(short.port, { connection_string = db:url_of(), feed = false })
    local kept, lost = path("cc=max-age=60,stale-if-error=600"), path("cc=max-age=60")
    own:get(kept)
    own:get(lost)
    assert.is_true(short:stop("TERM"))
    db:age(61)
    own:body("/later?by=61")
    for _ = 1, 3 do
      local answer = own:get(kept)
      assert.same({ 200, "STALE" }, { answer.status, answer.headers["x-cache"] })
    end
    assert.equal(502, own:get(lost).status)
    assert.is_true(own:stop())
  end)

  it("refuses wrong options at the caller's line", function()
    local wrong = nginx.start { init_worker = [[
      local responses = require("fpcache.nginx").cache_response
      local function try(options)
        local _, err = pcall(function() responses(options) end)
        ngx.log(ngx.NOTICE, "refused: ", err)
      end
      try { location = "origin" }
      try { location = "/origin", default_tll = 5 }
      try { location = "/origin", stale_if_error = "soon" }
      try { location = "/origin", key_headers = { 1 } }
      try { location = "/origin", key_headers = { "a b" } }
      try { location = "/origin", max_bytes = 0 }
      responses { location = "/origin" }
      try { location = "/origin" }
      local _, err = pcall(function() require("fpcache.nginx").response("other"):serve() end)
      ngx.log(ngx.NOTICE, "refused: ", err)
    ]] }
    local log = wrong:log()
    for _, words in ipairs {
      'options.location: the path of an internal location is needed, such as "/origin"',
      "options.default_tll: unknown option (did you mean default_ttl?)", 'options.stale_if_error: "soon" is no duration',
      "options.key_headers: must be a list of strings; number 1 is a number",
      "options.key_headers: up to 20 names of fields are expected", "options.max_bytes: must be at least 1 bytes, got 0",
      'there are responses called "default" already', 'no responses are called "other"',
    } do
      assert.matches("refused: init_worker_by_lua%b():%d+: " .. words:gsub("%p", "%%%0"), log)
    end
    assert.is_true(wrong:stop())
  end)
end)

-- nginx_response_spec.lua -- responses cached by a real nginx in a real PostgreSQL, before an origin that is another nginx.
local database = require "support.database"
local nginx = require "support.nginx"
local responses = require "support.responses"

if not nginx.is_testable then return end

describe("fpcache.nginx.cache_response", function()
  local db, origin, front
  local number, passed = 0, 0

  setup(function()
    db = database.new()
    origin = responses.origin()
    front = responses.front(origin.port, { connection_string = db:url_of(), feed = false, timeout = 2 }, { workers = 2 })
  end)

  before_each(function()
    db:sql("TRUNCATE cache")
    front:body("/later?by=0")
    passed = 0
    origin:body("/become")
  end)

  teardown(function()
    assert.is_true(front:stop())
    assert.is_true(origin:stop())
    db:close_all()
  end)

  --- A path of this test alone.
  local function path(query)
    number = number + 1
    return ("/p%d?%s"):format(number, query or "")
  end

  local function get(target, headers, method) return front:get(target, { headers = headers, method = method }) end

  --- Lets time pass for what is kept: at the server, and for nginx.
  local function pass_time(seconds)
    passed = passed + seconds
    db:age(seconds)
    front:body("/later?by=" .. passed)
  end

  --- Asks several times; X-Cache of each.
  local function outcomes(target, ...)
    local list = {}
    for i, headers in ipairs { ... } do list[i] = get(target, headers).headers["x-cache"] end
    return table.concat(list, " ")
  end

  local function asked_origin(target) return tonumber(origin:body("/count?of=" .. target:match("^[^?]*"))) end

  --- Whether the origin was asked so often, soon.
  local function origin_is_asked(target, times)
    return database.eventually(function() return asked_origin(target) == times end)
  end

  --- Whether the origin, which is told to hold what it is asked, comes to hold so many requests.
  local function origin_holds(target, times)
    return database.eventually(function()
      return tonumber(origin:body("/waiting?of=" .. target:match("^[^?]*"))) == times
    end)
  end

  it("keeps what may be kept, and gives its age", function()
    local target = path("cc=max-age=60")
    local first, second = get(target), get(target)
    assert.same({ "MISS", nil }, { first.headers["x-cache"], first.headers.age }) -- the origin made it for us (5.1)
    assert.same({ 200, "HIT", "max-age=60" }, { second.status, second.headers["x-cache"], second.headers["cache-control"] })
    assert.equal(first.body, second.body)
    assert.equal(first.headers.date, second.headers.date)
    pass_time(42)
    local third = get(target)
    assert.equal("HIT", third.headers["x-cache"])
    assert.is_true(tonumber(third.headers.age) >= 42)
    assert.equal(1, asked_origin(target))
  end)

  -- RFC 9111 through the whole stack: query of the origin, what the first and the second client send, X-Cache of each.
  for _, case in ipairs {
    { "3: nothing says for how long", "", {}, {}, "MISS BYPASS" },
    { "5.2.2.5: no-store", "cc=no-store", {}, {}, "MISS BYPASS" },
    { "5.2.2.7: private", "cc=private,max-age=60", {}, {}, "MISS BYPASS" },
    { "7.3: Set-Cookie", "cc=max-age=60&cookie=a", {}, {}, "MISS BYPASS" },
    { "3.5: Authorization", "cc=max-age=60", { Authorization = "x" }, { Authorization = "x" }, "MISS BYPASS" },
    { "3.5: Authorization and public", "cc=max-age=60,public", { Authorization = "x" }, {}, "MISS HIT" },
    { "4.1: Vary: *", "cc=max-age=60&vary=*", {}, {}, "MISS BYPASS" },
    { "4.1: Vary, the same", "cc=max-age=60&vary=Accept-Language", { ["Accept-Language"] = "de" }, { ["Accept-Language"] = "de" },
      "MISS HIT" },
    { "4.1: Vary, another", "cc=max-age=60&vary=Accept-Language", { ["Accept-Language"] = "de" }, { ["Accept-Language"] = "en" },
      "MISS MISS" },
    { "4.1: Vary, none", "cc=max-age=60&vary=Accept-Language", { ["Accept-Language"] = "de" }, {}, "MISS MISS" },
    { "4.1: Vary: Accept-Encoding, two browsers", "cc=max-age=60&vary=Accept-Encoding", { ["Accept-Encoding"] = "br, gzip" },
      { ["Accept-Encoding"] = "deflate,gzip;q=0.5" }, "MISS HIT" },
    { "4.2.1: s-maxage", "cc=max-age=0,s-maxage=60", {}, {}, "MISS HIT" },
    { "4.2.3: too old when it came", "cc=max-age=60&age=61", {}, {}, "MISS BYPASS" },
    { "5.2.1.1: request max-age", "cc=max-age=60&age=10", {}, { ["Cache-Control"] = "max-age=5" }, "MISS EXPIRED" },
    { "5.2.1.3: request min-fresh", "cc=max-age=60", {}, { ["Cache-Control"] = "min-fresh=61" }, "MISS EXPIRED" },
    { "5.2.1.4: request no-cache", "cc=max-age=60&etag=a", {}, { ["Cache-Control"] = "no-cache" }, "MISS REVALIDATED" },
    { "5.2.1.5: request no-store", "cc=max-age=60", { ["Cache-Control"] = "no-store" }, {}, "BYPASS MISS" },
    { "5.2.2.4: no-cache", "cc=no-cache&etag=a", {}, {}, "MISS REVALIDATED" },
    { "14.2: Range passes by", "cc=max-age=60", { Range = "bytes=0-1" }, { Range = "bytes=0-1" }, "BYPASS BYPASS" },
    { "13.1.1: If-Match passes by", "cc=max-age=60", { ["If-Match"] = '"a"' }, {}, "BYPASS MISS" },
    { "status 404 is kept when it says so", "cc=max-age=60&status=404", {}, {}, "MISS HIT" },
    { "status 500 is not", "status=500", {}, {}, "MISS BYPASS" },
  } do
    it(case[1], function() assert.equal(case[5], outcomes(path(case[2]), case[3], case[4])) end)
  end

  it("5.2.1.7: only-if-cached never asks the origin", function()
    local target = path("cc=max-age=60")
    assert.equal(504, get(target, { ["Cache-Control"] = "only-if-cached" }).status)
    assert.equal(504, get(target, { ["Cache-Control"] = "only-if-cached", Range = "bytes=0-1" }).status)
    assert.equal(504, get(target, { ["Cache-Control"] = "only-if-cached, no-store" }).status)
    assert.equal(0, asked_origin(target))
    get(target)
    local answer = get(target, { ["Cache-Control"] = "only-if-cached" })
    assert.same({ 200, "HIT" }, { answer.status, answer.headers["x-cache"] })
  end)

  it("answers HEAD from GET, and GET from what HEAD brought", function()
    local target = path("cc=max-age=60")
    local head = get(target, nil, "HEAD")
    assert.same({ 200, "MISS", "" }, { head.status, head.headers["x-cache"], head.body })
    local answer = get(target)
    assert.same({ "HIT", head.headers["content-length"] }, { answer.headers["x-cache"], tostring(#answer.body) })
    assert.matches("^1 GET", answer.body)
    assert.equal("HIT", get(target, nil, "HEAD").headers["x-cache"])
  end)

  it("answers 304 to who has it, on a miss and on a hit", function()
    local target = path("cc=max-age=60&etag=v1")
    for _, outcome in ipairs { "MISS", "HIT" } do
      local answer = get(target, { ["If-None-Match"] = 'W/"v1"' })
      assert.same({ 304, outcome, '"v1"', "" }, { answer.status, answer.headers["x-cache"], answer.headers.etag, answer.body })
    end
    assert.equal(200, get(target, { ["If-None-Match"] = '"v0"' }).status)
    assert.equal(1, asked_origin(target))
  end)

  it("asks the origin by its ETag for what has expired, and keeps the body", function()
    local target = path("cc=max-age=60&etag=v1")
    local first = get(target)
    pass_time(61)
    local second = get(target)
    assert.same({ 200, "REVALIDATED", first.body, nil },
      { second.status, second.headers["x-cache"], second.body, second.headers.age })
    assert.equal("HIT", get(target).headers["x-cache"])
    assert.equal(2, asked_origin(target))
  end)

  it("loads anew what has expired and has no validator", function()
    local target = path("cc=max-age=60")
    get(target)
    pass_time(61)
    local second = get(target)
    assert.equal("MISS", second.headers["x-cache"])
    assert.matches("^2 ", second.body)
  end)

  it("gives what is stale while it loads it anew, once", function()
    local target = path("cc=max-age=60,stale-while-revalidate=60")
    get(target)
    pass_time(61)
    origin:body("/become?held=1")
    local going = {}
    for i = 1, 8 do going[i] = front:open(target) end
    for i = 1, 8 do
      local answer = going[i]:read()
      assert.same({ "STALE", "1 " }, { answer.headers["x-cache"], answer.body:sub(1, 2) })
      assert.is_true(tonumber(answer.headers.age) >= 61)
    end
    assert.is_true(origin_holds(target, 1))
    origin:body("/become")
    assert.is_true(origin_is_asked(target, 2))
    assert.is_truthy(database.eventually(function() return get(target).headers["x-cache"] == "HIT" end))
    assert.equal(2, asked_origin(target))
  end)

  it("has nobody who keeps his connection wait for what is loaded after the answer", function()
    local target, kept = path("cc=max-age=60,stale-while-revalidate=60"), { headers = { Connection = "keep-alive" } }
    assert.equal("keep-alive", front:get(target, kept).headers.connection)
    assert.equal("keep-alive", front:get(target, kept).headers.connection)
    pass_time(61)
    origin:body("/become?held=1")
    local answer = front:get(target, kept)
    assert.same({ "STALE", "keep-alive, close" }, { answer.headers["x-cache"], answer.headers.connection }) -- nginx adds its own
    answer = front:get(target, kept) -- the origin has not answered yet
    assert.same({ "STALE", "keep-alive" }, { answer.headers["x-cache"], answer.headers.connection })
    origin:body("/become")
    assert.is_truthy(database.eventually(function() return get(target).headers["x-cache"] == "HIT" end))
  end)

  it("does not give it beyond that time", function()
    local target = path("cc=max-age=60,stale-while-revalidate=60")
    get(target)
    pass_time(121)
    assert.matches("^2 ", get(target).body)
  end)

  for _, status in ipairs { 500, 502, 503, 504 } do
    it("gives what is stale when the origin answers " .. status, function()
      local target = path("cc=max-age=60,stale-if-error=600")
      get(target)
      pass_time(61)
      origin:body("/become?status=" .. status)
      local answer = get(target)
      assert.same({ 200, "STALE", "1 " }, { answer.status, answer.headers["x-cache"], answer.body:sub(1, 2) })
      pass_time(600) -- 661 in all
      assert.equal(status, get(target).status)
      origin:body("/become")
      pass_time(2)
      assert.equal(200, get(target).status)
    end)
  end

  for _, directive in ipairs { "must-revalidate", "proxy-revalidate" } do
    it("gives no stale answer after " .. directive, function()
      local target = path(("cc=max-age=60,stale-if-error=600,%s&etag=a"):format(directive))
      get(target)
      pass_time(61)
      origin:body("/become?status=503")
      assert.equal(503, get(target).status)
    end)
  end

  it("stores nothing of an answer that breaks off", function()
    local target = path("cc=max-age=60&breaks=1")
    local answer = get(target)
    assert.same({ 502, "MISS" }, { answer.status, answer.headers["x-cache"] })
    assert.matches("^2 ", get((target:gsub("breaks=1", "x"))).body)
  end)

  it("goes on loading for others when the first client hangs up", function()
    local target = path("cc=max-age=60")
    origin:body("/become?held=1")
    local first = front:open(target)
    assert.is_true(origin_holds(target, 1))
    local second = front:open(target)
    first:abort()
    origin:body("/become")
    assert.matches("^1 GET", second:read().body)
    assert.equal("HIT", get(target).headers["x-cache"])
    assert.equal(1, asked_origin(target))
  end)

  it("keeps nothing of requests whose key would not be surely their own", function()
    local target = path("cc=max-age=60&vary=X-Last")
    local many = {}
    for i = 1, 210 do many["X-" .. i] = "1" end
    assert.equal("BYPASS", get(target, many).headers["x-cache"])
    assert.equal("BYPASS", get("http://other" .. target).headers["x-cache"])
    -- What some origins answer in another way than the place that it looks like.
    assert.equal("BYPASS", get(target .. "#x").headers["x-cache"])
    assert.equal("BYPASS", get(target, { Host = "localhost." }).headers["x-cache"])
    assert.equal("MISS", get("http://localhost" .. target).headers["x-cache"])
    assert.equal("HIT", get(target).headers["x-cache"])
  end)

  it("answers everybody under load while it is reloaded and the origin's answers change", function()
    local target = path("cc=max-age=1,stale-while-revalidate=60&slow=0.05")
    get(target)
    local load = front:start_load { path = target, connections = 16, seconds = 3 }
    for _ = 1, 2 do
      assert.is_truthy(front:reload())
      pass_time(2)
    end
    local result = load:read()
    assert.same({ 0, 0, 0 }, { result.not_2xx, result.connect, result.timeout }, result.text)
    assert.is_true(result.requests > 100, result.text)
    assert.is_true(asked_origin(target) <= 10) -- once for each second and worker at most, not for each request
  end)

  it("sends one request to the origin for many that miss", function()
    local target = path("cc=max-age=60")
    origin:body("/become?held=1")
    local going = {}
    for i = 1, 20 do going[i] = front:open(target) end
    assert.is_true(origin_holds(target, 1))
    origin:body("/become")
    for i = 1, 20 do assert.matches("^1 GET", going[i]:read().body) end
    assert.equal(1, asked_origin(target))
  end)

  it("does not hold up requests one by one for what is not kept", function()
    local target = path ""
    get(target)
    origin:body("/become?held=1")
    local going = {}
    for i = 1, 10 do going[i] = front:open(target) end
    assert.is_true(origin_holds(target, 10))
    origin:body("/become")
    for i = 1, 10 do assert.equal(200, going[i]:read().status) end
  end)

  it("lets a request that changes something invalidate its URI, when it succeeded", function()
    local target = path("cc=max-age=60")
    get(target)
    local answer = front:get(target, { method = "POST", body = "hello" })
    assert.same({ 200, "BYPASS" }, { answer.status, answer.headers["x-cache"] })
    assert.matches("POST .* hello$", answer.body)
    assert.equal("MISS", get(target).headers["x-cache"])
    origin:body("/become?status=500")
    assert.equal(500, front:get(target, { method = "DELETE" }).status)
    assert.equal("HIT", get(target).headers["x-cache"])
  end)

  it("passes bodies that are on disk, and methods that it does not know", function()
    local body = ("0123456789abcdef"):rep(20000)
    local answer = front:get(path(""), { method = "PUT", body = body })
    local expected = assert(require("fpcache.core").run { argv = { "md5sum" }, input = body }).output:match("^%x+")
    assert.equal(expected, answer.body)
    answer = front:get(path("cc=max-age=60"), { method = "REPORT" })
    assert.same({ 200, "BYPASS" }, { answer.status, answer.headers["x-cache"] })
    assert.matches("^1 REPORT", answer.body)
  end)

  it("purges a URL with all its variants", function()
    local target, other = path("cc=max-age=60&vary=Accept-Language"), path("cc=max-age=60")
    get(other)
    outcomes(target, { ["Accept-Language"] = "de" }, { ["Accept-Language"] = "en" })
    local escaped = ("http://localhost" .. target .. "#part"):gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end)
    assert.equal("true", front:body("/purge?url=" .. escaped))
    assert.equal("MISS MISS", outcomes(target, { ["Accept-Language"] = "de" }, { ["Accept-Language"] = "en" }))
    assert.equal("HIT", get(other).headers["x-cache"])
  end)

  it("purges by tag, hard and softly, and shows no tags to clients", function()
    local a, b = path("cc=max-age=60,stale-while-revalidate=60&tags=shop-1%20all"), path("cc=max-age=60&tags=shop-2%20all")
    assert.is_nil(get(a).headers["surrogate-key"])
    get(b)
    assert.is_nil(get(a).headers["surrogate-key"])
    assert.equal("1", front:body("/purge?tag=shop-2"))
    assert.equal("HIT", get(a).headers["x-cache"])
    assert.equal("MISS", get(b).headers["x-cache"])
    assert.equal("2", front:body("/purge?tag=all&soft=1"))
    assert.equal("STALE", get(a).headers["x-cache"])
    assert.equal("EXPIRED", get(b).headers["x-cache"])
  end)

  it("answers PURGE requests: of their own URL, or of the tags that they name", function()
    local target, other = path("cc=max-age=60&tags=shop-9"), path("cc=max-age=60")
    get(target)
    get(other)
    local answer = get(other, nil, "PURGE")
    assert.same({ 200, "purged\n" }, { answer.status, answer.body })
    assert.equal("HIT", get(target).headers["x-cache"])
    assert.equal("MISS", get(other).headers["x-cache"])
    answer = get(other, { ["Surrogate-Key"] = "shop-9 shop-10" }, "PURGE")
    assert.same({ 200, "purged\n" }, { answer.status, answer.body })
    assert.equal("MISS", get(target).headers["x-cache"])
    assert.equal("HIT", get(other).headers["x-cache"])
  end)

  it("has one key for what is equivalent", function()
    local target = path("cc=max-age=60&x=%7e")
    get(target)
    assert.equal("HIT", get((target:gsub("%%7e", "~"))).headers["x-cache"])
    assert.equal("HIT", get(target .. "&utm_source=x", { Host = "LOCALHOST:80" }).headers["x-cache"])
    assert.equal("MISS", get(target, { Host = "other" }).headers["x-cache"])
  end)

  it("passes large bodies, and knows them for a while", function()
    local target = path("cc=max-age=60&bytes=1001")
    assert.equal("MISS BYPASS BYPASS", outcomes(target, {}, {}, {}))
    assert.equal(1001, #get(target).body)
    assert.equal("MISS HIT", outcomes(path("cc=max-age=60&bytes=1000"), {}, {}))
  end)

  it("does as it is told beyond the rules", function()
    local function larger(query) return "/larger" .. path(query) end
    assert.equal("MISS HIT", outcomes(larger("cookie=a"), {}, {})) -- default_ttl, store_set_cookie
    assert.equal("MISS HIT", outcomes(larger("cc=private,max-age=9"), { Authorization = "x" }, {}))
    assert.equal("MISS MISS HIT", outcomes(larger(""), { ["X-Shop"] = "1" }, { ["X-Shop"] = "2" }, { ["X-Shop"] = "1" }))
    assert.equal("MISS HIT", outcomes(larger(""), {}, { ["Cache-Control"] = "no-cache" }))
    assert.equal("BYPASS BYPASS", outcomes(larger("bypass=1"), {}, {}))
  end)
end)

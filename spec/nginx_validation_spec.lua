-- nginx_validation_spec.lua -- RFC 9111 through a real nginx, of what an origin says byte by byte: validation (4.3), invalidation
-- (4.4), what clients ask (5.2.1), fields that are not kept (3.1).
local database = require "support.database"
local nginx = require "support.nginx"
local responses = require "support.responses"

if not nginx.is_testable then return end

describe("fpcache.nginx.cache_response, by RFC 9111:", function()
  local db, front, origin
  local number, passed = 0, 0
  local request, ok = responses.request, responses.ok

  setup(function()
    db = database.new()
    origin = responses.by_hand()
    front = responses.front(origin.port, { connection_string = db:url_of(), feed = false },
      { server = "server_name example.org;" })
  end)

  before_each(function()
    passed = 0
    front:body("/later?by=0")
  end)

  teardown(function()
    assert.is_true(front:stop())
    origin:close()
    db:close_all()
  end)

  local function exchange(...) return origin:exchange(front, ...) end

  --- A path of this test alone.
  local function path()
    number = number + 1
    return "/v" .. number
  end

  --- Lets time pass for what is kept.
  local function pass_time(seconds)
    passed = passed + seconds
    db:age(seconds)
    front:body("/later?by=" .. passed)
  end

  local function with(target, fields) return request(target, "Host: example.org\r\n" .. fields) end

  local function not_modified(fields) return "HTTP/1.1 304 Not Modified\r\n" .. fields .. "\r\n" end

  it("4.3.1, 4.3.4: the origin is asked by what is kept, and its 304 renews the fields and the age", function()
    local target, modified = path(), "Sun, 06 Nov 1994 08:49:37 GMT"
    local fields = "Cache-Control: max-age=60\r\nETag: \"a\"\r\nX-A: 1\r\nLast-Modified: " .. modified .. "\r\n"
    exchange(request(target), ok(fields, "old"))
    pass_time(61)
    local answer, heard = exchange(with(target, "If-None-Match: \"client\"\r\nIf-Modified-Since: " .. modified .. "\r\n"),
      not_modified("ETag: \"a\"\r\nCache-Control: max-age=600\r\nX-A: 2\r\nAge: 5\r\nContent-Length: 9\r\n"))
    assert.matches('\nIf%-None%-Match: "a"\n', heard)
    assert.matches("\nIf-Modified-Since: " .. modified .. "\n", heard, 1, true)
    assert.same({ 200, "REVALIDATED", "old", "2", "5", "3" }, { answer.status, answer.headers["x-cache"], answer.body,
      answer.headers["x-a"], answer.headers.age, answer.headers["content-length"] })
    pass_time(500)
    answer = exchange(request(target))
    assert.same({ "HIT", "old", "2" }, { answer.headers["x-cache"], answer.body, answer.headers["x-a"] })
  end)

  it("4.3.4: a 304 about another response changes nothing; the origin is asked for all of it", function()
    local target = path()
    exchange(request(target), ok("Cache-Control: max-age=60\r\nETag: \"a\"\r\n", "old"))
    pass_time(61)
    local answer, heard = exchange(request(target), not_modified("ETag: \"b\"\r\n"),
      ok("Cache-Control: max-age=60\r\nETag: \"b\"\r\n", "new"))
    assert.is_nil(heard:find("If-None-Match", 1, true))
    assert.same({ "EXPIRED", "new" }, { answer.headers["x-cache"], answer.body })
    assert.equal("new", exchange(request(target)).body)
  end)

  it("4.3.4: a 304 that withdraws the lifetime is the last answer from what was kept", function()
    local target = path()
    exchange(request(target), ok("Cache-Control: max-age=60\r\nETag: \"a\"\r\n", "old"))
    pass_time(61)
    local answer = exchange(request(target), not_modified("ETag: \"a\"\r\nCache-Control: no-store\r\n"))
    assert.same({ "REVALIDATED", "old" }, { answer.headers["x-cache"], answer.body })
    assert.equal("BYPASS", exchange(request(target), ok(nil, "new")).headers["x-cache"])
  end)

  it("4.3.2: clients are told 304 by date, too", function()
    local target, modified = path(), "Sun, 06 Nov 1994 08:49:37 GMT"
    exchange(request(target), ok("Cache-Control: max-age=60\r\nLast-Modified: " .. modified .. "\r\n"))
    local answer = exchange(with(target, "If-Modified-Since: " .. modified .. "\r\n"))
    assert.same({ 304, "HIT", modified }, { answer.status, answer.headers["x-cache"], answer.headers["last-modified"] })
    assert.equal(200, exchange(with(target, "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n")).status)
    assert.equal(200, exchange(with(target, "If-None-Match: \"x\"\r\nIf-Modified-Since: " .. modified .. "\r\n")).status)
  end)

  it("4.2.3: the age that caches before us counted goes on", function()
    local target = path()
    local answer = exchange(request(target), ok("Cache-Control: max-age=60\r\nAge: 30\r\n"))
    assert.same({ "MISS", "30" }, { answer.headers["x-cache"], answer.headers.age })
    pass_time(20)
    answer = exchange(request(target))
    assert.equal("HIT", answer.headers["x-cache"])
    assert.is_true(tonumber(answer.headers.age) >= 50)
    pass_time(11)
    assert.equal("MISS", exchange(request(target), ok()).headers["x-cache"])
  end)

  for _, directive in ipairs { "no-cache", "max-age=0", "max-age=600", "min-fresh=1" } do
    it(("5.2.1: a client with %s is not given what is stale, unless the origin fails"):format(directive), function()
      local target, kept = path(), "Cache-Control: max-age=60, stale-while-revalidate=600, stale-if-error=600\r\nETag: \"a\"\r\n"
      local asking = with(target, ("Cache-Control: %s\r\n"):format(directive))
      exchange(request(target), ok(kept, "old"))
      pass_time(61)
      local answer = exchange(asking, ok(kept, "new"))
      assert.same({ "EXPIRED", "new" }, { answer.headers["x-cache"], answer.body })
      pass_time(61)
      answer = exchange(asking, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
      assert.same({ 200, "STALE", "new" }, { answer.status, answer.headers["x-cache"], answer.body })
    end)
  end

  it("5.2.1.2: a client with max-age that takes what is stale is given it", function()
    local target = path()
    exchange(request(target), ok("Cache-Control: max-age=60, stale-while-revalidate=600\r\n", "old"))
    pass_time(61)
    local answer = exchange(with(target, "Cache-Control: max-age=600, max-stale=60\r\n"), ok(nil, "new"))
    assert.same({ "STALE", "old" }, { answer.headers["x-cache"], answer.body })
  end)

  it("5.4: Pragma of a client is not heeded", function()
    local target = path()
    exchange(request(target), ok(nil, "kept"))
    assert.equal("HIT", exchange(with(target, "Pragma: no-cache\r\n")).headers["x-cache"])
  end)

  it("3.5: credentials and no-cache take nothing from others", function()
    local target = path()
    exchange(request(target), ok(nil, "kept"))
    local answer = exchange(with(target, "Authorization: Basic eDp5\r\nCache-Control: no-cache\r\n"), ok(nil, "for you alone"))
    assert.same({ "EXPIRED", "for you alone" }, { answer.headers["x-cache"], answer.body })
    answer = exchange(request(target))
    assert.same({ "HIT", "kept" }, { answer.headers["x-cache"], answer.body })
  end)

  it("3.1, 5.2.2: fields of private and no-cache are not kept, nor those of one hop", function()
    local target = path()
    exchange(request(target), ok("Cache-Control: max-age=60, private=\"X-P\", no-cache=\"Set-Cookie, X-N\"\r\n"
      .. "X-P: 1\r\nX-N: 1\r\n"
      .. "Set-Cookie: a=b\r\nKeep-Alive: 5\r\nProxy-Authenticate: Basic\r\nX-Stays: 1\r\n"))
    local answer = exchange(request(target))
    assert.same({ "HIT", "1" }, { answer.headers["x-cache"], answer.headers["x-stays"] })
    for _, name in ipairs { "x-p", "x-n", "set-cookie", "keep-alive", "proxy-authenticate" } do
      assert.is_nil(answer.headers[name], name)
    end
  end)

  it("3.3: a part that nobody asked for is not kept", function()
    local target = path()
    local part = "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 0-1/9\r\n"
      .. "Content-Length: 2\r\n\r\nab"
    assert.same({ 206, "ab" }, { exchange(request(target), part).status, exchange(request(target), part).body })
  end)

  it("6585, 4: \"too many requests\" is not kept, though it says for how long", function()
    local target = path()
    local refusal = "HTTP/1.1 429 Too Many Requests\r\nCache-Control: max-age=60\r\nContent-Length: 0\r\n\r\n"
    for _ = 1, 2 do assert.equal(429, exchange(request(target), refusal).status) end
  end)

  it("4.4: a change invalidates what its answer names of the same origin", function()
    local named, other, changed = path(), path(), path()
    for _, target in ipairs { named, other } do exchange(request(target), ok(nil, "old")) end
    local post = ("POST %s HTTP/1.1\r\nHost: example.org\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"):format(changed)
    exchange(post, ("HTTP/1.1 303 See Other\r\nLocation: http://example.org%s#x\r\nContent-Location: http://elsewhere.org%s\r\n"
      .. "Content-Length: 0\r\n\r\n"):format(named, other))
    assert.equal("new", exchange(request(named), ok(nil, "new")).body)
    assert.equal("HIT", exchange(request(other)).headers["x-cache"])
    exchange(post, ("HTTP/1.1 400 Bad\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"):format(named))
    assert.equal("HIT", exchange(request(named)).headers["x-cache"])
  end)

  it("4.4: a method that nobody knows counts as a change", function()
    local target = path()
    exchange(request(target), ok(nil, "old"))
    local strange = ("STRANGE %s HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n"):format(target)
    local answer = exchange(strange, ok(nil, "done"))
    assert.same({ "BYPASS", "done" }, { answer.headers["x-cache"], answer.body })
    assert.equal("new", exchange(request(target), ok(nil, "new")).body)
  end)
end)

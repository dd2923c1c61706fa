-- nginx_hostile_spec.lua -- requests and answers of origins that are made to confuse a cache; the origin is this process.
local database = require "support.database"
local nginx = require "support.nginx"
local responses = require "support.responses"

if not nginx.is_testable then return end

describe("fpcache.nginx.cache_response, of what is hostile:", function()
  local db, front, origin
  local number = 0

  setup(function()
    db = database.new()
    origin = responses.by_hand()
    local port = origin.port
    front = responses.front(port, { connection_string = db:url_of(), feed = false }, { server = [[
      server_name example.org;
      location /hasty/ { content_by_lua_block {
        require("fpcache.nginx").response(ngx.var.http_x_hasty and "hasty" or "default"):serve()
      } }
      location = /hasty_origin {
        internal;
        proxy_pass http://127.0.0.1:]] .. port .. [[$request_uri;
        proxy_read_timeout 100ms;
      }
      location /careful/ { content_by_lua_block { require("fpcache.nginx").response("careful"):serve() } }
      location = /careful_origin {
        internal;
        proxy_pass http://127.0.0.1:]] .. port .. [[$request_uri;
        proxy_set_header Host $http_host;
        proxy_pass_header Date;
        proxy_hide_header X-Cache;
        header_filter_by_lua_block {
          if not ngx.is_subrequest then ngx.header["Surrogate-Key"], ngx.header["Cache-Tag"] = nil, nil end
        }
      }
    ]], init_worker = [[
      nginx.cache_response { name = "hasty", location = "/hasty_origin" }.now = now
      nginx.cache_response { name = "careful", location = "/careful_origin" }
    ]] })
  end)

  teardown(function()
    assert.is_true(front:stop())
    origin:close()
    db:close_all()
  end)

  --- A path of this test alone.
  local function path()
    number = number + 1
    return "/h" .. number
  end

  local function exchange(said, answer) return origin:exchange(front, said, answer) end

  local request, ok = responses.request, responses.ok

  it("a request without Host takes no other's place", function()
    local target = path()
    for _, line in ipairs { "GET %s HTTP/1.0\r\n\r\n", "GET http://example.org%s HTTP/1.0\r\n\r\n" } do
      local answer, heard = exchange(line:format(target), ok(nil, "of the origin's default host"))
      assert.is_nil(heard:match("Host"))
      assert.equal("BYPASS", answer.headers["x-cache"])
    end
    exchange("GET " .. target .. "\r\n", ok(nil, "of the origin's default host")) -- HTTP/0.9
    assert.equal("MISS", exchange(request(target), ok(nil, "its own")).headers["x-cache"])
    assert.equal("its own", exchange(request(target)).body)
  end)

  it("fields with underscores mean what nginx makes of them", function()
    local target = path()
    local fields = "Cache-Control: max-age=60\r\nTransfer_Encoding: chunked\r\nX_A: 1\r\nX-A: 2\r\n"
    local answer = exchange(request(target), ok(fields))
    for _, outcome in ipairs { "MISS", "HIT" } do
      assert.same({ outcome, "ok", "2" }, { answer.headers["x-cache"], answer.body, answer.headers["content-length"] })
      assert.is_nil(answer.headers["transfer-encoding"])
      assert.matches("^[12], [12]$", answer.headers["x-a"])
      if outcome == "MISS" then answer = exchange(request(target)) end
    end
    target = path()
    exchange(request(target), ok("Cache-Control: max-age=60\r\nSet_Cookie: session=1\r\n"))
    assert.equal("BYPASS", exchange(request(target), ok()).headers["x-cache"])
  end)

  for _, status in ipairs { "100 Continue", "103 Early Hints", "101 Switching Protocols" } do
    it("an answer that begins with " .. status .. " is none", function()
      local answer = exchange(request(path()), ("HTTP/1.1 %s\r\nLink: </x>\r\n\r\n%s"):format(status, ok(nil, "split")))
      assert.same({ 502, "" }, { answer.status, answer.body })
    end)
  end

  it("a 304 that nobody asked for is none", function()
    local target = path()
    assert.equal(502, exchange(request(target), "HTTP/1.1 304 Not Modified\r\nCache-Control: max-age=60\r\n\r\n").status)
  end)

  for name, answer in pairs {
    ["a body that is shorter than its Content-Length"] = "Content-Length: 20\r\n\r\nshort",
    ["chunks that do not end"] = "Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ["chunks that are none"] = "Transfer-Encoding: chunked\r\n\r\nzz\r\nshort\r\n0\r\n\r\n",
    ["a head that breaks off"] = "X-A: ",
  } do
    it(name .. " is not kept", function()
      local target = path()
      assert.equal(502, exchange(request(target), "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n" .. answer).status)
      assert.not_equal("HIT", exchange(request(target), ok(nil, "whole")).headers["x-cache"])
    end)
  end

  it("what follows a body, and trailers, are left out", function()
    local target, chunked = path(), path()
    exchange(request(target), ok() .. "HTTP/1.1 200 OK\r\n\r\n")
    assert.equal("ok", exchange(request(target)).body)
    exchange(request(chunked), "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n"
      .. "Trailer: Set-Cookie\r\n\r\n2\r\nok\r\n0\r\nSet-Cookie: a=b\r\n\r\n")
    local answer = exchange(request(chunked))
    assert.same({ "HIT", "ok" }, { answer.headers["x-cache"], answer.body })
    assert.is_nil(answer.headers["set-cookie"])
    assert.is_nil(answer.headers.trailer)
  end)

  it("what is encoded is not given to who cannot read it, whatever Vary says", function()
    local target = path()
    local with_gzip = request(target, "Host: example.org\r\nAccept-Encoding: gzip\r\n")
    exchange(with_gzip, ok("Cache-Control: max-age=60\r\nContent-Encoding: gzip\r\n", "zipped"))
    assert.equal("plain", exchange(request(target), ok(nil, "plain")).body)
    assert.equal("zipped", exchange(with_gzip).body)
    assert.equal("plain", exchange(request(target)).body)
  end)

  it("a client whose reload the origin refuses takes nothing from others", function()
    local function refused(status, target)
      exchange(request(target), ok(nil, "kept"))
      local answer = exchange(request(target, "Host: example.org\r\nCache-Control: no-cache\r\nX-Evil: 1\r\n"),
        ("HTTP/1.1 %s\r\nContent-Length: 3\r\n\r\nno!"):format(status))
      assert.same({ tonumber(status:match("%d+")), "no!" }, { answer.status, answer.body })
    end
    for _, status in ipairs { "400 Bad Request", "403 Forbidden", "431 Too Large" } do
      local target = path()
      refused(status, target)
      local answer = exchange(request(target))
      assert.same({ "HIT", "kept" }, { answer.headers["x-cache"], answer.body })
    end
    local target = path()
    refused("404 Not Found", target) -- of this others shall know
    assert.equal("BYPASS", exchange(request(target), ok()).headers["x-cache"])
  end)

  it("an origin that says nothing is given up; what is stale is given", function()
    local target = "/hasty" .. path()
    exchange(request(target), ok("Cache-Control: max-age=60, stale-if-error=600\r\n", "old"))
    db:age(61)
    front:body("/later?by=61")
    local answer = exchange(request(target, "Host: example.org\r\nX-Hasty: 1\r\n"), "")
    assert.same({ 200, "STALE", "old" }, { answer.status, answer.headers["x-cache"], answer.body })
    assert.equal(504, exchange(request("/hasty" .. path(), "Host: example.org\r\nX-Hasty: 1\r\n"), "").status)
    front:body("/later?by=0")
  end)

  it("an argument hides no other behind a semicolon", function()
    local target = path()
    exchange(request(target .. "?a=1&utm_source=x;a=evil"), ok(nil, "evil"))
    assert.equal("good", exchange(request(target .. "?a=1"), ok(nil, "good")).body)
  end)

  it("Cache-Control on lines of different case is one", function()
    local target = path()
    exchange(request(target), ok("Cache-Control: max-age=60\r\ncache-control: private\r\n"))
    assert.equal("BYPASS", exchange(request(target), ok()).headers["x-cache"])
  end)

  it("by what the documentation's location says, an origin's Date counts, and its tags and X-Cache are not shown", function()
    local target = "/careful" .. path()
    local old = "Cache-Control: max-age=60\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    assert.equal("Sun, 06 Nov 1994 08:49:37 GMT", exchange(request(target), ok(old)).headers.date)
    local answer = exchange(request(target), ok("Surrogate-Key: a\r\nCache-Tag: b\r\nX-Cache: HIT\r\n")) -- it came too old
    assert.equal("BYPASS", answer.headers["x-cache"])
    assert.is_nil(answer.headers["surrogate-key"] or answer.headers["cache-tag"])
    target = "/careful" .. path()
    exchange(request(target), ok("Cache-Control: max-age=60\r\nSurrogate-Key: shown\r\n"))
    assert.equal("HIT", exchange(request(target)).headers["x-cache"])
    assert.equal(1, tonumber(db:sql("SELECT count(*) FROM cache WHERE 'shown' = ANY (tags)")))
  end)
end)

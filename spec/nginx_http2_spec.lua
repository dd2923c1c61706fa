-- nginx_http2_spec.lua -- cached responses for clients that speak HTTP/2, of which nginx's Lua makes no subrequests.
local core = require "fpcache.core"
local database = require "support.database"
local nginx = require "support.nginx"
local responses = require "support.responses"

if not nginx.is_testable then return end

describe("fpcache.nginx.cache_response and HTTP/2", function()
  local db, origin, front, port
  local number = 0

  setup(function()
    db = database.new()
    origin = responses.origin()
    port = nginx.free_ports(3)
    -- The second way is the documentation's: HTTP/2 ends at one server, and goes on to the cache by HTTP/1.1.
    local servers = ([[
      lua_shared_dict clock 1m;
      server {
        listen 127.0.0.1:%d http2;
        location / {
          proxy_pass http://127.0.0.1:%d;
          proxy_http_version 1.1;
          proxy_set_header Host $http_host;
          proxy_pass_header Date;
        }
      }
    ]]):format(port + 1, port)
    front = responses.front(origin.port, { connection_string = db:url_of(), feed = false }, {
      server = ("listen 127.0.0.1:%d; listen 127.0.0.1:%d http2;"):format(port, port + 2), http = servers })
  end)

  teardown(function()
    assert.is_true(front:stop())
    assert.is_true(origin:stop())
    db:close_all()
  end)

  --- A path of this test alone.
  local function path(query)
    number = number + 1
    return ("/two%d?%s"):format(number, query)
  end

  --- A request by HTTP/2: to the cache itself, or to the server before it.
  ---@return string X-Cache and body
  local function get(target, at, ...)
    local result = assert(core.run { timeout = 20, argv = { "curl", "-si", "--http2-prior-knowledge", "-H", "Host: localhost",
      ("http://127.0.0.1:%d%s"):format(at, target), ... } })
    assert.matches("^HTTP/2 200", result.output)
    return result.output:match("x%-cache: (%u+)") .. " " .. result.output:match("\r\n\r\n(.*)$")
  end

  it("gives what is kept, and lets the rest pass by", function()
    local target = path("cc=max-age=60&vary=Accept-Language")
    for n = 1, 2 do assert.equal(("BYPASS %d GET - - -"):format(n), get(target, port + 2)) end
    assert.equal("MISS", front:get(target).headers["x-cache"])
    assert.equal("HIT 3 GET - - -", get(target, port + 2))
    assert.equal("BYPASS 4 GET de - -", get(target, port + 2, "-H", "Accept-Language: de"))
    assert.equal(1, select(2, front:log():gsub("requests by HTTP/2 are answered from what is kept", "")))
  end)

  it("gives nothing stale, since it could not load it anew", function()
    local target = path("cc=max-age=60,stale-while-revalidate=60")
    front:get(target)
    db:age(61)
    front:body("/later?by=61")
    assert.equal("BYPASS 2 GET - - -", get(target, port + 2))
    assert.equal("STALE", front:get(target).headers["x-cache"])
    front:body("/later?by=0")
  end)

  it("lets a request that changes something invalidate its URI", function()
    local target = path("cc=max-age=60")
    front:get(target)
    assert.equal("BYPASS 2 POST - - hello", get(target, port + 2, "-d", "hello"))
    assert.equal("MISS", front:get(target).headers["x-cache"])
  end)

  it("keeps all rules where HTTP/2 ends at a server before it", function()
    local target = path("cc=max-age=60")
    assert.equal("MISS 1 GET - - -", get(target, port + 1))
    assert.equal("HIT 1 GET - - -", get(target, port + 1))
    assert.equal("BYPASS 2 POST - - hello", get(target, port + 1, "-d", "hello"))
    assert.equal("MISS 3 GET - - -", get(target, port + 1))
  end)
end)

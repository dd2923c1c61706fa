-- A cache inside nginx whose passwords end: requests notice nothing, and each worker has one thread that fetches them.
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local lakebase = require "support.lakebase"
local nginx = require "support.nginx"
local threads = require "support.threads"

if not nginx.is_testable then return end

local system = core.system

local LIFE = 3 -- seconds, of a password; connections live for one

describe("passwords that end, inside nginx", function()
  local lake, server

  setup(function()
    lake = lakebase.start { shared = true } -- each password lives until its own end, whatever another worker fetched
    lake.ws:set { credential_life = LIFE }
    local ca_file = lake.tls .. "/workspace.pem" -- nginx runs as another user, who may not enter the workspace's folder
    local from, to = assert(io.open(lake.ws.ca_file)), assert(io.open(ca_file, "w"))
    to:write(from:read("*a"))
    from:close()
    to:close()
    assert(fpcache.setup_cache { connection_string = lake.srv.url, grant = "public" })
    server = nginx.start {
      workers = 2, shares_out = true,
      cache = lake:options { auth = lake.ws:m2m { ca_file = ca_file }, max_lifetime = 1, feed = true },
      server = [[
        location = /get { content_by_lua_block {
          local value, err = require("fpcache.nginx").cache():get("k", { near = false })
          if value ~= "v" then ngx.status = 503 ngx.print(tostring(err)) ngx.log(ngx.ERR, tostring(err)) end
        } }
        location = /set { content_by_lua_block {
          local cache = require("fpcache.nginx").cache()
          local ok, err = cache:set("k", "v")
          if ok then ok, err = cache:transaction(function(tx) return tx:get("k") end) end
          if not ok then ngx.status = 503 ngx.print(err) ngx.log(ngx.ERR, err) end
        } }
        location = /token { content_by_lua_block {
          local token = require("fpcache.nginx").cache():stats().token
          token.worker = ngx.worker.pid()
          ngx.print(require("fpcache.core").json_encode(token))
        } } ]],
    }
  end)
  teardown(function()
    assert.is_true(server:stop())
    lake:stop()
  end)

  --- The token's numbers of each worker.
  local function tokens()
    local found, count = {}, 0
    assert.is_truthy(database.eventually(function()
      local token = core.json_decode(server:body("/token"))
      if not found[token.worker] then count = count + 1 end
      found[token.worker] = token
      return count == 2
    end))
    return found
  end

  it("no request fails", function()
    assert.is_truthy(database.eventually(function() return server:get("/set").status == 200 end), server:log():sub(-3000))
    local before, deadline = tokens(), system.now() + 60
    local requests, rotated = 0
    repeat
      for _, path in ipairs { "/get", "/set" } do
        local load = server:load { path = path, connections = 8, seconds = 1 }
        assert.equal(0, load.not_2xx + load.timeout + load.connect + load.read, load.text .. server:log():sub(-2000))
        requests = requests + load.requests
      end
      rotated = true
      for pid, token in pairs(tokens()) do
        if token.refreshes - before[pid].refreshes < 2 then rotated = false end
      end
    until rotated or system.now() > deadline
    assert.is_true(rotated)
    assert.is_true(requests > 50, requests)
    for pid, token in pairs(tokens()) do
      assert.equal(0, token.failures, core.json_encode(token))
      assert.equal(1, threads.count(pid, "fpcache-token"))
    end
    assert.is_nil(server:log():match("%[error%]"), server:log())
  end)
end)

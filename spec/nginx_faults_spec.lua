-- What goes wrong around a cache inside nginx: servers that are away, stall or die; workers that end; clients that hang up.
local core = require "fpcache.core"
local database = require "support.database"
local nginx = require "support.nginx"
local postgres = require "support.server"

if not nginx.is_testable then return end

local system = core.system

local LOCATIONS = [[
  location = /get { content_by_lua_block {
    local value, err = require("fpcache.nginx").cache():get(ngx.unescape_uri(ngx.var.arg_k or "k"), { near = false })
    if err then ngx.status = 503 end
    ngx.print(err or tostring(value))
  } }
  location = /near { content_by_lua_block {
    local value, err, source = require("fpcache.nginx").cache():get("k")
    if err then ngx.status = 503 end
    ngx.print(err or source)
  } }
  location = /set { content_by_lua_block {
    ngx.req.read_body()
    local ok, err = require("fpcache.nginx").cache():set(ngx.var.arg_k or "k", ngx.req.get_body_data() or "v", 600)
    if err then ngx.status = 503 end
    ngx.print(err or tostring(ok))
  } }
  location = /fetch { content_by_lua_block {
    local value, err, source = require("fpcache.nginx").cache():fetch(ngx.var.arg_k or "f", 60, function() return "loaded" end)
    ngx.print(tostring(value), " ", tostring(err), " ", tostring(source))
  } }
  location = /stats { content_by_lua_block { ngx.print(require("fpcache.core").json_encode(require("fpcache.nginx").stats())) } }
  location = /empty { content_by_lua_block { ngx.print("empty") } }
]]

describe("nginx and its faults", function()
  local srv, url, server -- a PostgreSQL of this spec's own: it is killed

  setup(function()
    srv = postgres.new()
    url = srv:fresh_database()
    assert(require("fpcache.admin").setup { connection_string = url })
  end)
  teardown(function() srv:destroy() end)
  before_each(function() srv:start() end)
  after_each(function()
    if server then assert.is_true(server:stop()) end
    server = nil
  end)

  local function start(cache, more)
    local opts = { cache = { connection_string = url, max_staleness = 0.5, feed_interval = 0.02 }, server = LOCATIONS }
    for name, value in pairs(cache or {}) do opts.cache[name] = value end
    for name, value in pairs(more or {}) do opts[name] = value end
    server = nginx.start(opts)
    return server
  end

  local function stats() return core.json_decode(server:body("/stats")) end

  local function eventually_ok(path)
    return database.eventually(function() return server:get(path).status == 200 end)
  end

  it("starts without a server, and recovers by itself", function()
    srv:stop()
    start()
    local answer = server:get("/get")
    assert.equal(503, answer.status)
    assert.matches("^connect:", answer.body)
    assert.equal("loaded nil loader", server:body("/fetch"))
    assert.equal("empty", server:body("/empty"))
    srv:start()
    assert.is_truthy(eventually_ok("/get"))
    assert.equal("true", server:body("/set"))
    assert.equal("v", server:body("/get"))
    assert.equal("loaded nil loader", server:body("/fetch?k=again"))
    assert.equal("loaded nil db", server:body("/fetch?k=again"):gsub("near", "db"))
    assert.matches("cannot be opened yet", server:log())
  end)

  it("says what is wrong with its options, and starts all the same", function()
    start { port = 5432, schema = "" }
    assert.matches("cannot be used: invalid:", server:log())
    assert.equal(500, server:get("/get").status)
    assert.equal("empty", server:body("/empty"))
  end)

  it("goes on when the server is killed in mid-load", function()
    start { timeout = 60 }
    server:body("/set")
    local load = server:start_load { path = "/get", connections = 16, seconds = 3 }
    srv:restart("crash")
    local result = load:read()
    assert.equal(0, result.timeout + result.read + result.connect, result.text)
    assert.is_truthy(eventually_ok("/get"))
    assert.is_truthy(database.eventually(function() return stats().in_flight == 0 end), "who waits, waits in vain")
  end)

  it("keeps its deadlines while a backend is stalled, and serves the others", function()
    start { timeout = 2, pipeline_silence = 0.2, pipeline_readers = 1 }
    server:body("/set")
    server:body("/get")
    local pids = srv:sql("SELECT pid FROM pg_stat_activity " ..
      "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()", url)
    for pid in pids:gmatch("%d+") do assert(system.kill(tonumber(pid), 19)) end
    local stalled, meanwhile = {}, 0
    for i = 1, 20 do stalled[i] = server:open("/set?k=s" .. i, { method = "POST", body = "x" }) end
    local function one_waits()
      for i = 1, 20 do
        if not stalled[i]:has_answer() then return true end
      end
    end
    for _ = 1, 20 do
      assert.equal("empty", server:body("/empty"))
      if one_waits() then meanwhile = meanwhile + 1 end
    end
    assert.is_true(meanwhile >= 5, meanwhile .. " were served while others waited")
    -- What was on its way has to wait in vain; what was gathered behind it goes over another connection.
    local late = 0
    for i = 1, 20 do
      local answer = stalled[i]:read()
      if answer.status == 503 then
        late = late + 1
        assert.matches("^timeout:", answer.body)
      else
        assert.equal(200, answer.status)
      end
    end
    assert.is_true(late >= 1)
    assert.is_truthy(eventually_ok("/get")) -- over another connection
    for pid in pids:gmatch("%d+") do system.kill(tonumber(pid), 18) end
    assert.is_truthy(database.eventually(function() return stats().in_flight == 0 end))
  end)

  it("queues ten thousand requests", function()
    start({}, { init_worker = [[
      package.loaded.many = function(n)
        local cache, failed, first = require("fpcache.nginx").cache(), 0, nil
        local threads = {}
        for i = 1, n do
          threads[i] = ngx.thread.spawn(function()
            local value, err = cache:get("k", { near = false })
            if value ~= "v" then failed, first = failed + 1, first or err end
          end)
        end
        for i = 1, n do ngx.thread.wait(threads[i]) end
        return failed .. " failed " .. tostring(first)
      end]], server = LOCATIONS .. [[
      location = /many { content_by_lua_block { ngx.print(package.loaded.many(tonumber(ngx.var.arg_n))) } } ]] })
    server:body("/set")
    assert.equal("0 failed nil", server:body("/many?n=10000"))
    assert.equal("0 failed nil", server:body("/many?n=12000")) -- more than may be on their way: the rest waits for room
    local now = stats()
    assert.equal(0, now.in_flight)
    assert.is_true(now.requests >= 22000)
  end)

  it("takes oversize values and keys as errors", function()
    start({ max_value_bytes = 1000, max_key_bytes = 100 }, { server = "client_body_buffer_size 64k;\n" .. LOCATIONS })
    assert.matches("^invalid: a value of 2000 bytes", server:get("/set", { method = "POST", body = ("x"):rep(2000) }).body)
    assert.matches("^invalid: a key of 200 bytes", server:get("/get?k=" .. ("k"):rep(200)).body)
    assert.equal("true", server:body("/set?k=small"))
  end)

  it("loses nothing by clients that hang up", function()
    start({ timeout = 60 }, { server = LOCATIONS .. [[
      location = /abort { lua_check_client_abort on; content_by_lua_block {
        ngx.on_abort(function() ngx.exit(499) end)
        -- sets of one key are not gathered, and gathered ones of others wait behind the first
        local cache, n = require("fpcache.nginx").cache(), tonumber(ngx.var.arg_n)
        if n % 2 == 0 then cache:set("locked", 1, { keep_ttl = true }) else cache:set("aborted " .. n, n) end
      } }
      location = /kill { content_by_lua_block {
        local cache = require("fpcache.nginx").cache()
        local thread = ngx.thread.spawn(function() cache:set("locked", 2, { keep_ttl = true }) end)
        ngx.sleep(0.01)
        ngx.thread.kill(thread)
        ngx.print("killed")
      } } ]] })
    server:body("/set?k=locked")
    local locker = assert(require("fpcache").new { connection_string = url, feed = false })
    assert(locker:transaction(function(tx)
      assert(tx:set("locked", 2))
      local hung = {}
      for i = 1, 30 do hung[i] = server:open("/abort?n=" .. i) end
      for _ = 1, 10 do assert.equal("killed", server:body("/kill")) end
      assert.is_truthy(database.eventually(function() return stats().in_flight >= 25 end))
      for i = 1, 30 do hung[i]:abort() end
      system.sleep(0.1)
      return true
    end))
    locker:close()
    assert.is_truthy(database.eventually(function() return stats().in_flight == 0 end), server:body("/stats"))
    assert.equal("true", server:body("/set"))
    assert.equal("29", server:body("/get?k=aborted%2029")) -- nobody waited for it any more
    assert.is_truthy(server:reload(10)) -- nginx itself would wait for 20 s
  end)

  it("replaces a worker that is killed", function()
    start({}, { workers = 2 })
    server:body("/set")
    local load = server:start_load { path = "/get", connections = 8, seconds = 2 }
    local victim = server:workers()[1]
    server:signal("KILL", victim)
    local result = load:read()
    assert.equal(0, result.not_2xx, result.text)
    assert.is_truthy(database.eventually(function() return #server:workers() == 2 end))
    for _, pid in ipairs(server:workers()) do assert.not_equal(victim, pid) end
    assert.is_truthy(eventually_ok("/get"))
  end)

  it("reloads under load without a failed request", function()
    start({}, { workers = 2 })
    server:body("/set")
    local load = server:start_load { path = "/get", connections = 16, seconds = 4 }
    for i = 1, 3 do
      if i > 1 then system.sleep(0.6) end
      assert.is_truthy(server:reload(10), "the old workers go on") -- nginx itself would wait for 20 s
    end
    local result = load:read()
    assert.equal(0, result.not_2xx, result.text)
    assert.equal(0, result.timeout + result.connect, result.text)
    assert.is_nil(server:log():match("exited on signal"), server:log())
    assert.is_nil(server:log():match("%[alert%]"), server:log())
    assert.is_nil(server:log():match("%[error%]"), server:log())
  end)

  it("answers what is on its way when it is reloaded, and ends then", function()
    start { timeout = 60 }
    server:body("/set?k=locked")
    local locker, old, slow = assert(require("fpcache").new { connection_string = url, feed = false }), server:workers()[1], nil
    assert(locker:transaction(function(tx)
      assert(tx:set("locked", 2))
      slow = server:open("/set?k=locked", { method = "POST", body = "late" })
      assert.is_truthy(database.eventually(function() return stats().in_flight == 1 end))
      server:signal("HUP")
      assert.is_truthy(database.eventually(function() return tonumber(server:body("/alive")) ~= old end))
      assert.is_true(system.kill(old, 0)) -- it waits for the answer
      assert.is_false(slow:has_answer())
      return true
    end))
    locker:close()
    local answer = slow:read()
    assert.same({ 200, "true" }, { answer.status, answer.body })
    assert.is_truthy(database.eventually(function() return not system.kill(old, 0) end, 10)) -- nginx itself would wait for 20 s
    assert.equal("late", server:body("/get?k=locked"))
  end)

  it("writes what was queued before a worker ends", function()
    start({}, { workers = 2, http = "lua_shared_dict n 1m;", server = LOCATIONS .. [[
      location = /log {
        content_by_lua_block { ngx.print("logged") }
        log_by_lua_block {
          local n = ngx.shared.n:incr("n", 1, 0)
          local ok, err = require("fpcache.nginx").cache():namespace("log"):set_later("request " .. n, n, 600)
          if not ok then ngx.shared.n:incr("refused", 1, 0) end
        }
      }
      location = /n { content_by_lua_block {
        ngx.print((ngx.shared.n:get("n") or 0) - (ngx.shared.n:get("refused") or 0)) } } ]] })
    local load = server:start_load { path = "/log", connections = 8, seconds = 2 }
    for _ = 1, 2 do
      assert.is_truthy(server:reload(10))
      system.sleep(0.3)
    end
    local result = load:read()
    assert.equal(0, result.not_2xx + result.timeout + result.connect, result.text)
    local cache = assert(require("fpcache").new { connection_string = url, feed = false, namespace = "log" })
    local expected
    assert.is_truthy(database.eventually(function()
      expected = tonumber(server:body("/n")) -- each time: what was asked for last may still be logged
      return cache:count() == expected
    end), ("%d of %d were written"):format(cache:count(), expected))
    assert.is_true(expected > 20, expected)
    cache:close()
    assert.is_nil(server:log():match("%[error%]"), server:log())
  end)

  it("ends at once by a fast stop, under load", function()
    start({}, { workers = 2 })
    server:body("/set")
    local load = server:start_load { path = "/get", connections = 16, seconds = 2 }
    assert.is_true(server:stop("TERM")) -- within 10 s; nginx itself would wait for 20
    load:read()
    assert.is_nil(server:log():match("exited on signal"), server:log())
    server = nil
    assert.is_truthy(database.eventually(function()
      return srv:sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'", url) == "1"
    end))
  end)

  it("upgrades its program without a failed request", function()
    start()
    server:body("/set")
    local load = server:start_load { path = "/get", connections = 8, seconds = 3 }
    local old = server:pid()
    server:signal("USR2", old)
    assert.is_truthy(database.eventually(function() return server:pid() ~= nil and server:pid() ~= old end))
    server:signal("QUIT", old)
    assert.is_truthy(database.eventually(function() return not system.kill(old, 0) end))
    local result = load:read()
    assert.equal(0, result.not_2xx + result.timeout + result.connect, result.text)
    assert.equal("v", server:body("/get"))
    for _, trouble in ipairs { "exited on signal", "%[alert%]", "%[error%]" } do
      assert.is_nil(server:log():match(trouble), server:log())
    end
  end)

  it("works with lua_code_cache off, and warns once", function()
    start({}, { http = "lua_code_cache off;" })
    server:body("/set")
    for _ = 1, 5 do assert.equal("v", server:body("/get")) end
    local _, warnings = server:log():gsub("fpcache: lua_code_cache is off", "")
    assert.equal(1, warnings)
    assert.is_nil(server:log():match("exited on signal"), server:log())
  end)

  it("looks for answers where no socket can be made", function()
    start({ wake_dir = "/proc/none" }, { init_worker = [[
      local core = require("fpcache.core")
      core.bell = function(dir) return nil, "denied: no sockets in " .. dir end]] })
    assert.equal("true", server:body("/set"))
    assert.equal("v", server:body("/get"))
    assert.matches("no folder to make a socket in", server:log())
    assert.is_truthy(server:reload(10))
  end)

  it("takes no more memory the longer it runs", function()
    start({}, { init_worker = "collectgarbage('setpause', 100)" })
    local pid = server:workers()[1]
    local function use(seconds)
      for _, path in ipairs { "/get", "/near", "/set", "/fetch" } do
        server:load { path = path, connections = 16, seconds = seconds }
      end
      local file = assert(io.open(("/proc/%d/status"):format(pid)))
      local kilobytes = tonumber(file:read("*a"):match("VmRSS:%s+(%d+)"))
      file:close()
      return kilobytes
    end
    server:body("/set")
    use(1)
    local before = use(1)
    local after = use(2)
    assert.is_true(after - before < 1500, ("%d kB, then %d kB"):format(before, after))
    assert.equal(pid, server:workers()[1])
  end)

  it("leaves no folder behind", function()
    start()
    server:body("/set")
    local pid = server:workers()[1]
    for _, dir in ipairs { "/dev/shm", "/tmp" } do
      for _, name in ipairs(system.readdir(dir)) do
        local found = name:match("^fpcache%-......$") and system.lstat(dir .. "/" .. name .. "/bell")
        assert.is_nil(found or nil, dir .. "/" .. name .. " of worker " .. pid)
      end
    end
  end)
end)

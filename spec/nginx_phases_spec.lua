-- What a cache does in each phase of nginx: near cache, filter and set_later everywhere, the server where one can wait.
local core = require "fpcache.core"
local database = require "support.database"
local nginx = require "support.nginx"
local private_ca = require "support.private_ca"

if not nginx.is_testable then return end

local system = core.system

local PROBE = [[
  local results = {}
  local function text(value, err, source) return tostring(value) .. "|" .. tostring(err) .. "|" .. tostring(source) end
  package.loaded.probe = setmetatable({ results = results }, { __call = function(_, phase)
    local cache = require("fpcache.nginx").cache()
    if not cache or results[phase] then return end
    results[phase] = {
      name = ngx.get_phase(), near = text(cache:get("known")), filter = text(cache:get("unknown")),
      server = text(cache:get("known", { near = false })), set = text(cache:set("set in " .. phase, 1)),
      fetch = text(cache:fetch("fetched in " .. phase, 60, function() return "loaded" end)),
      fetch_near = text(cache:fetch("known", 60, error)),
      many = text(cache:get_many { "known", "elsewhere" }), many_far = text(cache:get_many({ "known" }, { near = false })),
      ready = text(cache:wait_ready(1)),
      later = text(cache:set_later("later in " .. phase, phase, 60)), gone = text(cache:delete_later("to go")),
    }
  end })
  local cache, err = require("fpcache").new { connection_string = "postgresql:///x" }
  results.init = { opened = tostring(cache), err = err }
]]

describe("phases of nginx", function()
  local db, server, results, folder, tls_port

  setup(function()
    db = database.new()
    local call = 'require("probe")'
    folder = assert(system.mkdtemp("/tmp/fpcache-spec-tls-"))
    tls_port = nginx.free_ports()
    local certificate, key = private_ca.new(folder):certificate("server")
    for _, path in ipairs { folder, certificate, key } do assert(system.chmod(path, tonumber("755", 8))) end
    server = nginx.start {
      cache = { connection_string = db:url_of(), max_staleness = 5, feed_interval = 0.02 },
      http = ("init_by_lua_block { %s }\n"):format(PROBE) .. ([[
        upstream chosen { server 127.0.0.1:1; balancer_by_lua_block {
          PROBE "balancer"
          require("ngx.balancer").set_current_peer("127.0.0.1", ngx.var.server_port)
        } }]]):gsub("PROBE", call) .. ([[
        server {
          listen 127.0.0.1:%d ssl;
          ssl_certificate %s;
          ssl_certificate_key %s;
          ssl_protocols TLSv1.2;
          ssl_session_tickets off;
          ssl_client_hello_by_lua_block { PROBE "ssl_client_hello" }
          ssl_certificate_by_lua_block { PROBE "ssl_cert" }
          location / { return 200 "over TLS"; }
        }
        ssl_session_fetch_by_lua_block { PROBE "ssl_session_fetch" }
        ssl_session_store_by_lua_block { PROBE "ssl_session_store" }
        exit_worker_by_lua_block {
          PROBE "exit_worker"
          ngx.log(ngx.NOTICE, "at the end: ", require("fpcache.core").json_encode(require("probe").results.exit_worker))
        } ]]):format(tls_port, certificate, key):gsub("PROBE", call),
      init_worker = ([[PROBE "init_worker early"]]):gsub("PROBE", call),
      server = ([[
        location = /prepare { content_by_lua_block {
          local cache = require("fpcache.nginx").cache()
          assert(cache:wait_ready(10))
          assert(cache:set("known", "value"))
          assert(cache:set("to go", 1))
          assert(cache:wait_ready(10))
          ngx.print(cache:get("known") .. cache:get("known"))
          assert(ngx.timer.at(0, function() PROBE "timer" end))
        } }
        location = /all {
          set_by_lua_block $x { PROBE "set" return 1 }
          rewrite_by_lua_block { PROBE "rewrite" }
          access_by_lua_block { PROBE "access" }
          content_by_lua_block { PROBE "content" ngx.print("done") }
          header_filter_by_lua_block { PROBE "header_filter" }
          body_filter_by_lua_block { PROBE "body_filter" }
          log_by_lua_block { PROBE "log" }
        }
        location = /balanced { proxy_pass http://chosen/alive; }
        location = /unknown { content_by_lua_block {
          local probe = require("probe")
          -- a phase that a later nginx may have
          local get_phase = ngx.get_phase
          ngx.get_phase = function() return "dreaming" end
          package.loaded["fpcache.nginx.phases"] = nil
          local err = require("fpcache.nginx.phases").refusal()
          ngx.get_phase = get_phase
          ngx.print(err)
        } }
        location = /results { content_by_lua_block {
          ngx.print(require("fpcache.core").json_encode(require("probe").results)) } }
        location = /later { content_by_lua_block {
          ngx.print(require("fpcache.core").json_encode(require("fpcache.nginx").cache():stats().later)) } }
      ]]):gsub("PROBE", call),
    }
    assert.equal("valuevalue", server:body("/prepare"))
    assert.equal("done", server:body("/all"))
    assert.matches("^%d+$", server:body("/balanced"))
    for _, session in ipairs { "-sess_out", "-sess_in" } do -- the second one offers the session of the first
      local handshake = assert(core.run { argv = { "openssl", "s_client", "-connect", "127.0.0.1:" .. tls_port, "-quiet",
        session, folder .. "/session" }, input = "GET / HTTP/1.0\r\n\r\n", timeout = 20 })
      assert.matches("over TLS", handshake.output)
    end
    results = core.json_decode(server:body("/results"))
  end)

  teardown(function()
    assert.is_true(server:stop())
    db:close_all()
    assert(system.remove_tree(folder))
  end)

  for _, phase in ipairs { "rewrite", "access", "content", "timer", "ssl_cert" } do
    it(phase .. " can wait", function()
      local seen = results[phase]
      assert.equal(phase, seen.name)
      assert.equal("value|nil|near", seen.near)
      assert.equal("nil|nil|filter", seen.filter)
      assert.equal("value|nil|db", seen.server)
      assert.matches("^true|nil|", seen.set)
      assert.equal("loaded|nil|loader", seen.fetch)
      assert.equal("value|nil|near", seen.fetch_near)
      assert.matches("^table", seen.many)
      assert.matches("^table", seen.many_far)
      assert.equal("true|nil|nil", seen.ready)
      assert.equal("true|nil|nil", seen.later)
    end)
  end

  for _, phase in ipairs { "set", "header_filter", "body_filter", "log", "balancer", "ssl_client_hello", "ssl_session_fetch",
    "ssl_session_store" } do
    it(phase .. " cannot wait, and what needs no waiting works", function()
      local seen = results[phase]
      local refusal = "nil|invalid: only the server knows the answer, and nginx's phase " .. phase
        .. " cannot wait for it (near cache, filter and set_later work in every phase; see docs/nginx.md)|nil"
      assert.equal(phase, seen.name)
      assert.equal("value|nil|near", seen.near)
      assert.equal("nil|nil|filter", seen.filter)
      assert.equal(refusal, seen.server)
      assert.equal(refusal, seen.set)
      assert.equal(refusal, seen.fetch)
      assert.equal("value|nil|near", seen.fetch_near)
      assert.matches("^table", seen.many) -- one is near, the other one known to be absent
      assert.equal(refusal, seen.many_far)
      assert.equal(refusal, seen.ready)
      assert.equal("true|nil|nil", seen.later)
      assert.equal("true|nil|nil", seen.gone)
    end)
  end

  it("init opens nothing, init_worker opens later", function()
    assert.equal("nil", results.init.opened)
    assert.matches("^invalid: what is opened in init_by_lua", results.init.err)
    assert.equal("init_worker", results["init_worker early"].name)
    assert.matches("^nil|connect: the server has not answered yet|nil", results["init_worker early"].near)
    assert.equal("true|nil|nil", results["init_worker early"].later)
  end)

  it("one that is not known cannot wait", function()
    assert.matches("nginx's phase dreaming cannot wait", server:body("/unknown"))
  end)

  it("writes later from all of them", function()
    local cache = db:open()
    for _, phase in ipairs { "init_worker early", "set", "rewrite", "access", "content", "header_filter", "body_filter", "log",
      "balancer", "timer", "ssl_cert" } do
      assert.is_truthy(database.eventually(function() return cache:get("later in " .. phase) == phase end), phase)
    end
    assert.is_truthy(database.eventually(function() return cache:get("to go") == nil end))
    local later
    assert.is_truthy(database.eventually(function()
      later = core.json_decode(server:body("/later"))
      return later.queued == 0
    end))
    assert.equal(0, later.failed + later.dropped)
    assert.is_true(later.done >= 20)
  end)

  it("exit_worker has what is near, and nothing else", function()
    local old = server:workers()
    assert.is_truthy(server:reload(20))
    local text
    assert.is_truthy(database.eventually(function()
      text = server:log():match("at the end: (%b{})")
      return text
    end), #old .. " " .. server:log():sub(-2000))
    local seen = core.json_decode(text)
    assert.equal("exit_worker", seen.name)
    assert.equal("value|nil|near", seen.near)
    assert.equal("nil|nil|filter", seen.filter)
    assert.matches("^nil|invalid: .*nginx's phase exit_worker cannot wait", seen.server)
    assert.matches("^nil|invalid: .*nginx's phase exit_worker cannot wait", seen.set)
    assert.equal("nil|closed: the worker ends, and nothing is written any more|nil", seen.later)
  end)

  it("logs no error", function()
    assert.is_nil(server:log():match("%[error%]"), server:log())
    assert.is_nil(server:log():match("%[alert%]"), server:log())
  end)
end)

-- What the workers of an nginx share: an answer of the server to one is given out by the others, and never too late.
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local nginx = require "support.nginx"

local now = core.system.now

describe("shared_dict outside nginx", function()
  it("is refused", function()
    local db = database.new()
    local cache, err = fpcache.new { connection_string = db:url_of(), shared_dict = "x" }
    assert.is_nil(cache)
    assert.equal("invalid: shared_dict is for nginx, whose workers share it", err)
    db:close_all()
  end)
end)

if not nginx.is_testable then return end

local STALENESS = 0.4
local SERVER = [[
  location = /get { content_by_lua_block {
    local cache = require("fpcache.nginx").cache(ngx.var.arg_cache)
    local value, err, source = cache:get(ngx.var.arg_k)
    ngx.print(ngx.worker.pid(), " ", tostring(value), " ", tostring(err), " ", tostring(source))
  } }
  location = /fetch { content_by_lua_block {
    local value, err, source = require("fpcache.nginx").cache():fetch(ngx.var.arg_k, 60, function()
      ngx.sleep(0.3)
      ngx.shared.counts:incr("loads", 1, 0)
      return "loaded"
    end)
    ngx.print(ngx.worker.pid(), " ", tostring(value), " ", tostring(err), " ", tostring(source))
  } }
  location = /fetch_many { content_by_lua_block {
    local cache, key = require("fpcache.nginx").cache(), ngx.var.arg_k
    local values, err, sources = cache:fetch_many({ key }, 60, error)
    ngx.print(ngx.worker.pid(), " ", tostring(values and values[key]), " ", tostring(err), " ", tostring(sources[key]))
  } }
  location = /none { content_by_lua_block {
    local cache, policy = require("fpcache.nginx").cache(), { ttl = 60, negative_ttl = 60 }
    local value, err = cache:fetch(ngx.var.arg_k, policy, function() end)
    local _, also, sources = cache:fetch_many({ ngx.var.arg_k }, policy, error)
    ngx.print(ngx.worker.pid(), " ", tostring(value), " ", tostring(err or also), " ", sources[ngx.var.arg_k])
  } }
  location = /down { content_by_lua_block {
    local cache = require("fpcache.nginx").cache(ngx.var.arg_cache)
    local function load() return nil, "origin: down" end
    local value, err, source = cache:fetch(ngx.var.arg_k, { ttl = 60, stale_ttl = 600 }, load)
    ngx.print(ngx.worker.pid(), " ", tostring(value), " ", tostring(err), " ", tostring(source))
  } }
  location = /many { content_by_lua_block {
    local values = require("fpcache.nginx").cache():get_many { ngx.var.arg_k, "none of these" }
    ngx.print(ngx.worker.pid(), " ", tostring(values[ngx.var.arg_k]))
  } }
  location = /set { content_by_lua_block {
    local cache = require("fpcache.nginx").cache(ngx.var.arg_cache)
    ngx.print(ngx.worker.pid(), " ", tostring(cache:set(ngx.var.arg_k, ngx.var.arg_v)))
  } }
  location = /ready { content_by_lua_block {
    ngx.print(ngx.worker.pid(), " ", tostring(require("fpcache.nginx").cache(ngx.var.arg_cache):wait_ready(5)))
  } }
  location = /loads { content_by_lua_block { ngx.print(ngx.shared.counts:get("loads") or 0) } }
  location = /stats { content_by_lua_block {
    ngx.print(ngx.worker.pid(), " ", require("fpcache.core").json_encode(require("fpcache.nginx").cache():stats().shared))
  } }
  location = /dump { content_by_lua_block {
    for _, key in ipairs(ngx.shared.tier:get_keys(0)) do ngx.print(key, " ", ngx.shared.tier:get(key), "\n") end
  } }
  location = /save { content_by_lua_block {
    for _, key in ipairs(ngx.shared.tier:get_keys(0)) do ngx.shared.counts:set(key, ngx.shared.tier:get(key)) end
  } }
  location = /restore { content_by_lua_block {
    for _, key in ipairs(ngx.shared.counts:get_keys(0)) do ngx.shared.tier:set(key, ngx.shared.counts:get(key)) end
  } }
]]

describe("what the workers of an nginx share", function()
  local srv, url, server, writer

  setup(function()
    srv = require("support.server").new() -- it is stopped in between
    url = srv:fresh_database()
    assert(require("fpcache.admin").setup { connection_string = url })
    writer = assert(fpcache.new { connection_string = url, feed = false })
    local key = ("k"):rep(32)
    server = nginx.start {
      workers = 3, shares_out = true,
      -- without a near cache: what is shared answers every time
      cache = { connection_string = url, shared_dict = "tier", near_size = 0, max_staleness = STALENESS, feed_interval = 0.02,
        near_negative_ttl = 5 },
      init_worker = ([[
        require("fpcache.nginx").init_worker { name = "sealed", connection_string = %q, shared_dict = "tier",
          encrypt = { keys = { k1 = %q } }, namespace = "sealed", near_size = 0, max_staleness = %f }
        require("fpcache.nginx").init_worker { name = "wrong", connection_string = %q, shared_dict = "no such" }
        require("fpcache.nginx").init_worker { name = "both", connection_string = %q, shared_dict = "tier" }
      ]]):format(url, key, STALENESS, url, url),
      http = "lua_shared_dict tier 4m; lua_shared_dict counts 1m;", server = SERVER,
    }
  end)

  teardown(function()
    writer:close()
    assert.is_true(server:stop())
    srv:destroy()
  end)

  --- Asks until one of (or: other than) the workers has answered; what follows its number.
  local function ask(path, pid, is_other)
    local answer
    assert(database.eventually(function()
      local by, text = server:body(path):match("^(%d+) (.*)$")
      answer = { pid = by, text = text }
      return not pid or (by == pid) ~= (is_other or false)
    end, 10), "no other worker answers")
    return answer
  end

  --- All workers know everything that is committed now.
  local function all_ready()
    local seen, count = {}, 0
    assert(database.eventually(function()
      local answer = ask("/ready")
      assert.equal("true", answer.text)
      if not seen[answer.pid] then seen[answer.pid], count = true, count + 1 end
      return count == 3
    end, 20))
  end

  it("is an answer for the others", function()
    assert(writer:set("a", "one"))
    all_ready()
    local first = ask("/get?k=a")
    assert.equal("one nil db", first.text)
    assert.equal("one nil shared", ask("/get?k=a").text)
    assert.equal("one nil shared", ask("/get?k=a", first.pid, true).text)
    assert.equal("one", ask("/many?k=a", first.pid, true).text)
    assert.equal("one nil shared", ask("/fetch?k=a").text)
    assert.equal("one nil shared", ask("/fetch_many?k=a", first.pid, true).text)
  end)

  it("is what fetch_many got, too", function()
    assert(writer:set("m", "two"))
    all_ready()
    assert.equal("two nil db", ask("/fetch_many?k=m").text)
    assert.equal("two nil shared", ask("/fetch_many?k=m").text)
    assert.equal("two nil shared", ask("/get?k=m").text)
  end)

  it("is nothing that a loader said not to be there, which is no answer for get", function()
    all_ready()
    for _ = 1, 2 do assert.equal("nil nil db", ask("/none?k=nothing").text) end
  end)

  it("goes into the near cache", function()
    assert(writer:set("near", "one"))
    all_ready()
    ask("/ready?cache=both")
    ask("/get?k=near")
    local answer = ask("/get?k=near&cache=both")
    assert.equal("one nil shared", answer.text)
    assert.equal("one nil near", ask("/get?k=near&cache=both", answer.pid).text)
  end)

  it("holds what is absent too", function()
    assert(writer:set("gone", 1))
    all_ready() -- the filter has it
    assert(writer:delete("gone"))
    all_ready()
    assert.equal("nil nil db", ask("/get?k=gone").text)
    assert.equal("nil nil shared", ask("/get?k=gone").text)
  end)

  it("is refused by who knows of a later change", function()
    assert(writer:set("b", "old"))
    all_ready()
    ask("/get?k=b")
    assert.equal("old nil shared", ask("/get?k=b").text)
    server:body("/save")
    local by = ask("/set?k=b&v=new").pid
    local own = ask("/get?k=b", by).text -- its own write, at once; another worker may have shared it again by now
    if own ~= "new nil shared" then assert.equal("new nil db", own) end
    all_ready()
    server:body("/restore") -- as a slower worker might
    for _ = 1, 10 do
      assert.matches("^new nil", ask("/get?k=b").text)
      server:body("/restore")
    end
    assert.matches('"refused":%d', ask("/stats").text)
  end)

  it("is never older than max_staleness", function()
    local committed, last = {}, 0
    local began, checked = now(), 0
    while now() < began + 3 or (checked <= 100 or last <= 20) and now() < began + 30 do
      if not committed[last] or now() - committed[last] > 0.03 then
        last = last + 1
        assert(writer:set("ticks", last))
        committed[last] = now()
      end
      local asked = now()
      local text = server:body("/get?k=ticks"):match("^%d+ (%w+) nil")
      local value = text == "nil" and 0 or tonumber(text) -- none yet
      if value < last then
        local age = asked - committed[value + 1]
        assert.is_true(age < STALENESS, ("got %d, overwritten %.3f s before"):format(value, age))
      end
      checked = checked + 1
    end
    assert.is_true(checked > 100 and last > 20)
  end)

  it("is encrypted where the cache encrypts", function()
    ask("/ready?cache=sealed")
    assert.equal("true", ask("/set?cache=sealed&k=s&v=plainly").text)
    all_ready()
    for _ = 1, 30 do assert.matches("^%d+ plainly nil", server:body("/get?cache=sealed&k=s")) end
    local dump = server:body("/dump")
    assert.is_truthy(dump:find("6:sealeds ", 1, true))
    assert.is_nil(dump:find("plainly", 1, true))
  end)

  it("is loaded by one worker for all", function()
    local going = {}
    for i = 1, 30 do going[i] = server:open("/fetch?k=single") end
    for i = 1, 30 do assert.matches("^%d+ loaded nil", going[i]:read().body) end
    assert.equal("1", server:body("/loads"))
  end)

  it("needs a dictionary", function()
    assert.matches("there is no lua_shared_dict no such", server:log())
  end)

  it("says nothing without a fresh feed", function()
    assert(writer:set("c", "kept"))
    all_ready()
    ask("/get?k=c")
    assert.equal("kept nil shared", ask("/get?k=c").text)
    local keeper = ask("/get?k=c&cache=both").pid -- the only one whose near cache has it
    srv:stop()
    core.system.sleep(STALENESS + 0.1)
    for _ = 1, 10 do assert.matches("^nil connect:", ask("/get?k=c").text) end
    for _ = 1, 5 do assert.equal("nil origin: down loader", ask("/down?k=c").text) end
    -- what a worker has in its own near cache it may give, as stale
    assert.equal("kept nil stale", ask("/down?k=c&cache=both", keeper).text)
    assert.equal("nil origin: down loader", ask("/down?k=c&cache=both", keeper, true).text)
    srv:start()
  end)
end)

-- events_spec.lua -- what a watched cache tells, and that watching changes nothing else.
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local layers = require "support.layers"

--- Runs Lua with these globals, on any Lua.
local function run_in(code, env)
  local chunk = assert((rawget(_G, "loadstring") or load)("local _ENV = ...\n" .. code))
  if rawget(_G, "setfenv") then rawget(_G, "setfenv")(chunk, env) end
  return chunk(env)
end

describe("a watched cache", function()
  local db, events

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    events = {}
  end)
  after_each(function() db:close_all() end)

  local function watched(opts)
    local options = { on_event = function(event) events[#events + 1] = event end }
    for name, value in pairs(opts or {}) do options[name] = value end
    return db:open(options)
  end

  --- The one event of the last call.
  local function told()
    local calls = {}
    for _, event in ipairs(events) do
      if event.kind == "call" then calls[#calls + 1] = event end
    end
    events = {}
    assert.equal(1, #calls)
    return calls[1]
  end

  it("tells each call once, with what it came to", function()
    local cache = watched()
    local before = core.system.wall()
    assert.is_true((cache:set("k", "value", 60)))
    local event = told()
    assert.equal("set", event.name)
    assert.equal("k", event.key)
    assert.equal("", event.namespace)
    assert.equal("done", event.outcome)
    assert.equal(5, event.bytes)
    assert.is_true(event.seconds > 0 and event.seconds < 5)
    assert.is_true(math.abs(event.at - before) < 5)
    assert.equal("value", cache:get("k"))
    event = told()
    assert.equal("hit", event.outcome)
    assert.equal("db", event.source)
    assert.equal(5, event.bytes)
    cache:get("none")
    assert.equal("miss", told().outcome)
    assert.is_false(cache:add("k", 1))
    assert.equal("refused", told().outcome)
    assert.equal("value", (cache:get("k", { near = true }))) -- calls get inside: told once all the same
    assert.equal("hit", told().outcome)
    assert(cache:set_many { a = 1, b = 2 })
    assert.equal(2, told().count)
    assert.equal(1, cache:get_many({ "a", "zz" }).a)
    event = told()
    assert.equal(2, event.keys)
    assert.equal(1, event.count)
    assert.equal("made", (cache:fetch("new", 60, function() return "made" end)))
    event = told()
    assert.equal("loaded", event.outcome)
    assert.equal("loader", event.source)
    assert.equal(-2, cache:ttl("nowhere"))
    assert.equal("miss", told().outcome)
    assert.is_true(cache:delete("k"))
    assert.equal("done", told().outcome)
    assert.is_true(cache:ping())
    assert.equal("ping", told().name)
  end)

  it("tells who answered without the server", function()
    local cache = watched { feed = true, max_staleness = layers.STALENESS, feed_interval = 0.02 }
    assert(cache:wait_ready(20))
    assert(cache:set("k", { some = "table" }))
    layers.warm(cache, "k")
    events = {}
    cache:get("k")
    local event = told()
    assert.equal("near", event.source)
    assert.equal(#'{"some":"table"}', event.bytes)
    cache:get("none")
    event = told()
    assert.equal("miss", event.outcome)
    assert.equal("filter", event.source)
    local stats = cache:stats()
    assert.is_true(stats.events.calls > 3)
    assert.equal(0, stats.events.errors)
  end)

  it("tells failures with their code", function()
    local cache = watched()
    local value, err = cache:get("")
    assert.is_nil(value)
    local event = told()
    assert.equal("error", event.outcome)
    assert.equal("invalid", event.code)
    assert.equal(err, event.error)
    assert.equal(1, cache:stats().events.errors)
  end)

  it("blames the caller's line, and passes on what a function of his raised", function()
    local cache = watched()
    local line = debug.getinfo(1, "l").currentline + 1
    local ok, err = pcall(function() cache:get(5) end)
    assert.is_false(ok)
    assert.matches("events_spec.lua:" .. line .. ": bad key", err, 1, true)
    assert.equal("raised", told().outcome)
    ok, err = pcall(function() cache:namespace(5) end)
    assert.is_false(ok)
    assert.matches("events_spec.lua:%d+: bad namespace", err)
    local thrown = {}
    ok, err = pcall(cache.transaction, cache, function() error(thrown) end)
    assert.is_false(ok)
    assert.equal(thrown, err)
    ok, err = pcall(cache.transaction, cache, function() error("plain", 0) end)
    assert.is_false(ok)
    assert.equal("plain", err)
  end)

  it("sees namespaces and transactions", function()
    local cache = watched()
    local view = cache:namespace("n")
    assert(view:set("k", 1))
    assert.equal("n", told().namespace)
    assert.equal(3, cache:transaction(function(tx)
      assert(tx:set("t", 1))
      assert.is_true(told().transaction)
      tx:transaction(function(inner) assert(inner:namespace("n"):set("u", 2)) end)
      assert.equal("set", events[1].name)
      assert.equal("n", events[1].namespace)
      events = {}
      return 3
    end))
    assert.equal("transaction", told().name)
    assert.equal(1, (cache:get("t")))
    assert.equal(2, (view:get("u")))
    local twice = cache:wrap(function(n) return 2 * n end, { name = "twice", ttl = 5 })
    events = {}
    assert.equal(8, twice(4))
    assert.equal("fetch", told().name)
  end)

  it("works inside tasks, where calls yield", function()
    local cache = watched()
    local results = {}
    assert(fpcache.parallel { jobs = 4, each = { "a", "b", "c", "d" }, run = function(key)
      assert(cache:set(key, key))
      results[key] = cache:get(key)
    end })
    assert.same({ a = "a", b = "b", c = "c", d = "d" }, results)
    assert.equal(8, #events)
  end)

  it("is not broken by its hook, which may use the cache", function()
    local cache
    cache = db:open { on_event = function(event)
      if event.kind == "call" then cache:incr("calls") end -- not told
      error("the hook is broken")
    end }
    assert(cache:set("k", 1))
    assert.equal(1, (cache:get("k")))
    local stats = cache:stats().events
    assert.equal(2, stats.hook_errors)
    assert.matches("the hook is broken", stats.last_hook_error)
    assert.equal("2", db:sql("SELECT convert_from(value, 'UTF8') FROM cache WHERE key = 'calls'"))
  end)

  it("tells that the feed began, that the table was emptied, and that the breaker opened", function()
    local cache = watched { feed = true, feed_interval = 0.02, breaker_failures = 1, timeout = 1 }
    local function layer_event(name)
      return database.eventually(function()
        cache:ping()
        for _, event in ipairs(events) do
          if event.kind == "layer" and event.name == name then return event end
        end
      end)
    end
    assert.equal("fresh", layer_event("feed").to)
    db:sql("TRUNCATE cache")
    assert.is_truthy(layer_event("incarnation").from)
    db:sql("ALTER TABLE fpcache_entries RENAME TO hidden")
    cache:fetch("k", 60, function() return 1 end)
    db:sql("ALTER TABLE hidden RENAME TO fpcache_entries")
    local event = layer_event("breaker")
    assert.equal("open", event.to)
    assert.is_truthy(event.error)
  end)

  it("keeps its slow calls", function()
    local cache = db:open { slow_log = { seconds = 0, entries = 3 } }
    for i = 1, 5 do cache:get("k" .. i) end
    local list = assert(cache:slowlog())
    assert.equal(3, #list)
    assert.equal("k5", list[1].key)
    assert.equal("k3", list[3].key)
    assert.is_true(list[1].seconds > 0)
    cache:get(("x"):rep(1000))
    assert.equal(200, #cache:slowlog()[1].key)
    assert.equal(6, cache:stats().events.slow)
    cache = db:open { slow_log = 60 }
    cache:get("k")
    assert.same({}, cache:slowlog())
    local list_or_nil, err = db:open():slowlog()
    assert.is_nil(list_or_nil)
    assert.matches("^invalid: .*slow_log", err)
  end)

  it("can be told to OpenTelemetry as docs/events.md does", function()
    local file = assert(io.open("docs/events.md"))
    local code = assert(file:read("*a"):match("## OpenTelemetry.-```lua\n(.-)```"))
    file:close()
    local spans, numbers = {}, {}
    local env = setmetatable({
      tracer = { start = function(_, name, attributes, at)
        local span = { name = name, attributes = attributes, at = at }
        spans[#spans + 1] = span
        return { finish = function(_, ended) span.ended = ended end }
      end },
      meter = { record = function(_, _, _, labels) numbers[#numbers + 1] = labels end, add = function() end },
    }, { __index = _G })
    code = code .. "\nreturn tell"
    local tell = run_in(code, env)
    local cache = db:open { on_event = tell }
    cache:get("k")
    cache:get("")
    assert.equal("invalid", spans[#spans].attributes["error.type"])
    assert.equal("cache get", spans[#spans].name)
    assert.is_true(spans[#spans].ended >= spans[#spans].at)
    assert.same({ call = "get", outcome = "miss", source = "db" }, numbers[1])
    assert.equal(0, cache:stats().events.hook_errors)
  end)

  it("is the very same cache when nobody watches", function()
    local cache = db:open()
    assert.equal(require("fpcache.client"), getmetatable(cache))
    assert.is_nil(cache:stats().events)
  end)

  it("refuses options that it cannot use, at the caller's line", function()
    for _, opts in ipairs { { on_event = 5 }, { slow_log = "x" }, { slow_log = { minutes = 3 } }, { slow_log = -1 },
      { record = "" }, { record = { sample = 2, file = "x" } }, { publish = {} }, { publish = { dir = "x", every = 0 } } } do
      opts.connection_string = db:url_of()
      local ok, err = pcall(function() fpcache.new(opts) end)
      assert.is_false(ok)
      assert.matches("events_spec.lua:%d+: options%.", err)
    end
  end)

  it("publishes itself into a folder, and takes that back when it is closed", function()
    local codec = require "fpcache.codec"
    local dir = assert(core.system.mkdtemp("/tmp/fpcache-publish-"))
    local cache = db:open { publish = { dir = dir .. "/in", every = 0.001 }, slow_log = 0, namespace = "shop" }
    local function published()
      local names = core.system.readdir(dir .. "/in")
      assert.equal(1, #names)
      local file = assert(io.open(dir .. "/in/" .. names[1]))
      local text = file:read("*a")
      file:close()
      return assert(codec.json.decode(text))
    end
    assert.equal(0, published().stats.events.calls)
    assert(database.eventually(function()
      cache:get("k")
      return published().stats.events.calls > 0
    end))
    local one = published()
    assert.equal("fpcache-process", one.kind)
    assert.equal("shop", one.namespace)
    assert.equal(core.system.pid(), one.pid)
    assert.equal("get", one.slowlog[1].name)
    assert.is_nil(one.stats.server)
    assert(core.system.remove_tree(dir .. "/in"))
    assert(database.eventually(function()
      cache:get("k")
      return cache:stats().events.publish_error
    end))
    cache:close()
    cache = db:open { publish = dir }
    cache:close()
    assert.same({}, core.system.readdir(dir))
    assert(core.system.remove_tree(dir))
    local refused, err = fpcache.new { connection_string = db:url_of(), publish = "/proc/nowhere", feed = false }
    assert.is_nil(refused)
    assert.is_string(err)
  end)
end)

-- coherence_spec.lua -- the near cache and the filter against a real server: what this process reads of its own writes.
local database = require "support.database"
local fpcache = require "fpcache"
local layers = require "support.layers"

local source, warm, STALENESS = layers.source, layers.warm, layers.STALENESS

describe("coherence", function()
  local db
  setup(function() db = database.new() end)
  before_each(function() db:sql("TRUNCATE cache") end)
  after_each(function() db:close_all() end)

  local function open(opts) return layers.open(db, opts) end

  describe("layers", function()
    it("answer in their order", function()
      local cache = open()
      assert.equal("filter", source(cache, "k"))
      cache:set("k", { 1 })
      assert(cache:wait_ready(20))
      assert.equal("db", source(cache, "k"))
      assert.equal("near", source(cache, "k"))
      assert.equal(cache:get("k"), cache:get("k")) -- one shared table
      assert.equal("db", select(3, cache:get("k", { near = false })))
      assert.equal("db", select(3, cache:get("k", { parse_json = false })))
      assert.equal("db", select(3, cache:get("other", { near = false })))
      assert.equal("near", select(3, cache:get("k", { parse_json = true })))
    end)

    it("are off one by one, or all", function()
      local cache = open { near_size = 0 }
      cache:set("k", 1)
      assert.same({ "db", "db", "filter" }, { source(cache, "k"), source(cache, "k"), source(cache, "no") })
      cache = open { use_cuckoo_filter = false, near_negative_size = 5, as = "nofilter" }
      cache:set("k", 1)
      warm(cache, "k")
      assert.same({ "db", "near" }, { source(cache, "no"), source(cache, "no") })
      cache = open { feed = false }
      assert.same({ "db", "db", "db" }, { source(cache, "k"), source(cache, "k"), source(cache, "no") })
      assert.same({ nil, "invalid: this cache has no feed (feed = false, or neither near cache nor filter)" },
        { cache:wait_ready(1) })
    end)

    it("are as large, and keep as long, as their options say", function()
      local long = { max_staleness = 60, use_cuckoo_filter = false } -- a slow machine is not what this is about
      local function opened(opts)
        for name, value in pairs(long) do opts[name] = value end
        return open(opts)
      end
      local cache = opened { near_size = 2, near_negative_size = 1, near_bytes = 4000 }
      assert(cache:set_many { a = 1, b = 2, c = 3, large = ("v"):rep(1000) })
      assert(cache:wait_ready(20))
      for _, key in ipairs { "a", "b", "c", "no", "none" } do cache:get(key) end
      assert.same({ 2, 1 }, { cache:stats().near.entries, cache:stats().near.negative_entries })
      assert.same({ "db", "db" }, { source(cache, "large"), source(cache, "large") })
      cache:close()
      for _, about in ipairs { { "near_ttl", "a" }, { "near_negative_ttl", "no" } } do
        cache = opened { [about[1]] = 0.02 }
        assert(database.eventually(function()
          cache:get(about[2])
          return cache:stats().near.expired > 0
        end), about[1])
        cache:close()
      end
      cache = open { cuckoo_capacity = 5000, filter_fpr = 0.1, max_staleness = 60 }
      local wide = cache:stats().filter
      assert(wide.capacity >= 5000 and wide.capacity < 100000)
      cache:close()
      cache = open { cuckoo_capacity = 5000, filter_fpr = 0.0001, max_staleness = 60 }
      assert(cache:stats().filter.bytes > wide.bytes)
    end)

    it("copy tables when asked to", function()
      local cache = open { near_copy = true }
      cache:set("k", { list = { 1 } })
      warm(cache, "k")
      cache:get("k").list[1] = 2
      assert.same({ list = { 1 } }, cache:get("k"))
    end)

    it("end an entry with its own life", function()
      local cache = open()
      cache:set("k", 1, 1.5)
      warm(cache, "k")
      assert(database.eventually(function() return source(cache, "k") ~= "near" end))
      assert(database.eventually(function() return cache:get("k") == nil end)) -- it may go to the server some ms early
    end)

    it("mix in get_many", function()
      local cache = open()
      local long = ("l"):rep(3000)
      cache:set_many { a = 1, b = { 2 }, c = false, [long] = "long" }
      warm(cache, "a")
      local before = cache:stats()
      local keys = { "a", "b", "c", "no", long }
      assert.same({ a = 1, b = { 2 }, c = false, [long] = "long" }, cache:get_many(keys))
      assert.same({ a = 1, b = { 2 }, c = false, [long] = "long" }, cache:get_many(keys))
      local after = cache:stats()
      assert.equal(1 + 4, after.near.hits - before.near.hits)
      assert.equal(2, after.filter.absent - before.filter.absent)
      assert.equal(8, after.hits - before.hits)
      assert.equal("near", source(cache, long))
      assert.equal(after.near.hits + 1, cache:stats().near.hits)
      assert.same({ a = 1 }, cache:get_many({ "a", "no" }, { near = false }))
      assert.same({}, cache:get_many { "no", "none" })
    end)

    it("spare the round trip of what is absent", function()
      local cache = open()
      cache.db = setmetatable({}, { __index = function() error("the server was asked", 2) end })
      assert.is_false(cache:exists("no"))
      assert.equal(-2, cache:ttl("no"))
      assert.is_nil(cache:entry("no"))
      assert.is_false(cache:delete("no", { near = true }))
      assert.equal(0, cache:delete_many({ "no", "none" }, { near = true }))
      cache.db = cache.pool
      assert.is_false(cache:delete("no"))
      assert.is_false(cache:exists("no", { near = false }))
      assert.equal(0, cache:delete_many { "no" })
    end)
  end)

  it("near = false asks the server whatever the layers know, in each call that reads", function()
    local cache, asked = open { max_staleness = 60 }, 0
    assert(cache:set("there", 1))
    layers.warm(cache, "there")
    local pool = cache.db
    cache.db = setmetatable({}, { __index = function(_, method)
      asked = asked + 1
      return function(_, ...) return pool[method](pool, ...) end
    end })
    for name, read in pairs {
      get = function(key, opts) return cache:get(key, opts) end,
      get_many = function(key, opts) return assert(cache:get_many({ key }, opts))[key] end,
      exists = function(key, opts) return cache:exists(key, opts) end,
      ttl = function(key, opts) return cache:ttl(key, opts) end,
      entry = function(key, opts) return cache:entry(key, opts) end,
    } do
      -- What only the server knows of a key that is there, they ask in any case.
      local knows = { there = name ~= "ttl" and name ~= "entry", absent = true }
      for key, is_known in pairs(knows) do
        for _, opts in ipairs { { false }, { { near = true } }, { { near = false } } } do
          local before, near = asked, nil
          if opts[1] then near = opts[1].near end
          local with = read(key, opts[1] or nil)
          local answers = is_known and near ~= false
          assert.equal(answers and 0 or 1, asked - before, name .. " " .. key .. " " .. tostring(near))
          assert.equal(type(read(key, { near = false })), type(with))
        end
      end
    end
    cache.db = pool
  end)

  describe("a question in vain", function()
    local cache
    -- Never stale: a slow machine is not what this is about.
    before_each(function() cache = open { max_staleness = 60, near_size = 0 } end)

    local READS = {
      get = function(key, opts) return cache:get(key, opts) end,
      get_many = function(key, opts) return cache:get_many({ key }, opts) end,
      exists = function(key, opts) return cache:exists(key, opts) end,
      ttl = function(key, opts) return cache:ttl(key, opts) end,
      entry = function(key, opts) return cache:entry(key, opts) end,
    }
    it("is counted by every call that reads", function()
      assert(cache:set("there", 1))
      assert(cache:set("gone", 1))
      assert(cache:delete("gone")) -- the filter still has it
      for name, read in pairs(READS) do
        for _, question in ipairs { { "there", 0 }, { "gone", 1 }, { "never", 0 }, { "gone", 0, { near = false } } } do
          local before = cache:stats().filter
          read(question[1], question[3])
          local after, what = cache:stats().filter, name .. " " .. question[1]
          assert.equal(question[2], after.false_positives - before.false_positives, what)
          assert.equal(question[2], after.false_positives_since_load - before.false_positives_since_load, what)
        end
      end
    end)

    it("and many of them: the filter is loaded without the keys that are gone", function()
      local keys, items = {}, {}
      for i = 1, 1001 do keys[i], items["gone" .. i] = "gone" .. i, 1 end
      assert(cache:set_many(items))
      assert.equal(1001, cache:delete_many(keys))
      assert(cache:wait_ready(20))
      assert.equal("db", source(cache, "gone1"))
      assert.same({}, cache:get_many(keys))
      assert(database.eventually(function()
        assert(cache:wait_ready(20))
        return cache:stats().filter.reloads >= 1
      end, 20))
      assert.equal("filter", source(cache, "gone1"))
      assert.equal(0, cache:stats().filter.false_positives_since_load)
    end)
  end)

  -- name = { value before or nil, what writes, value after or nil }
  local WRITERS = {
    set = { 1, function(c) return c:set("k", 2) end, 2 },
    ["set of a new key"] = { nil, function(c) return c:set("k", 2) end, 2 },
    add = { nil, function(c) return c:add("k", 2) end, 2 },
    replace = { 1, function(c) return c:replace("k", 2) end, 2 },
    cas = { 1, function(c) return c:cas("k", c:entry("k").version, 2) end, 2 },
    incr = { 1, function(c) return c:incr("k") end, 2 },
    ["incr of a new key"] = { nil, function(c) return c:incr("k") end, 1 },
    get_set = { 1, function(c) return c:get_set("k", 2) end, 2 },
    get_delete = { 1, function(c) return c:get_delete("k") end, nil },
    delete = { 1, function(c) return c:delete("k") end, nil },
    delete_many = { 1, function(c) return c:delete_many { "k" } end, nil },
    set_many = { 1, function(c) return c:set_many { k = 2, l = 3 } end, 2 },
    ["set_many of new keys"] = { nil, function(c) return c:set_many { k = 2, l = 3 } end, 2 },
    ["set_many in batches"] = { nil, function(c)
      return c:set_many({ a = 1, b = 1, c = 1, k = 2 }, { batch = 1 })
    end, 2 },
    clear = { 1, function(c) return c:clear() end, nil },
    ["clear of all"] = { 1, function(c) return c:clear { all = true } end, nil },
    transaction = { 1, function(c) return c:transaction(function(tx) return tx:set("k", 2) end) end, 2 },
    ["transaction with a new key"] = { nil, function(c)
      return c:transaction(function(tx) return tx:set_many { k = 2 } end)
    end, 2 },
  }

  describe("read your writes", function()
    for name, about in pairs(WRITERS) do
      it("after " .. name, function()
        -- `other` is another cache of this process: a near cache of its own, the same feed.
        local cache, other = open(), open()
        if about[1] ~= nil then assert(cache:set("k", about[1])) end
        for _, c in ipairs { cache, other } do
          assert(c:wait_ready(20))
          c:get("k")
          assert.equal(about[1] and "near" or "filter", source(c, "k"))
        end
        assert(about[2](cache))
        assert.equal(about[3], (cache:get("k")))
        assert.equal(about[3], (other:get("k")))
        assert.equal(about[3] ~= nil, cache:exists("k"))
        assert.same({ k = about[3] }, other:get_many { "k" })
      end)
    end

    it("of an entry's life", function()
      local cache = open()
      cache:set("k", 1)
      for _, shorten in ipairs { function() return cache:expire("k", 0.05) end,
        function() return cache:set("k", 1, { ttl = 0.05 }) end } do
        cache:set("k", 1)
        warm(cache, "k")
        assert(shorten())
        assert(database.eventually(function() return cache:get("k") == nil end))
      end
      cache:set("k", 1, 30)
      warm(cache, "k")
      assert(cache:persist("k"))
      assert.equal(-1, cache:ttl("k"))
      assert.equal("db", source(cache, "k"))
    end)

    it("by namespace", function()
      local cache = open()
      local one, two = cache:namespace("one"), cache:namespace("two")
      one:set("k", 1)
      two:set("k", 2)
      warm(one, "k")
      warm(two, "k")
      two:delete("k")
      assert.equal(1, one:get("k"))
      assert.is_nil(two:get("k"))
      assert.is_nil(cache:get("k"))
      assert.equal("near", source(one, "k"))
    end)
  end)

  describe("a transaction", function()
    it("is answered by the server, and sees itself", function()
      local cache = open()
      cache:set("k", 1)
      warm(cache, "k")
      assert(cache:transaction(function(tx)
        assert.equal("db", source(tx, "k"))
        assert.equal("db", source(tx, "no"))
        tx:set("k", 2)
        tx:set("no", 3)
        assert.equal(2, (tx:get("k")))
        assert.same({ k = 2, no = 3 }, tx:get_many { "k", "no" })
        assert.equal(1, (cache:get("k"))) -- outside: nothing yet
        assert.equal("near", source(cache, "k"))
        assert.equal("filter", source(cache, "no"))
        assert.is_true(tx:namespace("other"):set("k", 4))
        assert.is_nil((tx:wait_ready(1)))
        return true
      end))
      assert.equal(2, (cache:get("k")))
      assert.equal(3, (cache:get("no")))
      assert.equal(4, (cache:namespace("other"):get("k")))
    end)

    it("that is rolled back publishes nothing", function()
      local cache = open()
      cache:set("k", 1)
      warm(cache, "k")
      cache:transaction(function(tx)
        tx:set("k", 2)
        tx:set_many({ no = 3, none = 4 }, { batch = 1 })
        tx:delete("k")
        return nil, "changed my mind"
      end)
      assert.equal("near", source(cache, "k"))
      assert.equal("filter", source(cache, "no"))
      assert(cache:wait_ready(20))
      assert.equal("near", source(cache, "k"))
      assert.equal("filter", source(cache, "none"))
    end)

    it("tells what a savepoint kept", function()
      local cache = open()
      cache:set("k", 1)
      warm(cache, "k")
      cache:transaction(function(tx)
        tx:transaction(function(inner) return inner:set("k", 2) end)
        tx:transaction(function(inner) inner:set("l", 3); return nil, "undone" end)
        return true
      end)
      assert.equal(2, (cache:get("k")))
      assert.is_nil((cache:get("l")))
    end)
  end)

  it("a write of unknown outcome is announced as if it was done", function()
    local cache = open { timeout = 1 }
    cache:set("k", 1)
    warm(cache, "k")
    local lock = assert(fpcache.new { connection_string = db:url_of(), feed = false })
    finally(function() lock:close() end)
    lock:transaction(function(tx)
      tx:query("SELECT 1 FROM cache WHERE key = 'k' FOR UPDATE")
      assert.is_nil((cache:set("k", 2)))
      assert.equal("db", source(cache, "k"))
      return true
    end)
  end)

  it("stats name every layer", function()
    local cache = open()
    cache:set("k", 1)
    warm(cache, "k")
    cache:get("no")
    local stats = cache:stats()
    assert.same({ "fresh", "fresh", "fresh" }, { stats.near.state, stats.filter.state, stats.feed.state })
    assert.same({ 2, 1, 1 }, { stats.hits, stats.misses, stats.sets })
    assert.same({ 1, 1, 0 }, { stats.near.hits, stats.near.entries, stats.near.evictions })
    assert.equal(1, stats.filter.absent)
    for _, name in ipairs { "keys", "capacity", "bytes", "fpr", "load_seconds", "reloads", "false_positives",
      "false_positives_since_load" } do
      assert.is_number(stats.filter[name], name)
    end
    for _, name in ipairs { "lag", "fell_behind", "incarnation_changes", "polls", "changes" } do
      assert.is_number(stats.feed[name], name)
    end
    assert.matches("^%d+:%d+$", stats.feed.position)
    assert(stats.feed.lag < STALENESS)
  end)
end)

-- feed_writers_spec.lua -- every call that changes a key tells the feed: whoever keeps something of it asks the server again.
local database = require "support.database"
local layers = require "support.layers"

describe("a reader is told by the feed of", function()
  local db, reader, writer
  setup(function()
    db = database.new()
    -- Never stale, however slow the machine is: then only what was told makes it ask the server.
    reader = layers.open(db, { max_staleness = 60 })
    writer = db:open() -- without a feed of its own: it tells nobody in this process
  end)
  teardown(function() db:close_all() end)

  -- what = { value before, or nil, the call }
  local CALLS = {
    set = { 1, function(c, k) return c:set(k, 2) end },
    ["set with keep_ttl"] = { 1, function(c, k) return c:set(k, 2, { keep_ttl = true }) end },
    ["set of a new key"] = { nil, function(c, k) return c:set(k, 2) end },
    ["set with tags"] = { 1, function(c, k) return c:set(k, 2, { tags = { "t" } }) end },
    add = { nil, function(c, k) return c:add(k, 2) end },
    replace = { 1, function(c, k) return c:replace(k, 2) end },
    ["replace with keep_ttl"] = { 1, function(c, k) return c:set(k, 2, { if_present = true, keep_ttl = true }) end },
    cas = { 1, function(c, k) return c:cas(k, c:entry(k).version, 2) end },
    ["cas with keep_ttl"] = { 1, function(c, k)
      return c:set(k, 2, { if_version = c:entry(k).version, keep_ttl = true })
    end },
    incr = { 1, function(c, k) return c:incr(k) end },
    ["incr of a new key"] = { nil, function(c, k) return c:incr(k) end },
    get_set = { 1, function(c, k) return c:get_set(k, 2) end },
    get_delete = { 1, function(c, k) return c:get_delete(k) end },
    delete = { 1, function(c, k) return c:delete(k) end },
    delete_many = { 1, function(c, k) return c:delete_many { "j", k } end },
    expire = { 1, function(c, k) return c:expire(k, 100) end },
    touch = { 1, function(c, k) return c:touch(k, 100) end },
    persist = { 1, function(c, k) return c:persist(k) end },
    set_many = { 1, function(c, k) return c:set_many { j = 1, [k] = 2 } end },
    ["set_many of new keys"] = { nil, function(c, k) return c:set_many { j = 1, [k] = 2 } end },
    set_later = { 1, function(c, k) return c:set_later(k, 2) end },
    delete_later = { 1, function(c, k) return c:delete_later(k) end },
    clear = { 1, function(c) return c:clear() end },
    ["clear of all"] = { 1, function(c) return c:clear { all = true } end },
    invalidate_tag = { 1, function(c) return c:invalidate_tag("old") end },
    ["invalidate_tag with expire"] = { 1, function(c) return c:invalidate_tag("old", { expire = true }) end },
    ["what fetch stores"] = { nil, function(c, k) return c:fetch(k, 60, function() return 2 end) end },
    ["what fetch stores with tags"] = { nil, function(c, k)
      return c:fetch(k, { ttl = 60, tags = { "t" } }, function() return 2 end)
    end },
    ["what fetch_many stores"] = { nil, function(c, k)
      return c:fetch_many({ "j", k }, 60, function() return { j = 1, [k] = 2 } end)
    end },
    ["a transaction"] = { 1, function(c, k) return c:transaction(function(tx) return tx:set(k, 2) end) end },
  }

  local count = 0
  for name, call in pairs(CALLS) do
    it(name, function()
      count = count + 1
      local key = "key" .. count
      if call[1] ~= nil then
        assert(writer:set(key, call[1], { tags = { "old" } }))
        layers.warm(reader, key)
      else
        assert.equal("filter", layers.source(reader, key))
      end
      assert(call[2](writer, key))
      assert(reader:wait_ready(20))
      assert.is_true(layers.source(reader, key) ~= (call[1] and "near" or "filter"))
    end)
  end

  it("nothing that was swept, since it had ended", function()
    assert(writer:set("ends", 1, 0.001))
    assert(reader:wait_ready(20))
    local told = reader:stats().feed.changes
    assert(database.eventually(function()
      assert(writer:cleanup())
      return db:sql("SELECT count(*) FROM cache WHERE key = 'ends'") == "0"
    end))
    assert(reader:wait_ready(20))
    assert.equal(told, reader:stats().feed.changes)
  end)
end)

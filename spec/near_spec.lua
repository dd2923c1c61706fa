-- near_spec.lua -- the near cache, with a feed and a clock of the spec's own.
local near_cache = require "fpcache.near"

local ABSENT, OVERHEAD = near_cache.ABSENT, near_cache.OVERHEAD

-- A feed whose stamps, freshness and clock the spec moves by hand.
local function new_feed()
  local feed = { stamps = {}, terms = {}, is_fresh = true, time = 1000 }
  function feed.stamp(gate, spot) return gate.stamps[spot] or 1 end
  -- As fast_feed.terms() has them.
  function feed.new_terms(gate)
    local of, terms, held = {}, { memory = true }, 0
    gate.terms[#gate.terms + 1] = terms
    function terms.put(_, slot, spot, stamp, ends)
      if terms.memory then of[slot] = { spot, stamp, ends } end
      return terms.memory
    end
    function terms.get(_, slot) return of[slot][1], of[slot][2], of[slot][3] end
    function terms.held() return held end
    return terms, function(slot)
      local spot, stamp, ends = terms:get(slot)
      local is_current = gate.is_fresh and gate.time < ends and gate:stamp(spot) == stamp
      if is_current then held = held + 1 end
      return is_current
    end
  end
  function feed.change(spot) feed.stamps[spot] = (feed.stamps[spot] or 1) + 1 end
  return feed
end

local function new_near(feed, opts)
  local all = {
    feed = feed, new_terms = feed.new_terms, now = function() return feed.time end,
    size = 100, bytes = 1e6, ttl = 60, negative_size = 10, negative_ttl = 5, copy = false,
  }
  for name, value in pairs(opts or {}) do all[name] = value end
  return near_cache.new(all)
end

describe("near cache", function()
  local feed, near
  before_each(function()
    feed = new_feed()
    near = new_near(feed)
  end)

  -- As the client does: the stamp before the value.
  local function load(key, value, ttl, space)
    near:put(space or "", key, value, 10, feed.time, ttl or -1, key, feed.stamp(feed, key))
  end

  it("gives back what was put, false too", function()
    load("a", "text")
    load("b", false)
    assert.equal("text", near:get("", "a"))
    assert.is_false(near:get("", "b"))
    assert.is_nil(near:get("", "c"))
    assert.same({ 2, 1 }, { near:stats().hits, near:stats().misses })
  end)

  it("tells that a loader said there is none, for as long as that counts", function()
    near:put_absent("", "a", feed.time, "a", 1)
    near:put_absent("", "b", feed.time, "b", 1, 3)
    near:put_absent("", "c", feed.time, "c", 1, 100)
    local function told(key) return { near:get("", key) } end
    assert.same({ ABSENT, false }, told "a")
    assert.same({ ABSENT, true }, told "b")
    feed.time = feed.time + 3
    assert.same({}, told "b")
    assert.same({ ABSENT, true }, told "c")
    feed.time = feed.time + 2
    assert.same({}, told "c", "negative_ttl of the near cache is the longest")
    near:put_absent("", "a", feed.time, "a", 1, 3)
    near:put_absent("", "a", feed.time, "a", 1)
    assert.same({ ABSENT, false }, told "a", "get found nothing: that is no word of a loader")
    near:put_absent("", "a", feed.time, "a", 1, 3)
    feed.change("a")
    assert.same({}, told "a")
  end)

  it("keeps nothing for whose terms there is no memory, not in the place of what was there either", function()
    load("a", 1)
    near:put_absent("", "b", feed.time, "b", 1)
    for _, terms in ipairs(feed.terms) do terms.memory = false end
    load("a", 2)
    load("c", 3)
    near:put_absent("", "b", feed.time, "b", 1)
    for _, key in ipairs { "a", "b", "c" } do assert.is_nil((near:get("", key))) end
    local stats = near:stats()
    assert.same({ 0, 0, 0 }, { stats.entries, stats.negative_entries, stats.bytes })
    for _, terms in ipairs(feed.terms) do terms.memory = true end
    load("a", 4)
    assert.equal(4, near:get("", "a"))
  end)

  it("keeps namespaces apart", function()
    load("a", 1, nil, "one")
    load("a", 2, nil, "two")
    assert.equal(1, near:get("one", "a"))
    assert.equal(2, near:get("two", "a"))
    assert.is_nil(near:get("", "a"))
    near:drop("one", "a")
    assert.is_nil(near:get("one", "a"))
    assert.equal(2, near:get("two", "a"))
  end)

  it("gives nothing out whose stamp has moved", function()
    load("a", 1)
    feed.change("a")
    assert.is_nil(near:get("", "a"))
    local stats = near:stats()
    assert.same({ 1, 0 }, { stats.invalidated, stats.entries })
  end)

  it("does not give out a value that was overtaken while it was loaded", function()
    local stamp = feed.stamp(feed, "a")
    feed.change("a")
    near:put("", "a", "old", 10, feed.time, -1, "a", stamp)
    assert.is_nil(near:get("", "a"))
    load("a", "new")
    assert.equal("new", near:get("", "a"))
    near:put("", "a", "old", 10, feed.time, -1, "a", stamp) -- comes last, in the place of one that was seen to be current
    assert.is_nil(near:get("", "a"))
  end)

  it("answers nothing while the feed is stale, and keeps what may be valid still", function()
    load("a", 1)
    load("b", 2)
    feed.is_fresh = false
    assert.is_nil(near:get("", "a"))
    feed.change("b")
    feed.is_fresh = true
    assert.equal(1, near:get("", "a"))
    assert.is_nil(near:get("", "b"))
  end)

  it("keeps nothing beyond near_ttl, nor beyond the entry's own life", function()
    load("long", 1, 1000)
    load("none", 2, -1)
    load("short", 3, 2.5)
    feed.time = feed.time + 2.4
    assert.equal(3, near:get("", "short"))
    feed.time = feed.time + 0.1
    assert.is_nil(near:get("", "short"))
    assert.equal(1, near:get("", "long"))
    feed.time = feed.time + 57.5
    assert.is_nil(near:get("", "long"))
    assert.is_nil(near:get("", "none"))
    assert.is_nil(near:get("", "none"))
    assert.equal(3, near:stats().expired, "each is counted once")
  end)

  it("remembers a value beyond its time, for as long as it lives and a grace", function()
    local function put(key, ttl, life) near:put("", key, key, 10, feed.time, ttl, key, feed.stamp(feed, key), life) end
    put("a", 10, 100) -- until it is renewed
    put("b", 100)     -- near_ttl ends before its life
    put("c", -1)
    local function remembered(key) return { near:remembered("", key, 50) } end
    feed.is_fresh = false
    feed.time = feed.time + 9.9
    assert.same({ "a", false }, remembered "a")
    feed.time = feed.time + 0.1
    assert.same({ "a", true }, remembered "a")
    for _ = 1, 2 do assert.is_nil(near:get("", "a")) end
    assert.same({ "a", true }, remembered "a")
    near:spare("", "a", 5)
    near:spare("", "unknown", 5)
    assert.same({ "a", false }, remembered "a")
    assert.same({ "b", false }, remembered "b")
    feed.time = feed.time + 5
    assert.same({ "a", true }, remembered "a")
    feed.time = feed.time + 134.9
    for _, key in ipairs { "a", "b", "c" } do
      assert.is_nil(near:get("", key))
      assert.same({ key, true }, remembered(key))
    end
    feed.time = feed.time + 0.1
    for _, key in ipairs { "a", "b", "d" } do assert.same({}, remembered(key)) end
    assert.same({ "c", true }, remembered "c")
    near:spare("", "c", 5)
    put("c", -1)
    feed.time = feed.time + 60
    assert.same({ "c", true }, remembered "c", "what is loaded anew is spared nothing")
  end)

  it("remembers nothing that is known to have changed, before the feed got stale or since", function()
    load("a", 1)
    load("b", 2)
    feed.change("a")
    feed.is_fresh = false
    assert.same({}, { near:remembered("", "a", 50) })
    assert.equal(2, (near:remembered("", "b", 50)))
    feed.change("b") -- by this very process
    assert.same({}, { near:remembered("", "b", 50) })
  end)

  it("keeps what is over no longer than there is room, and puts what is loaded then in a new one's place", function()
    near = new_near(feed, { size = 3 })
    for _, key in ipairs { "a", "b", "c" } do
      load(key, key)
      near:get("", key)
    end
    feed.time = feed.time + 60
    assert.is_nil(near:get("", "b"))
    load("d", "d")
    assert.is_nil((near:remembered("", "b", 50)), "it is the first to go, before those that nobody asked for since")
    assert.equal("a", (near:remembered("", "a", 50)))
    assert.is_nil(near:get("", "a"))
    load("a", "new")
    local order = near.present.sieve
    local newest = order.older[0]
    assert.same({ "a", false }, { order.keys[newest], order.visited[newest] })
    assert.equal("new", near:get("", "a"))
    assert.equal(3, near:stats().entries)
  end)

  it("counts the entry's life from when it was asked for", function()
    near:put("", "a", 1, 10, feed.time - 3, 2, "a", 1)
    assert.is_nil(near:get("", "a"))
  end)

  it("remembers absence, within a budget and a life of its own", function()
    load("a", 1)
    for i = 1, 50 do near:put_absent("", "no" .. i, feed.time, "no" .. i, 1) end
    local stats = near:stats()
    assert.same({ 1, 10 }, { stats.entries, stats.negative_entries })
    assert.equal(1, near:get("", "a"))
    assert.equal(ABSENT, near:get("", "no50"))
    feed.change("no50")
    assert.is_nil(near:get("", "no50"))
    feed.time = feed.time + 5
    assert.is_nil(near:get("", "no49"))
    assert.equal(1, near:get("", "a"))
  end)

  it("holds a key once, present or absent", function()
    load("a", 1)
    near:put_absent("", "a", feed.time, "a", 1)
    assert.equal(ABSENT, near:get("", "a"))
    assert.equal(0, near:stats().entries)
    load("a", 2)
    assert.equal(2, near:get("", "a"))
    assert.equal(0, near:stats().negative_entries)
  end)

  it("shares tables, or copies them deeply", function()
    local inner = setmetatable({ 1 }, { name = "kept" })
    local value = { list = inner, again = inner }
    load("a", value)
    assert.equal(value, near:get("", "a"))
    near = new_near(feed, { copy = true })
    load("a", value)
    value.list[1] = "changed by the loader's caller"
    local first = near:get("", "a")
    assert.same({ list = { 1 }, again = { 1 } }, first)
    assert.equal(first.list, first.again)
    assert.equal(getmetatable(inner), getmetatable(first.list))
    first.list[1] = "changed by a reader"
    assert.equal(1, near:get("", "a").list[1])
  end)

  it("keeps no value that would take more than a quarter, and drops the one it replaces", function()
    near = new_near(feed, { bytes = 4000 })
    load("a", "small")
    near:put("", "a", "large", 1000 - OVERHEAD, feed.time, -1, "a", 1)
    assert.is_nil(near:get("", "a"))
    assert.equal(0, near:stats().entries)
    near:put("", "a", "fits", 1000 - OVERHEAD - 1, feed.time, -1, "a", 1)
    assert.equal("fits", near:get("", "a"))
    assert.equal(1000, near:stats().bytes)
  end)

  it("stays within its bytes and within its entries, whichever is reached first", function()
    near = new_near(feed, { bytes = 20 * (100 + OVERHEAD), size = 1000 })
    for i = 100, 999 do near:put("", "k" .. i, i, 96, feed.time, -1, "k" .. i, 1) end
    local stats = near:stats()
    assert.same({ 20, 20 * (100 + OVERHEAD), 880 }, { stats.entries, stats.bytes, stats.evictions })
    near = new_near(feed, { bytes = 1e9, size = 30 })
    for i = 100, 999 do near:put("", "k" .. i, i, 96, feed.time, -1, "k" .. i, 1) end
    stats = near:stats()
    assert.same({ 30, 30 * (100 + OVERHEAD), 870 }, { stats.entries, stats.bytes, stats.evictions })
  end)

  it("keeps absences of long keys within bytes of their own", function()
    near = new_near(feed, { negative_size = 10 })
    for i = 100, 999 do near:put_absent("", ("k"):rep(10000) .. i, feed.time, "no", 1) end
    local stats = near:stats()
    assert.is_true(stats.negative_entries >= 1 and stats.bytes <= 10 * (1024 + OVERHEAD))
  end)

  it("forgets everything", function()
    load("a", 1)
    near:put_absent("", "b", feed.time, "b", 1)
    near:clear()
    assert.is_nil(near:get("", "a"))
    assert.is_nil(near:get("", "b"))
    local stats = near:stats()
    assert.same({ 0, 0, 0 }, { stats.entries, stats.negative_entries, stats.bytes })
    load("a", 2)
    assert.equal(2, near:get("", "a"))
  end)

  it("lets a value go that it evicted", function()
    near = new_near(feed, { size = 1 })
    local held = setmetatable({ {} }, { __mode = "v" })
    near:put("", "a", held[1], 10, feed.time, -1, "a", 1)
    load("b", 1)
    collectgarbage()
    collectgarbage()
    assert.is_nil(held[1])
  end)
end)

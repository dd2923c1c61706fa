-- reads_spec.lua -- reads stay reads, also where uses are noted for a quota; and what goes leaves no space behind.
local admin = require "fpcache.admin"
local database = require "support.database"
local fpcache = require "fpcache"
local touches = require "fpcache.touches"

describe("reads", function()
  local db

  setup(function() db = database.new() end)
  after_each(function()
    db:sql("DELETE FROM fpcache_quotas; TRUNCATE cache, fpcache_tags")
    db:close_all()
  end)

  -- Every way to read a living entry, as often as it takes for some of them to be noted.
  local function read_all(cache)
    local early = fpcache.policy { ttl = 3600, refresh_ahead = 0.9 }
    for _, read in ipairs {
      function() assert.equal("v", cache:get("a")) end,
      function() assert.same({ "v", nil, "db" }, { cache:fetch("a", 60, error) }) end,
      function() assert.same({ "v", nil, "db" }, { cache:fetch("b", early, error) }) end,
      function() assert.same({ a = "v", b = "v" }, cache:get_many { "a", "b", "none" }) end,
      function() assert.same({ a = "v", b = "v" }, (cache:fetch_many({ "a", "b" }, early, error))) end,
    } do
      for _ = 1, touches.EVERY do read() end -- one of so many is noted
    end
    assert.is_true(cache:exists("a"))
    assert.is_true(cache:ttl("b") > 3500)
    assert.equal("v", cache:entry("b").value)
    assert.same({ "a", "b" }, cache:keys())
    assert.equal(2, cache:count { tag = "t" })
    assert.same({ "t" }, cache:tags("b"))
    local seen = {}
    for key in cache:scan {} do seen[#seen + 1] = key end
    assert.same({ "a", "b" }, seen)
  end

  it("write nothing, in sessions that may not write, with a quota that has uses noted", function()
    assert(admin.quota { connection_string = db.url, max_entries = 1000 })
    local writer = db:open()
    assert(writer:set_many({ a = "v", b = "v" }, { ttl = 3600, tags = "t" }))
    local url = db:url_of() .. "&options=-c%20default_transaction_read_only%3Don"
    local reader = db:open { connection_string = url }
    assert.matches("SQLSTATE 25006", (select(2, reader:set("c", 1))), nil, "or else this shows nothing")
    assert.equal("table", type(reader.touches))
    local before = db:sql("SELECT ctid, xmin, xmax, touched, version FROM cache ORDER BY key")
    read_all(reader)
    assert.is_true(reader.touches.kept >= 2, "both are noted, and what is not there may be")
    reader.touches:send() -- cannot, and nobody is told
    assert.equal("v", reader:get("a"))
    assert.equal(before, db:sql("SELECT ctid, xmin, xmax, touched, version FROM cache ORDER BY key"))
  end)

  it("have their notes sent by a statement of its own, many at a time, which locks no row and moves no version", function()
    assert(admin.quota { connection_string = db.url, max_entries = 1000 })
    local writer = db:open()
    assert(writer:set_many({ a = "v", b = "v" }, { ttl = 3600, tags = "t" }))
    local version = db:sql("SELECT key, version, expires_at FROM cache ORDER BY key")
    local reader = db:open()
    read_all(reader)
    db:sql("TRUNCATE fpcache_feed")
    assert(writer:transaction(function(tx)
      assert(tx:set("a", "v", { ttl = 3600, tags = "t" })) -- locks it until COMMIT
      reader.touches:send()
      return nil, "no"
    end) == nil)
    assert.equal(version, db:sql("SELECT key, version, expires_at FROM cache ORDER BY key"))
    assert.equal("b", db:sql("SELECT convert_from(key, 'UTF8') FROM cache WHERE touched IS NOT NULL"),
      "the one that is being written is passed over")
    assert.equal("0", db:sql("SELECT count(*) FROM fpcache_feed"), "no news for anybody")
  end)
end)

describe("the space of what goes", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function() cache = db:open() end)
  after_each(function()
    db:sql("TRUNCATE cache, fpcache_tags")
    db:close_all()
  end)

  -- As autovacuum does, at a moment of our own: it frees what is dead, and nothing else.
  local function vacuum() db:sql("VACUUM cache, fpcache_tags") end

  local function bytes()
    return tonumber(db:sql("SELECT pg_total_relation_size('fpcache_entries') + pg_total_relation_size('fpcache_tags')"))
  end

  -- The size after many rounds of filling and emptying, as a multiple of the size when it was filled once.
  local function growth(go)
    local first
    for round = 1, 9 do
      local items = {}
      for i = 1, 400 do items[("round %d key %d"):format(round, i)] = ("x"):rep(200) end
      assert.equal(400, cache:set_many(items, { ttl = 60, tags = { "all", "round " .. round } }))
      first = first or bytes()
      go(round)
      vacuum()
      assert.equal(0, cache:count())
    end
    return bytes() / first
  end

  it("is reclaimed: of invalidated tags, at once", function()
    local factor = growth(function(round)
      assert.equal(400, cache:invalidate_tag("round " .. round))
      assert.equal("0|0", db:sql("SELECT (SELECT count(*) FROM cache), (SELECT count(*) FROM fpcache_tags)"))
    end)
    assert.is_true(factor < 3, "9 rounds take the space of " .. factor) -- 9 where nothing is reclaimed
  end)

  it("is reclaimed: of tags that only end lives, of deletes and of what expires, by the sweeper", function()
    local sweeper = assert(fpcache.sweeper { connection_string = db:url_of(), every = 0.001, duty = 1 })
    finally(function() sweeper:close() end)
    local factor = growth(function(round)
      if round % 3 == 0 then
        assert.equal(400, cache:invalidate_tag("all", { expire = true }))
      elseif round % 3 == 1 then
        db:age(61)
      else
        assert.equal(400, cache:clear())
      end
      local report = assert(sweeper:pass())
      assert.equal(round % 3 == 2 and 0 or 400, report.expired)
      assert.equal("0|0", db:sql("SELECT (SELECT count(*) FROM cache), (SELECT count(*) FROM fpcache_tags)"))
    end)
    assert.is_true(factor < 4, "9 rounds take the space of " .. factor)
  end)
end)

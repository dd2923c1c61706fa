-- tags_spec.lua -- tags: set, found, counted, invalidated; their index swept.
local core = require "fpcache.core"
local database = require "support.database"
local layers = require "support.layers"
local raises = require "support.raises"

describe("tags", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache; TRUNCATE fpcache_tags")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function entries() return tonumber(db:sql("SELECT count(*) FROM fpcache_tags")) end

  it("are set with a value and go with it", function()
    assert.is_true(cache:set("p:1", 1, { tags = { "shop:7", "a", "shop:7" } }))
    assert.same({ "a", "shop:7" }, cache:tags("p:1"))
    assert.same({ "p:1" }, cache:keys { tag = "shop:7" })
    assert(cache:set("p:1", 2, { tags = "b" }))
    assert.same({ "b" }, cache:tags("p:1"))
    assert.same({}, cache:keys { tag = "shop:7" })
    assert(cache:set("p:1", 3))
    assert.same({}, cache:tags("p:1"))
    assert.equal(0, cache:count { tag = "b" })
    assert.equal(0, cache:invalidate_tag { "a", "b", "shop:7" })
    assert.equal(3, cache:get("p:1"))
    assert.is_nil(cache:tags("p:2"))
  end)

  it("are kept by what changes no value, and taken off by what does", function()
    for _, name in ipairs { "expire", "touch", "persist", "incr" } do
      assert(cache:set("n", 1, { tags = "t" }))
      assert(cache[name](cache, "n", name == "incr" and 1 or 60))
      assert.same({ "t" }, cache:tags("n"), name)
    end
    local writes = {
      replace = function() return cache:replace("n", 2) end,
      cas = function() return cache:cas("n", cache:entry("n").version, 2) end,
      get_set = function() return cache:get_set("n", 2) end,
      set_many = function() return cache:set_many { n = 2 } end,
      python = function() return cache:transaction(function(tx) return tx:query("SELECT cache_set('app', 'n', '2')") end) end,
    }
    for name, write in pairs(writes) do
      assert(cache:set("n", 1, { tags = "t" }))
      assert.is_truthy(write(), name)
      assert.same({}, cache:tags("n"), name)
    end
    -- a counter that begins anew has lost them too
    assert(cache:set("n", 1, { tags = "t", expires_at = 1 }))
    assert.equal(1, cache:incr("n"))
    assert.same({}, cache:tags("n"))
  end)

  it("come with every condition of set", function()
    assert.is_true(cache:set("k", 1, { if_absent = true, tags = "absent" }))
    assert.is_false(cache:set("k", 2, { if_absent = true, tags = "never" }))
    assert.same({ "absent" }, cache:tags("k"))
    assert.equal(1, entries())
    assert.is_true(cache:set("k", 3, { if_present = true, tags = "present" }))
    assert.is_false(cache:set("other", 3, { if_present = true, tags = "never" }))
    assert.same({ "present" }, cache:tags("k"))
    local version = cache:entry("k").version
    assert.is_true((cache:set("k", 4, { if_version = version, tags = { "cas", "x" } })))
    assert.is_false((cache:set("k", 5, { if_version = version, tags = "never" })))
    assert.same({ "cas", "x" }, cache:tags("k"))
    assert(cache:expire("k", 100))
    for _, condition in ipairs { "none", "if_present", "if_version" } do
      local value = true
      if condition == "if_version" then value = cache:entry("k").version end
      assert.is_true((cache:set("k", 6, { keep_ttl = true, tags = condition, [condition ~= "none" and condition or nil
        or "keep_ttl"] = value })))
      assert.same({ condition }, cache:tags("k"))
      assert.is_true(cache:ttl("k") > 90)
    end
    assert.equal(6, cache:get("k"))
  end)

  it("come with set_many, one statement or several", function()
    assert.equal(3, cache:set_many({ a = 1, b = 2, c = 3 }, { tags = { "t", "u" } }))
    assert.equal(25, cache:set_many((function()
      local i = 0
      return function()
        i = i + 1
        if i <= 25 then return "m" .. i, i end
      end
    end)(), { batch = 10, tags = "t", ttl = 60 }))
    assert.equal(28, cache:count { tag = "t" })
    assert.equal(25, cache:count { tag = "t", prefix = "m" })
    assert.same({ "a", "b", "c" }, cache:keys { tag = "u" })
    assert.equal(28, cache:invalidate_tag("t"))
    assert.equal(0, cache:count())
    assert.equal(0, entries())
    assert.equal(2, cache:set_many({ a = 1, b = 2 }, { tags = {} }))
    assert.same({}, cache:tags("a"))
  end)

  it("are walked in the order of keys, page by page, long keys too", function()
    local long = ("l"):rep(2000)
    assert(cache:set(long, "long", { tags = "t" }))
    for i = 1, 9 do assert(cache:set("k" .. i, i, { tags = i % 2 == 0 and "t" or "u" })) end
    assert(cache:set("old", 1, { tags = "t", expires_at = 1 }))
    local seen = {}
    for key, value in cache:scan { tag = "t", page = 2 } do seen[#seen + 1] = key .. "=" .. tostring(value) end
    assert.same({ "k2=2", "k4=4", "k6=6", "k8=8", long .. "=long" }, seen)
    assert.same({ "k4", "k6" }, { cache:keys { tag = "t", prefix = "k", limit = 3 }[2],
      cache:keys { tag = "t", prefix = "k", limit = 3 }[3] })
    assert.equal(5, cache:count { tag = "t" })
    assert.same({ long }, cache:keys { tag = "t", prefix = "ll" })
  end)

  describe("invalidate_tag", function()
    it("deletes those that have one of the tags, and reclaims what had expired", function()
      assert(cache:set("a", 1, { tags = "x" }))
      assert(cache:set("b", 1, { tags = { "x", "y" } }))
      assert(cache:set("c", 1, { tags = "y" }))
      assert(cache:set("d", 1))
      assert(cache:set("old", 1, { tags = "x", expires_at = 1 }))
      assert.equal(3, cache:invalidate_tag { "x", "y", "none" })
      assert.equal("d", db:sql("SELECT convert_from(key, 'UTF8') FROM cache"))
      assert.equal(0, entries())
      assert.equal(0, cache:invalidate_tag("x"))
    end)

    it("may only end their life: the rows stay", function()
      local there = layers.open(db)
      assert(cache:set("a", 1, { tags = "x" }))
      assert(cache:set("b", 1, { tags = { "x", "y" } }))
      assert(cache:set("old", 1, { tags = "x", expires_at = 1 }))
      layers.warm(there, "a")
      assert.equal(2, cache:invalidate_tag("x", { expire = true }))
      assert.equal(0, cache:count())
      assert.equal("3", db:sql("SELECT count(*) FROM cache"))
      core.system.sleep(layers.STALENESS)
      assert.is_nil((there:get("a")))
      assert.equal(0, cache:invalidate_tag("x", { expire = true }))
      assert.equal(3, cache:cleanup())
      assert.equal(0, entries())
    end)

    it("keeps to its namespace and its user", function()
      local other, bob = cache:namespace("other"), db:open { as = "bob" }
      for _, c in ipairs { cache, other, bob } do assert(c:set("k", 1, { tags = "t" })) end
      assert.equal(1, cache:invalidate_tag("t"))
      assert.equal(1, other:get("k"))
      assert.equal(1, bob:get("k"))
      assert.same({ "t" }, other:tags("k"))
      local _, err = cache:transaction(function(tx)
        return tx:query("INSERT INTO fpcache_tags (user_id, namespace, tag, key) VALUES ('bob', '', 'x', 'k')")
      end)
      assert.matches("row%-level security", err)
    end)

    it("is seen by the layers here at once and elsewhere in time, one row of the feed for all", function()
      local here, there = layers.open(db), layers.open(db)
      local keys = {}
      for i = 1, 100 do keys["k" .. i] = i end
      assert(here:set_many(keys, { tags = "t" }))
      layers.warm(there, "k7")
      layers.warm(here, "k7")
      db:sql("TRUNCATE fpcache_feed")
      assert.equal(100, here:invalidate_tag("t"))
      assert.is_nil((here:get("k7")))
      assert.equal("1", db:sql("SELECT count(*) FROM fpcache_feed"))
      core.system.sleep(layers.STALENESS)
      assert.is_nil((there:get("k7")))
      assert.equal(0, cache:invalidate_tag("t"))
      assert.equal("1", db:sql("SELECT count(*) FROM fpcache_feed"), "nothing deleted, nothing told")
    end)

    it("is told behind a transaction pooler too", function()
      local there, unprepared = layers.open(db), db:open { prepared = false }
      assert(unprepared:set("k", 1, { tags = "t" }))
      layers.warm(there, "k")
      assert.equal(1, unprepared:invalidate_tag("t"))
      core.system.sleep(layers.STALENESS)
      assert.is_nil((there:get("k")))
    end)

    it("is part of a transaction", function()
      assert(cache:set("k", 1, { tags = "t" }))
      cache:transaction(function(tx)
        assert.equal(1, tx:invalidate_tag("t"))
        assert.is_nil((tx:get("k")))
        return nil, "no"
      end)
      assert.equal(1, cache:get("k"))
    end)

    it("waits for a write of the same key and leaves no tag behind unknown", function()
      local writer = db:open()
      assert(cache:set("k", 1, { tags = "t" }))
      writer:transaction(function(tx)
        assert(tx:set("k", 2, { tags = { "t", "u" } }))
        local _, err = db:open { timeout = 0.2, bulk_timeout = 0.2 }:invalidate_tag("t")
        assert.matches("^timeout: ", err)
        return true
      end)
      assert.equal(1, cache:invalidate_tag("u"))
      assert.equal(0, entries())
    end)
  end)

  it("leave entries in vain behind, which cleanup removes, and none that is needed", function()
    assert(cache:set("a", 1, { tags = { "x", "y" } }))
    assert(cache:set("b", 1, { tags = "x" }))
    assert(cache:delete("a"))
    assert(cache:set("b", 2))
    assert(cache:set("c", 3, { tags = "x" }))
    assert.equal(4, entries())
    db:sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT fpcache_sweep_tags(0, 1000); COMMIT")
    assert.equal(4, entries(), "one snapshot cannot judge")
    -- an entry that a writer has found and locked stays
    cache:transaction(function(tx)
      assert(tx:set("b", 3, { tags = "x" }))
      assert.equal(0, db:open():cleanup())
      return true
    end)
    assert.equal(2, entries())
    assert.same({ "b", "c" }, cache:keys { tag = "x" })
    assert.equal(2, cache:invalidate_tag("x"))
  end)

  it("go by the row as it is once it can be locked, when it was given other tags meanwhile", function()
    -- The sweep has found what is in vain and waits; then a writer makes one of it needed.
    assert(cache:set("a", 1, { tags = "x" }))
    assert(cache:set("a", 1))
    assert(cache:set("b", 1, { tags = "x" }))
    assert(cache:set("b", 1))
    local dir = assert(core.system.mkdtemp("/tmp/fpcache-sweep-"))
    finally(function() core.system.remove_tree(dir) end)
    local function run(name, text) -- psql beside us; gives what it said
      assert(core.spawn { argv = { "psql", "-qAt", "-d", db.url, "-c", text }, log = dir .. "/" .. name })
      return function()
        return database.eventually(function()
          local file = io.open(dir .. "/" .. name)
          local said = file and file:read("*a") or ""
          if file then file:close() end
          return said:match("(.+)\n")
        end)
      end
    end
    local function is_waited_for(condition)
      assert.is_truthy(database.eventually(function()
        return db:sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND " .. condition) == "1"
      end))
    end
    local swept
    assert(cache:transaction(function(tx)
      assert(tx:query("LOCK TABLE fpcache_tags IN EXCLUSIVE MODE")) -- others may read it, and lock no row of it
      swept = run("sweep", "SELECT fpcache_sweep_tags(0, 1000)")
      is_waited_for("relation = 'fpcache_tags'::regclass")
      return tx:set("a", 2, { tags = "x" })
    end))
    assert.equal("1", swept(), "the entry of b")
    assert.same({ "a" }, cache:keys { tag = "x" })
    assert.equal(1, entries())

    -- An invalidation has found its rows and waits for a writer, who takes the tag off one and gives it to another.
    assert(cache:set("b", 1, { tags = "x" }))
    local gone
    assert(cache:transaction(function(tx)
      assert(tx:set("a", 3, { tags = "y" }))
      gone = run("gone", [[SELECT fpcache_forget(ARRAY['app'], '', NULL, ARRAY['x'::bytea])]])
      is_waited_for("locktype = 'transactionid'")
      return true
    end))
    assert.equal("1", gone())
    assert.same({ "a" }, cache:keys())
    assert.equal(3, cache:get("a"))
    assert.same({ "a" }, cache:keys { tag = "y" })

    -- The same by our own call.
    assert(cache:set("b", 1, { tags = "y" }))
    local system = core.system
    local code = assert(io.open(dir .. "/code.lua", "w"))
    code:write([[
      local cache = assert(require("fpcache").new { connection_string = ..., feed = false })
      print(assert(cache:invalidate_tag("y"))) cache:close()]])
    code:close()
    assert(cache:transaction(function(tx)
      assert(tx:set("a", 4, { tags = "z" }))
      assert(core.spawn { argv = { system.exe(), dir .. "/code.lua", db:url_of() }, log = dir .. "/own",
        env = { "LUA_PATH=" .. package.path, "LUA_CPATH=" .. package.cpath } })
      is_waited_for("locktype = 'transactionid'")
      return true
    end))
    assert.is_truthy(database.eventually(function() return cache:get("b") == nil end))
    assert.equal(4, cache:get("a"))
    assert.same({ "a" }, cache:keys { tag = "z" })
  end)

  it("survive a storm of writers, invalidations and sweeps: what is tagged is always found", function()
    local code = [[
      local cache = assert(require("fpcache").new { connection_string = ..., feed = false })
      math.randomseed(%d)
      for _ = 1, 250 do
        local key, dice = "k" .. math.random(5), math.random(6)
        if dice == 1 then assert(cache:invalidate_tag("t" .. math.random(3)))
        elseif dice == 2 then assert(cache:cleanup())
        elseif dice == 3 then assert(cache:set(key, 1))
        elseif dice == 4 then assert(cache:delete(key) ~= nil)
        else assert(cache:set(key, 1, { tags = { "t" .. math.random(3), "u" } })) end
      end
      cache:close()]]
    local system = core.system
    local dir = assert(system.mkdtemp("/tmp/fpcache-tags-"))
    finally(function() system.remove_tree(dir) end)
    for i = 1, 3 do
      local file = assert(io.open(("%s/%d.lua"):format(dir, i), "w"))
      file:write(code:format(i), ' io.write("done")')
      file:close()
      assert(core.spawn { argv = { system.exe(), ("%s/%d.lua"):format(dir, i), db:url_of() }, log = dir .. "/" .. i,
        env = { "LUA_PATH=" .. package.path, "LUA_CPATH=" .. package.cpath } })
    end
    local function said(i)
      local file = io.open(dir .. "/" .. i)
      local text = file and file:read("*a") or ""
      if file then file:close() end
      return text
    end
    assert.is_truthy(database.eventually(function() return #said(1) > 0 and #said(2) > 0 and #said(3) > 0 end, 60))
    for i = 1, 3 do assert.equal("done", said(i)) end
    assert.equal("0", db:sql([[
      SELECT count(*) FROM cache AS c CROSS JOIN LATERAL unnest(c.tags) AS t (tag)
      WHERE NOT EXISTS (SELECT 1 FROM fpcache_tags AS i WHERE i.user_id = c.user_id AND i.namespace = c.namespace
                        AND i.tag = t.tag AND i.key = c.key)]]))
  end)

  it("leave writes without tags heap-only, one index on the table", function()
    for i = 1, 50 do assert(cache:set("k" .. i, i)) end
    local before = db:sql("SELECT pg_relation_size('cache_pkey')")
    for _ = 1, 20 do
      for i = 1, 50 do assert(cache:set("k" .. i, i)) end
    end
    assert.equal(before, db:sql("SELECT pg_relation_size('cache_pkey')"))
    assert.equal("1", db:sql("SELECT count(*) FROM pg_indexes WHERE tablename = 'cache'"))
    assert.equal(0, entries())
  end)

  it("come with fetch: of the policy, or as the loader says; not modified keeps them", function()
    local fpcache = require "fpcache"
    local policy = fpcache.policy { ttl = 60, tags = { "p", "p" } }
    assert.equal(1, cache:fetch("a", policy, function() return 1 end))
    assert.equal(1, cache:fetch("b", policy, function(context)
      context.tags = { "own", "other" }
      return 1
    end))
    assert.equal(1, cache:fetch("c", { ttl = 60 }, function() return 1 end))
    assert.same({ { "p" }, { "other", "own" }, {} }, { cache:tags("a"), cache:tags("b"), cache:tags("c") })
    assert.same({ d = 1, e = 1 }, cache:fetch_many({ "d", "e" }, policy, function() return { d = 1, e = 1 } end))
    assert.same({ "a", "d", "e" }, cache:keys { tag = "p" })
    assert.equal(3, cache:invalidate_tag("p"))
    local _, err = cache:fetch("f", policy, function(context)
      context.tags = { 5 }
      return 1
    end)
    assert.matches("^invalid: context.tags: ", err)
    -- a loader that was at it when its key's tag was invalidated stores nothing
    assert(cache:set("g", 0, { tags = "p", expires_at = 1 }))
    assert.equal("late", cache:fetch("g", policy, function()
      assert.equal(0, cache:invalidate_tag("p"))
      return "late"
    end))
    assert.is_nil((cache:get("g")))
    -- expired by tag, given as stale
    local stale = fpcache.policy { ttl = 60, stale_ttl = 60, tags = "s" }
    assert.equal("old", cache:fetch("h", stale, function() return "old" end))
    assert.equal(1, cache:invalidate_tag("s", { expire = true }))
    assert.is_nil((cache:get("h")))
    assert.equal("old", (cache:fetch("h", stale, function() return nil, "origin: down" end)))
  end)

  it("are checked", function()
    assert.equal("invalid: a tag has 1 to 255 bytes, tag 2 has 0", select(2, cache:set("k", 1, { tags = { "a", "" } })))
    assert.equal("invalid: a tag has 1 to 255 bytes, tag 1 has 256", select(2, cache:invalidate_tag(("x"):rep(256))))
    local many = {}
    for i = 1, 101 do many[i] = "t" .. i end
    assert.equal("invalid: at most 100 tags, got 101", select(2, cache:set("k", 1, { tags = many })))
    assert.equal("invalid: at most 100 tags, got 101", select(2, cache:set_many({ k = 1 }, { tags = many })))
    assert.equal(0, cache:invalidate_tag {})
    raises("bad tags (string or list expected, got nil)", function() cache:invalidate_tag() end)
    raises("bad tag 1 (string expected, got number)", function() cache:set("k", 1, { tags = { 5 } }) end)
    raises("options.tags: string table is expected, got number", function() cache:set("k", 1, { tags = 5 }) end)
    raises("options: all and tag exclude each other", function() cache:count { all = true, tag = "t" } end)
    local binary = "\0\255'\\"
    assert(cache:set("k", 1, { tags = binary }))
    assert.same({ "k" }, cache:keys { tag = binary })
    assert.equal(1, cache:invalidate_tag(binary))
    cache:close()
    assert.matches("^closed: ", select(2, cache:invalidate_tag("t")))
    assert.matches("^closed: ", select(2, cache:tags("t")))
    assert.matches("^closed: ", select(2, cache:keys { tag = "t" }))
  end)
end)

-- coherence_others_spec.lua -- the near cache and the filter against a real server: what others change, wipe and cut.
local admin = require "fpcache.admin"
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"
local layers = require "support.layers"

local source, warm, STALENESS = layers.source, layers.warm, layers.STALENESS
local now = core.system.now

describe("coherence with others:", function()
  local db
  setup(function() db = database.new() end)
  teardown(child.clean)
  before_each(function() db:sql("TRUNCATE cache") end)
  after_each(function() db:close_all() end)

  local function open(opts) return layers.open(db, opts) end
  local function elsewhere(code) layers.elsewhere(db, code) end

  -- What others do to key k, and what is there then.
  local OTHERS = {
    ["another process"] = { function() elsewhere('assert(cache:set("k", 2))') end, 2 },
    ["another process in bulk"] = { function() elsewhere('assert(cache:set_many { k = 2, l = 3 })') end, 2 },
    ["another process's delete"] = { function() elsewhere('assert(cache:delete("k"))') end, nil },
    ["another process's clear"] = { function() elsewhere('assert(cache:clear())') end, nil },
    ["another process's transaction"] = { function()
      elsewhere('assert(cache:transaction(function(tx) return tx:set("k", 2) end))')
    end, 2 },
    ["another process's own SQL"] = { function()
      elsewhere([[assert(cache:transaction(function(tx)
        tx:set("l", 1)
        return tx:query("DELETE FROM cache WHERE key = 'k'")
      end))]])
    end, nil },
    ["own SQL after a savepoint was undone"] = { function()
      elsewhere([[assert(cache:transaction(function(tx)
        tx:transaction(function(inner) inner:query("SELECT 1"); return nil, "undone" end)
        return tx:query("DELETE FROM cache WHERE key = 'k'")
      end))]])
    end, nil },
    psql = { function(url) db.srv:sql("DELETE FROM cache WHERE key = 'k'", url) end, nil },
    ["psql's update"] = { function(url) db.srv:sql("UPDATE cache SET value = '2' WHERE key = 'k'", url) end, 2 },
    ["psql's truncate"] = { function() db:sql("TRUNCATE cache") end, nil },
    ["Python's set"] = { function(url)
      db.srv:sql([[SELECT cache_set(session_user::text, 'k', '{"by": "python"}', NULL)]], url)
    end, { by = "python" } },
    ["Python's delete"] = { function(url) db.srv:sql("SELECT cache_delete(session_user::text, 'k')", url) end, nil },
  }

  describe("a change by", function()
    for name, about in pairs(OTHERS) do
      it(name .. " is seen after wait_ready", function()
        local cache = open()
        cache:set("k", 1)
        warm(cache, "k")
        about[1](db:url_of())
        assert(cache:wait_ready(20))
        assert.same(about[2], (cache:get("k")))
      end)
    end

    it("others is seen within max_staleness", function()
      local cache = open()
      cache:set("k", 0)
      for round = 1, 5 do
        assert(cache:wait_ready(20))
        assert.equal(round - 1, cache:get("k"))
        assert.same({ "near", "filter" }, { source(cache, "k"), source(cache, "new" .. round) })
        db.srv:sql(("UPDATE cache SET value = '%d'; INSERT INTO cache (namespace, key, value, format, version, expires_at) "
          .. "VALUES ('', 'new%d', '1', 'i', 1, 'infinity')"):format(round, round), db:url_of())
        local committed = now() -- at the latest
        assert(database.eventually(function()
          return cache:get("k") == round and cache:get("new" .. round) == 1
        end, 5))
        assert(now() - committed < STALENESS, "took too long")
      end
    end)
  end)

  describe("a wipe is noticed:", function()
    local function noticed(wipe)
      local cache = open()
      cache:set("k", 1)
      cache:set("l", 1)
      warm(cache, "k")
      wipe()
      assert(cache:wait_ready(20))
      assert.is_nil((cache:get("k")))
      elsewhere('assert(cache:set("k", 2))')
      assert(cache:wait_ready(20))
      assert.equal(2, (cache:get("k")))
      assert.equal("filter", source(cache, "l"))
      assert.equal(1, cache:stats().feed.incarnation_changes)
    end
    it("a crash", function() noticed(function() db.srv:restart("crash") end) end)
    it("TRUNCATE", function() noticed(function() db:sql("TRUNCATE cache") end) end)
    it("setup --force", function()
      noticed(function() assert(admin.setup { connection_string = db.url, force = true, grant = "public" }) end)
    end)
  end)

  describe("a feed out of touch", function()
    it("answers nothing: the server does, or nobody", function()
      local cache = open()
      cache:set("k", 1)
      warm(cache, "k")
      db.srv:stop()
      finally(function() db.srv:start() end)
      assert(database.eventually(function() return cache:stats().feed.state == "stale" end))
      for _, key in ipairs { "k", "no" } do
        local value, err, from = cache:get(key)
        assert.is_nil(value)
        assert.matches("^connect: ", err)
        assert.is_nil(from)
      end
      assert.is_nil((cache:get_many { "k", "no" }))
      assert.is_nil((cache:exists("no")))
      assert.matches("^timeout: ", select(2, cache:wait_ready(0.05)))
      local stats = cache:stats()
      assert.same({ "stale", "stale" }, { stats.near.state, stats.filter.state })
      assert.matches("^connect: ", stats.server_error)
      db.srv:start()
      assert(cache:wait_ready(20))
      local value, _, from = cache:get("k")
      assert.same({ 1, "db" }, { value, from }) -- a clean stop wiped nothing; but who took over may lack what was told
      assert.equal(1, cache:stats().feed.fell_behind)
    end)

    it("is what a closed cache has", function()
      local cache = open()
      local view = cache:namespace("n")
      cache:set("k", 1)
      warm(cache, "k")
      cache:close()
      for _, c in ipairs { cache, view } do
        assert.matches("^closed: ", select(2, c:get("k")))
        assert.matches("^closed: ", select(2, c:set("k", 2)))
      end
    end)
  end)
end)

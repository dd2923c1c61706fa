-- coherence_others_spec.lua -- the near cache and the filter against a real server: what others change, wipe and cut.
local admin = require "fpcache.admin"
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"
local layers = require "support.layers"

local source, warm, STALENESS = layers.source, layers.warm, layers.STALENESS
local now = core.system.now
local SIGKILL, SIGCONT, SIGSTOP = 9, 18, 19

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
        for key, wanted in pairs { k = round, ["new" .. round] = 1 } do
          -- However slow the machine is: a read that begins later than max_staleness after the commit sees it.
          local began, value
          assert(database.eventually(function()
            began = now()
            value = cache:get(key)
            return value == wanted or began - committed >= STALENESS
          end))
          assert.equal(wanted, value)
        end
      end
    end)
  end)

  -- name = { value before or nil, what reads }
  local LOADS = {
    get = { 1, function(c) return c:get("k") end },
    ["get of what is absent"] = { nil, function(c) return c:get("k") end },
    get_many = { 1, function(c) return c:get_many({ "k" }).k end },
    ["get_many of what is absent"] = { nil, function(c) return c:get_many({ "k" }).k end },
    fetch = { 1, function(c) return c:fetch("k", 60, function() error "not called" end) end },
  }

  describe("a load that is overtaken by a change is not kept:", function()
    for name, about in pairs(LOADS) do
      it(name, function()
        local cache = open { max_staleness = 60, use_cuckoo_filter = false }
        if about[1] then assert(cache:set("k", about[1])) end
        assert(cache:wait_ready(20))
        local pool, overtaken = cache.db, false
        -- The change is told after the server has answered, and before the answer arrives.
        cache.db = setmetatable({}, { __index = function(_, method)
          return function(_, ...)
            local results = { n = select("#", pool[method](pool, ...)), pool[method](pool, ...) }
            if not overtaken then
              overtaken = true
              db.srv:sql("SELECT cache_set('app', 'k', '2')", db:url_of())
              assert(cache:wait_ready(20))
            end
            return (table.unpack or unpack)(results, 1, results.n)
          end
        end })
        assert.equal(about[1], about[2](cache))
        cache.db = pool
        assert.is_true(overtaken)
        assert.equal(2, about[2](cache))
        assert.equal(2, (cache:get("k")))
        assert.equal("near", source(cache, "k"))
      end)
    end
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
    it("a server that was scaled to zero", function()
      noticed(function()
        db.srv:stop("immediate") -- what is not logged is gone
        assert(database.eventually(function() return db.opened[1]:stats({ server = false }).feed.state == "stale" end))
        db.srv:start()
      end)
    end)
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

    -- Whichever of its threads runs first then: it is a reading of the clock that keeps the promise, no thread's notice.
    it("is what a process has that was stopped", function()
      local what = child.command([[
        local now = require("fpcache.core").system.now
        local cache = assert(require("fpcache").new { connection_string = ..., max_staleness = 0.5, feed_interval = 0.02 })
        local function say(...)
          io.write(..., "\n")
          io.flush()
        end
        assert(cache:wait_ready(20))
        local began, value, err, from, last, is_warm
        local ends = now() + 60
        repeat
          began = now()
          value, err, from = cache:get("k")
          if value == 1 then last = began end
          if from == "near" and not is_warm then
            is_warm = true
            say("warm")
          end
        until value ~= 1 or began > ends
        say(("%s after %.9f"):format(tostring(value or err), last))
        cache:close()]], { db:url_of() })
      what.log = os.tmpname()
      assert(db:open { feed = false }:set("k", 1))
      local pid = assert(core.spawn(what))
      finally(function()
        core.system.kill(pid, SIGKILL)
        os.remove(what.log)
      end)
      local function read(path)
        local file = io.open(path)
        local text = file and file:read("*a") or ""
        if file then file:close() end
        return text
      end
      assert.is_truthy(database.eventually(function() return read(what.log):find("warm\n", 1, true) end), read(what.log))
      assert(core.system.kill(pid, SIGSTOP))
      assert.is_truthy(database.eventually(function() return read(("/proc/%d/stat"):format(pid)):find(") T ", 1, true) end))
      db.srv:sql("UPDATE cache SET value = '2', format = 'i'", db:url_of())
      local committed = now() -- at the latest
      assert.is_truthy(database.eventually(function() return now() > committed + STALENESS + 0.05 end))
      assert(core.system.kill(pid, SIGCONT))
      local found, last
      assert.is_truthy(database.eventually(function()
        found, last = read(what.log):match("warm\n(.*) after (%S+)\n")
        return found
      end), read(what.log))
      assert.equal("2", found)
      assert.is_true(tonumber(last) < committed, "it read an old value after it went on")
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

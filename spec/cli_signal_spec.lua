-- cli_signal_spec.lua -- SIGINT and SIGTERM: the script ends, the connections go, what was under way is rolled back.
local database = require "support.database"
local interpreter = require "support.interpreter"

local SIGINT, SIGTERM = 2, 15

-- What a script may be doing, and how another session sees that it is.
local SCENES = {
  ["waits for the server"] = {
    [[cache:transaction(function(tx)
        assert(tx:set("half", 1))
        return tx:query("SELECT pg_sleep(60)")
      end)]],
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event = 'PgSleep'",
  },
  ["waits for a lock"] = {
    [[cache:set("locked", 2)]],
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'",
  },
  ["computes"] = {
    [[cache:transaction(function(tx)
        assert(tx:set("half", 1))
        while true do end
      end)]],
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'",
  },
  ["computes in a coroutine"] = {
    [[coroutine.wrap(function() cache:transaction(function(tx)
        assert(tx:set("half", 1))
        while true do end
      end) end)()]],
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'",
  },
  ["catches every error"] = {
    [[cache:transaction(function(tx)
        assert(tx:set("half", 1))
        while true do pcall(function() while true do end end) end
      end)]],
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'",
  },
  ["has many tasks that wait"] = {
    [[local fpcache = require("fpcache")
      fpcache.parallel {
        jobs = 20, each = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 },
        run = function() fpcache.sleep(60); return cache:set("locked", 2) end,
      }
      error("interrupted")]],
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'",
  },
  ["is in the middle of set_many"] = {
    [[local i = 0
      cache:set_many(function()
        i = i + 1
        return "key" .. i, i
      end, { batch = 100 })]],
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND backend_xid IS NOT NULL AND query LIKE '%unnest%'",
  },
}

describe("a signal", function()
  local db, fpcache, holder

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    fpcache = interpreter.new { FPCACHE_URL = db:url_of() }
    assert(db:open():set("locked", 1))
    db:close_all()
    holder = db:open { connection_string = db.url }
  end)
  after_each(function()
    fpcache:remove()
    db:close_all()
  end)

  for what, scene in pairs(SCENES) do
    for signal, code in pairs { [SIGINT] = 130, [SIGTERM] = 143 } do
      it(("to a script that %s: exit code %d, nothing left"):format(what, code), function()
        local script = fpcache:file("script.lua", [[
          local cache = assert(require("fpcache").new{ timeout = 30 })
          ]] .. scene[1] .. [[

          error("not reached")]])
        holder:transaction(function(tx)
          assert(tx:query("SELECT 1 FROM cache WHERE key = 'locked' FOR UPDATE"))
          local job = fpcache:start { script }
          local is_there = database.eventually(function() return db:sql(scene[2]) ~= "0" end)
          assert.is_truthy(is_there, "the script comes to its scene: " .. job:output())
          assert.equal(code, job:kill(signal))
          assert.equal("", job:output(), "no traceback")
        end)
        assert.is_truthy(database.eventually(function() return db:connections() == 0 end), "connections are gone")
        assert.equal("locked|1", db:sql("SELECT convert_from(key, 'UTF8'), convert_from(value, 'UTF8') FROM cache"))
      end)
    end
  end

  it("ends a loop in a coroutine by an error, so that finalizers run", function()
    local script = fpcache:file("s.lua", [[
      io.stdout:setvbuf("no")
      last = setmetatable({}, { __gc = function() io.write("finalized") end })
      local inner = coroutine.wrap(function()
        io.write("begun ")
        while true do pcall(function() while true do end end) end
      end)
      coroutine.wrap(function() inner() end)()]])
    local job = fpcache:start { script }
    assert.is_truthy(database.eventually(function() return job:output():find("begun") end))
    assert.equal(130, job:kill(SIGINT))
    assert.equal("begun finalized", job:output())
  end)

  it("reaches a script that set no handler of its own and ends it once only", function()
    local script = fpcache:file("s.lua", [[
      local cache <close> = assert(require("fpcache").new())
      local guard <close> = setmetatable({}, { __close = function() io.write("closed ") end })
      cache:transaction(function(tx) return tx:query("SELECT pg_sleep(60)") end)
      io.write("went on")]])
    local job = fpcache:start { script }
    assert.is_truthy(database.eventually(function()
      return db:sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") ~= "0"
    end))
    assert.equal(143, job:kill(SIGTERM))
    assert.is_truthy(database.eventually(function() return db:connections() == 0 end))
    assert.is_nil(job:output():find("went on"))
  end)
end)

-- One loading for a key that everybody misses at once: coroutines, processes, and the death of who loads.
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"

-- A process of the stampede: 32 coroutines fetch one key; each loading leaves a row in table `loads` when it begins and another
-- when it ends, on the server's clock.
local MEMBER = [[
  local url, tasks_file, coroutines, policy_code = ...
  local core = require "fpcache.core"
  local fpcache = require "fpcache"
  local tasks = dofile(tasks_file).new()
  local cache = assert(fpcache.new { connection_string = url, feed = false })
  local policy = fpcache.policy(assert(load("return " .. policy_code))())
  local function note(what)
    assert(cache:transaction(function(tx)
      return tx:query("INSERT INTO loads (pid, what, at) VALUES ($1, $2, clock_timestamp())", core.system.pid(), what)
    end))
  end
  local function loader()
    note("begin")
    fpcache.waiting.sleep(0.2)
    note("end")
    return "loaded"
  end
  while core.system.wall() < START do core.system.sleep(0.001) end
  local sources = {}
  for _ = 1, tonumber(coroutines) do
    tasks:spawn(function()
      local value, err, source = cache:fetch("hot", policy, loader)
      assert(value == "loaded", err)
      sources[#sources + 1] = source
    end)
  end
  tasks:run()
  cache:close()
  io.write(#sources)
]]

describe("a stampede", function()
  local db

  setup(function()
    db = database.new()
    db:sql("CREATE TABLE loads (id serial, pid int, what text, at timestamptz); GRANT ALL ON loads TO PUBLIC;"
      .. "GRANT ALL ON SEQUENCE loads_id_seq TO PUBLIC")
  end)
  before_each(function() db:sql("TRUNCATE loads; TRUNCATE cache") end)
  after_each(function() db:close_all() end)
  teardown(child.clean)

  local function start(count, coroutines, policy)
    local at = core.system.wall() + 1.5
    local members = {}
    for i = 1, count do
      local what = child.command((MEMBER:gsub("START", ("%.3f"):format(at))),
        { db:url_of(), assert(core.system.realpath("spec/support/tasks.lua")), tostring(coroutines), policy })
      members[i] = assert(core.spawn(what))
    end
    return members
  end

  local function finish(members, expected)
    for _, member in ipairs(members) do
      local result = assert(member:wait(60))
      assert.equal(0, result.status, result.output)
      assert.equal(expected, result.output)
    end
  end

  it("of 8 processes with 32 coroutines each loads once", function()
    finish(start(8, 32, "{ ttl = 60 }"), "32")
    assert.equal("begin,end", db:sql("SELECT string_agg(what, ',' ORDER BY id) FROM loads"))
  end)

  it("on one host loads once with lock = host", function()
    finish(start(4, 4, "{ ttl = 60, lock = 'host' }"), "4")
    assert.equal("begin,end", db:sql("SELECT string_agg(what, ',' ORDER BY id) FROM loads"))
  end)

  it("loads once in each process, at least in one and at most in all, with lock = process", function()
    finish(start(4, 8, "{ ttl = 60, lock = 'process' }"), "8")
    assert.equal("t", db:sql("SELECT count(*) BETWEEN 1 AND 4 AND count(*) = count(DISTINCT pid) FROM loads WHERE what = 'begin'"))
  end)

  it("goes on after the lease's deadline when who loads is killed, never two at once", function()
    local members = start(4, 8, "{ ttl = 60, hard_timeout = 1, lock_timeout = 20 }")
    local first = database.eventually(function() return tonumber(db:sql("SELECT pid FROM loads LIMIT 1")) end)
    assert(core.system.kill(first, 9))
    local survivors = {}
    for _, member in ipairs(members) do
      if member:pid() == first then assert(member:wait(10)) else survivors[#survivors + 1] = member end
    end
    finish(survivors, "8")
    assert.equal("begin,begin,end", db:sql("SELECT string_agg(what, ',' ORDER BY id) FROM loads"))
    assert.equal("t", db:sql([[SELECT b.at - a.at >= interval '0.95 s' AND b.pid <> a.pid
      FROM (SELECT * FROM loads ORDER BY id LIMIT 1) a, (SELECT * FROM loads ORDER BY id OFFSET 1 LIMIT 1) b]]))
  end)
end)

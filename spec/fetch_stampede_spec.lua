-- One loading for a key that everybody misses at once: coroutines, processes, and the death of who loads.
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"

-- A process of the stampede: 32 coroutines fetch one key; each loading leaves a row in table `loads` when it begins and another
-- when it ends, on the server's clock.  The first loading of all takes FIRST seconds.
local MEMBER = [[
  local url, tasks_file, coroutines, policy_code = ...
  local core = require "fpcache.core"
  local fpcache = require "fpcache"
  local tasks = dofile(tasks_file).new()
  local cache = assert(fpcache.new { connection_string = url, feed = false })
  local policy = fpcache.policy(assert(load("return " .. policy_code))())
  local function note(what)
    return assert(cache:transaction(function(tx)
      return tx:query("INSERT INTO loads (pid, what, at) VALUES ($1, $2, clock_timestamp()) "
        .. "RETURNING id = (SELECT min(id) FROM loads) IS NOT FALSE AS first", core.system.pid(), what)
    end))[1].first
  end
  local function loader()
    fpcache.waiting.sleep(note("begin") and FIRST or 0.2)
    note("end")
    return "loaded"
  end
  print(core.system.pid())
  io.stdout:flush()
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
  print("ended", #sources)
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

  local folder

  before_each(function() folder = assert(core.system.mkdtemp("/tmp/fpcache-stampede-")) end)
  after_each(function() core.system.remove_tree(folder) end)

  local function start(count, coroutines, policy, first)
    local at = core.system.wall() + 1.5
    for i = 1, count do
      local what = child.command((MEMBER:gsub("%u%u%u%u%u+", { START = ("%.3f"):format(at), FIRST = tostring(first or 0.2) })),
        { db:url_of(), assert(core.system.realpath("spec/support/tasks.lua")), tostring(coroutines), policy })
      what.log = folder .. "/" .. i
      assert(core.spawn(what))
    end
  end

  local function read(i)
    local file = io.open(folder .. "/" .. i)
    local text = file and file:read("*a") or ""
    if file then file:close() end
    return text
  end

  --- Waits for all but the process `killed`.
  local function finish(count, coroutines, killed)
    for i = 1, count do
      assert.is_truthy(database.eventually(function()
        return read(i):match("ended\t" .. coroutines .. "\n$") or killed and read(i) == killed .. "\n"
      end, 40), read(i))
    end
  end

  it("of 8 processes with 32 coroutines each loads once", function()
    start(8, 32, "{ ttl = 60 }")
    finish(8, 32)
    assert.equal("begin,end", db:sql("SELECT string_agg(what, ',' ORDER BY id) FROM loads"))
  end)

  it("on one host loads once with lock = host", function()
    start(4, 4, "{ ttl = 60, lock = 'host' }")
    finish(4, 4)
    assert.equal("begin,end", db:sql("SELECT string_agg(what, ',' ORDER BY id) FROM loads"))
  end)

  it("loads once in each process, at least in one and at most in all, with lock = process", function()
    start(4, 8, "{ ttl = 60, lock = 'process' }")
    finish(4, 8)
    assert.equal("t", db:sql(
      "SELECT count(*) BETWEEN 1 AND 4 AND count(*) = count(DISTINCT pid) FROM loads WHERE what = 'begin'"))
  end)

  it("goes on after the lease's deadline when who loads is killed, never two at once", function()
    start(8, 32, "{ ttl = 60, hard_timeout = 2, lock_timeout = 20 }", 60) -- it is killed in the midst of it
    local first = database.eventually(function() return tonumber(db:sql("SELECT pid FROM loads LIMIT 1")) end)
    assert(core.system.kill(first, 9))
    finish(8, 32, ("%d"):format(first))
    assert.equal("begin,begin,end", db:sql("SELECT string_agg(what, ',' ORDER BY id) FROM loads"))
    assert.equal("t", db:sql([[SELECT b.at - a.at >= interval '1.95 s' AND b.pid <> a.pid
      FROM (SELECT * FROM loads ORDER BY id LIMIT 1) a, (SELECT * FROM loads ORDER BY id OFFSET 1 LIMIT 1) b]]))
  end)
end)

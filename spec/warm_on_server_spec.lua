-- warm_on_server_spec.lua -- warm-ups whose query and cache share a database: what comes out is as by streaming.
local codec = require "fpcache.codec"
local core = require "fpcache.core"
local database = require "support.database"
local files = require "support.files"
local fpcache = require "fpcache"
local interpreter = require "support.interpreter"
local layers = require "support.layers"

describe("a warm-up on the server", function()
  local db, cache, dir

  setup(function()
    db = database.new()
    dir = assert(core.system.mkdtemp("/tmp/fpcache-warm-"))
  end)
  teardown(function() assert(core.system.remove_tree(dir)) end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open { feed = false, namespace = "n" }
  end)
  after_each(function()
    db:close_all()
    assert.equal(0, core.open_objects())
  end)

  --- What every row of the cache holds, but its version.  LuaJIT streams a float without a fraction as an integer.
  local function rows()
    return db:sql([[SELECT namespace, encode(key, 'hex'), long_key,
      CASE WHEN format IN ('i', 'f') AND ]] .. tostring(_G.jit ~= nil) .. [[ THEN 'number' ELSE format::text END,
      CASE WHEN format NOT IN ('j', 'i', 'f') THEN value END, expires_at = 'infinity' FROM cache ORDER BY 1, 2]])
  end

  local function values()
    local found = {}
    for key, value in cache:scan() do found[key] = value end
    return found
  end

  --- Runs the job both ways; they must come to the same, bad records included.
  local function both(job)
    job.cache, job.max_errors, job.batch = cache, 1000, job.batch or 7
    local outcome = {}
    for i = 1, 2 do
      db:sql("TRUNCATE cache")
      job.on_server = i == 1
      job.source = { sql = job.sql, connection_string = i == 2 and db:url_of() or nil }
      job.errors = dir .. "/err"
      local sql = job.sql
      job.sql = nil
      local state = assert(fpcache.warm(job))
      job.sql = sql
      local places = {}
      for line in files.read(dir .. "/err"):gmatch("[^\n]+") do places[#places + 1] = codec.json.decode(line).line end
      table.sort(places)
      outcome[i] = { state.read, state.stored, state.bad, places, rows(), values() }
    end
    assert.same(outcome[2], outcome[1])
    return outcome[1]
  end

  local TYPES = [[SELECT i AS id, i * 1000000007::bigint * 1000000 AS big, i::smallint AS small, i % 2 = 0 AS even,
      i / 4.0::float8 AS half, (i / 3.0)::real AS third, i::numeric / 3 AS exact, 'a "quoted" \ text' || chr(10) || i AS words,
      NULLIF(i, 3) AS hole, '{"a":[1]}'::jsonb AS json, now()::date - i AS day, ARRAY[i, NULL] AS list, '\x00ff'::bytea AS bytes,
      i::text || 'ü' AS "Odd ""name", NULL::text AS never
    FROM generate_series(1, 20) AS i ORDER BY i]]

  it("makes the same entries as streaming, for every type", function()
    local all = both { sql = TYPES, key = "k:{id}" }
    assert.same({ 20, 20, 0 }, { all[1], all[2], all[3] })
    assert.equal(4.0, all[6]["k:16"].half)
    assert.equal(1000000007000000 * 5, tonumber(all[6]["k:5"].big))
    for _, field in ipairs { "id", "big", "small", "even", "half", "third", "exact", "words", "hole", "json", "day", "list",
      "bytes", 'Odd "name' } do
      both { sql = TYPES, key = "k:{id}", value = ("{%s}"):format(field) }
    end
    both { sql = TYPES, key = "{{{id}}}/{even}/{day}/{words}", value = "{id}: {exact}'s" }
    both { sql = "SELECT NULL::int AS a, NULL::text AS b, 1 AS id", key = "{id}" }
    local odd = "SELECT '%s'::float8 AS f, 1 AS id UNION ALL SELECT '-Infinity', 2 UNION ALL SELECT '-0', 3 ORDER BY 2"
    both { sql = odd:format("NaN"), key = "{id}" }
    both { sql = odd:format("Infinity"), key = "{id}", value = "{f}" }
  end)

  it("finds the same bad records, and of a key that comes twice takes the last", function()
    local found = both {
      key = "{id}", batch = 30,
      sql = "SELECT i, CASE WHEN i % 5 > 0 THEN i % 7 END AS id FROM generate_series(1, 100) AS i ORDER BY i" }
    assert.same({ 100, 80, 20 }, { found[1], found[2], found[3] })
    assert.equal(99, found[6]["1"].i)
    found = both {
      sql = "SELECT CASE i WHEN 1 THEN '' ELSE repeat('k', i) END AS id FROM unnest(ARRAY[1, 1024, 1025, 3000]) AS i",
      key = "{id}" }
    assert.equal(1, found[3])
    cache = db:open { feed = false, max_key_bytes = 10, max_value_bytes = 30 }
    found = both { sql = [[SELECT 'k' || i AS id, repeat('x', i) AS v FROM generate_series(1, 40) AS i
      UNION ALL SELECT repeat('k', 11), '' ]], key = "{id}" }
    assert.is_true(found[2] > 5 and found[2] < 30)
  end)

  it("tells other clients what it changes", function()
    local other = layers.open(db, { namespace = "n" })
    assert(other:set("k:1", "old"))
    layers.warm(other, "k:1")
    assert(fpcache.warm { cache = cache, source = { sql = "SELECT i AS id FROM generate_series(1, 25) AS i" }, key = "k:{id}",
      on_server = true, batch = 10, ttl = 50 })
    assert.is_truthy(database.eventually(function() return type((other:get("k:1"))) == "table" end, 5))
    assert.equal("3", db:sql("SELECT count(*) FROM fpcache_feed WHERE cardinality(keys) IN (5, 10)"))
    assert.is_true(cache:ttl("k:9") > 40 and cache:ttl("k:9") <= 50)
  end)

  it("goes on after an interruption", function()
    local job = { cache = cache, key = "k:{id}",
      source = { sql = "SELECT i AS id FROM generate_series(1, 1000) AS i ORDER BY i" },
      on_server = true, batch = 100, resume = dir .. "/resume", on_progress = function(state)
        if state.read == 400 then error("killed here") end
      end }
    assert.has_error(function() fpcache.warm(job) end, "killed here")
    assert.equal(400, cache:count())
    db:sql("DELETE FROM cache WHERE key < 'k:2'")
    local left = cache:count()
    job.on_progress = nil
    local state = assert(fpcache.warm(job))
    assert.same({ true, 1000, 1000 }, { state.resumed, state.read, state.stored })
    assert.equal(left + 600, cache:count(), "what was done is not done again")
    -- A place that streaming left is a place here too.
    job.on_server, job.source.connection_string = nil, db:url_of()
    job.jobs, job.on_progress = 1, function(at) if at.read == 300 then error("killed here") end end
    cache:clear()
    assert.has_error(function() fpcache.warm(job) end, "killed here")
    job.on_server, job.source.connection_string, job.on_progress = true, nil, nil
    assert.equal(1000, assert(fpcache.warm(job)).stored)
    assert.equal(1000, cache:count())
  end)

  it("changes nothing but the cache, and refuses what the client has to do", function()
    db:sql("CREATE TABLE IF NOT EXISTS guarded (id int)")
    db:sql("GRANT INSERT ON guarded TO PUBLIC")
    db:sql("CREATE OR REPLACE FUNCTION sneak() RETURNS int LANGUAGE sql AS 'INSERT INTO guarded VALUES (1) RETURNING id'")
    local job = { cache = cache, on_server = true, key = "{id}" }
    local function why(changes)
      local copy = {}
      for name, value in pairs(job) do copy[name] = value end
      for name, value in pairs(changes) do copy[name] = value end
      copy.source = { sql = copy.sql or "SELECT 1 AS id, 0.5::float8 AS f" }
      copy.sql = nil
      local ok, err = fpcache.warm(copy)
      assert.is_nil(ok)
      return err
    end
    assert.matches("read%-only", why { sql = "SELECT sneak() AS id" })
    assert.matches("nonsense.*in the source's query", why { sql = "SELECT nonsense" })
    assert.matches("division by zero", why { sql = "SELECT 1 / (i - 3) AS id FROM generate_series(1, 5) AS i" })
    for pattern, changes in pairs {
      ["column f is a float"] = { key = "{f}" }, ["no column x"] = { key = "{x}" }, ["no column id.x"] = { key = "{id.x}" },
      ["the ttl is a template"] = { ttl = "{id}" }, ["stores nothing"] = { dry_run = true },
      ["compresses or encrypts"] = { cache = db:open { feed = false, compress = true } },
      ["layers in memory"] = { cache = db:open { feed = true } },
    } do
      assert.matches("^invalid: not on the server: .*" .. pattern, why(changes))
    end
    assert.has_error(function() fpcache.warm { cache = cache, on_server = true, key = "x", source = "a.jsonl" } end)
    assert.equal("0", db:sql("SELECT count(*) FROM guarded"))
    assert.equal(0, cache:count())
    assert(fpcache.warm { cache = cache, on_server = true, key = "{id}", source = { sql = "SELECT 1 AS id" } })
    assert(fpcache.warm { cache = cache, on_server = true, key = "{id}", source = { sql = "SELECT 2 AS id, 3 AS b" } })
  end)

  it("is what the command does by itself, unless it cannot or shall not", function()
    local tool = interpreter.new { FPCACHE_URL = db:url_of() }
    for i, words in ipairs { {}, { "--stream" }, { "--key", "{f}:{id}" } } do
      local line = { "warm", "--quiet", "--sql",
        "SELECT i AS id, i / 2.0::float8 AS f FROM generate_series(1, 50) AS i ORDER BY i", "--namespace", "c" .. i }
      if not words[2] then line[#line + 1], line[#line + 2] = "--key", "{id}" end
      for _, word in ipairs(words) do line[#line + 1] = word end
      local answer = tool(line)
      assert.equal(0, answer.code, answer.err)
      assert.matches("50 records, 50 stored, 0 bad", answer.err)
    end
    assert.equal("c1|50\nc2|50\nc3|50", db:sql("SELECT namespace, count(*) FROM cache GROUP BY 1 ORDER BY 1"))
    tool:remove()
  end)
end)

-- quota_spec.lua -- quotas, eviction of what was not used for longest, the sweeper.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local connection = require "fpcache.connection"
local database = require "support.database"
local fpcache = require "fpcache"
local layers = require "support.layers"
local options_of = require "fpcache.options"
local raises = require "support.raises"
local sample = require "fpcache.top.sample"
local touches = require "fpcache.touches"

describe("quotas", function()
  local db, cache

  setup(function()
    db = database.new(false)
    for _, role in ipairs { "keeper", "app", "bob" } do db:url_of(role) end
    db:sql(("GRANT CREATE ON DATABASE %s TO keeper"):format(db.name))
    assert(admin.setup { connection_string = db:url_of("keeper"), schema = "q", grant = { "app", "bob" } })
    db.schema = "q"
  end)
  before_each(function()
    db:sql([[TRUNCATE q.cache, q.fpcache_tags, q.fpcache_quotas, q.fpcache_evictions;
      UPDATE q.fpcache_passes SET began = '-infinity', alive = '-infinity']])
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function quota(opts)
    opts.connection_string, opts.schema = db:url_of("keeper"), "q"
    return admin.quota(opts)
  end

  local function sweep(opts)
    local options = { connection_string = db:url_of(), schema = "q", every = 0.001 }
    for name, value in pairs(opts or {}) do options[name] = value end
    local sweeper = assert(fpcache.sweeper(options))
    local report, err = sweeper:pass()
    sweeper:close()
    return report, err
  end

  -- Entries in order of age, the oldest first, each a second older than the next.
  local function fill(c, count, prefix, value)
    local items = {}
    for i = 1, count do items[(prefix or "k") .. i] = value or "v" end
    assert(c:set_many(items))
    db:sql(([[UPDATE q.cache
      SET version = version - 1000000::bigint * (%d - substring(convert_from(key, 'UTF8') FROM '[0-9]+')::int)
      WHERE convert_from(key, 'UTF8') LIKE '%s%%']]):format(count, prefix or "k"))
  end

  it("evict the oldest of the table down to 95 %, and only when there is too much", function()
    assert(quota { max_entries = 200 })
    fill(cache, 200)
    assert.equal(0, assert(sweep()).evicted)
    local opts = options_of.read(connection.OPTIONS, { connection_string = db:url_of(), schema = "q" }, 1)
    local sampler = assert(sample.open(opts, {}))
    local first = sampler:look()
    fill(cache, 400)
    assert.equal(210, assert(sweep()).evicted)
    local second = sampler:look() -- what fpcache top shows to any login
    assert.equal(210, second.server.evictions - first.server.evictions)
    assert.is_true(sample.between(second, first).rates.evictions > 0)
    db:sql("TRUNCATE q.fpcache_evicted") -- as after a crash
    assert.equal(0, sampler:look().server.evictions)
    assert.equal(190, cache:count())
    assert.is_nil((cache:get("k210")))
    assert.equal("v", cache:get("k211"))
    assert.equal(0, assert(sweep()).evicted)
    fill(cache, 220, "l")
    assert.equal(220, assert(sweep()).evicted)
    assert.equal(220, sampler:look().server.evictions)
    sampler:close()
  end)

  it("count bytes: keys, values, 140 for each entry", function()
    assert(quota { max_bytes = 100 * (1000 + 140 + 4) })
    fill(cache, 200, "k", ("x"):rep(1000))
    local left = assert(sweep()) and cache:count()
    assert.is_true(left >= 90 and left <= 96, tostring(left))
    assert.equal("keeper", db:sql("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'q.cache'::regclass"))
    local row = assert(quota {})[1]
    assert.same({ "", left, 0 }, { row.cache_of, row.entries, row.excess })
    db:sql("TRUNCATE q.cache")
    assert(cache:set(("k"):rep(3000), "v")) -- its hash is the key, and it is stored as well
    assert.is_true(assert(quota {})[1].bytes >= 3000 + 1 + 140)
  end)

  it("count what only fetch still sees: stale values, remembered absences", function()
    local policy = { ttl = 60, stale_ttl = 600, negative_ttl = 600 }
    local function load(prefix, value)
      local keys, values = {}, {}
      for i = 1, 100 do
        keys[i] = prefix .. i
        values[keys[i]] = value
      end
      assert(cache:fetch_many(keys, policy, function() return values end))
      db:sql("UPDATE q.cache SET version = version - 1000000, noted_version = noted_version - 1000000") -- a second goes by
    end
    load("none")
    load("stale", "v")
    db:sql("UPDATE q.cache SET expires_at = now() - interval '1 second' WHERE expires_at > now()")
    local young = {}
    for i = 1, 100 do young["k" .. i] = i end
    assert(cache:set_many(young))
    assert(cache:set("old", 1, { expires_at = 1 }))
    assert(quota { max_entries = 400, max_bytes = 1000000 })
    local report = assert(sweep())
    assert.same({ 1, 0 }, { report.expired, report.evicted })
    assert.equal(300, assert(quota { max_entries = 210 })[1].entries)
    assert.equal(101, assert(sweep()).evicted) -- down to 199
    assert.equal("99|100", db:sql([[SELECT count(*) FILTER (WHERE convert_from(key, 'UTF8') NOT LIKE 'k%'),
      count(*) FILTER (WHERE convert_from(key, 'UTF8') LIKE 'k%') FROM q.cache]]), "the older ones went")
  end)

  it("wait for nobody: an entry that is being written stays", function()
    assert(quota { max_entries = 100 })
    fill(cache, 120)
    assert(db:open():transaction(function(tx)
      assert(tx:set("k1", "written"))
      assert.equal(24, assert(sweep()).evicted) -- of 25
      return true
    end))
    assert.equal(96, cache:count())
    assert.equal("written", (cache:get("k1")))
  end)

  it("of one user take nothing from another", function()
    local bob = db:open { as = "bob" }
    fill(bob, 300, "b")
    fill(cache, 100)
    assert(quota { cache_of = "app", max_entries = 60 })
    assert.equal(43, assert(sweep()).evicted)
    assert.equal(57, cache:count())
    assert.equal(300, bob:count())
    assert(quota { max_entries = 100 })
    assert.equal(357 - 95, assert(sweep()).evicted)
    assert.equal(95, cache:count() + bob:count())
    assert.same({ 48, 47 }, { cache:count(), bob:count() }, "the younger ones of both")
  end)

  it("do not take more than is too much where all are of one age", function()
    local items = {}
    for i = 1, 1000 do items["k" .. i] = i end
    assert(cache:set_many(items))
    assert(quota { max_entries = 500 })
    assert.equal(525, assert(sweep()).evicted)
    assert.equal(475, cache:count())
  end)

  it("spare what is used, as a sample of the hits tells", function()
    assert(quota { max_entries = 100 })
    fill(cache, 200)
    local reader = db:open() -- opened while there is a quota
    for _ = 1, touches.EVERY * 3 do assert.equal("v", reader:get("k1")) end
    for _ = 1, touches.EVERY do assert.equal("v", reader:get_many({ "k2" }).k2) end
    for _ = 1, touches.EVERY do assert.equal("v", reader:fetch_many({ "k4" }, 60, error).k4) end
    assert.equal("0", db:sql("SELECT count(*) FROM q.cache WHERE touched IS NOT NULL"), "noted, not written")
    reader.touches:send()
    assert.equal("3", db:sql("SELECT count(*) FROM q.cache WHERE touched > version"))
    assert.equal(105, assert(sweep()).evicted)
    assert.equal("v", cache:get("k1"))
    assert.equal("v", cache:get("k2"))
    assert.equal("v", cache:get("k4"))
    assert.is_nil((cache:get("k3")))
    -- no version moved, nobody was told
    assert.is_nil(cache.touches, "opened before there was a quota")
    assert.is_truthy(db:open { prepared = false }.touches, "as behind a pooler")
    db:url_of("quota_by_hand") -- who may not tell
    db:sql([[GRANT USAGE ON SCHEMA q TO quota_by_hand; GRANT SELECT, INSERT, UPDATE, DELETE ON q.cache TO quota_by_hand;
      GRANT SELECT ON q.fpcache_schema, q.fpcache_quotas, q.fpcache_namespaces TO quota_by_hand]])
    assert.is_nil(db:open({ as = "quota_by_hand" }).touches, "the triggers would tell")
  end)

  it("touches are sent when they are many or old, and not in a transaction; a failure is nobody's", function()
    assert(quota { max_entries = 1000 })
    fill(cache, 300)
    local reader, now = db:open(), 0
    reader.touches.now = function() return now end
    for i = 1, 255 do
      for _ = 1, touches.EVERY do assert(reader:get("k" .. i)) end
    end
    assert.equal("0", db:sql("SELECT count(*) FROM q.cache WHERE touched IS NOT NULL"))
    for _ = 1, touches.EVERY do assert(reader:namespace(""):get("k256")) end
    assert.equal("256", db:sql("SELECT count(*) FROM q.cache WHERE touched IS NOT NULL"))
    db:sql("UPDATE q.cache SET touched = NULL")
    for _ = 1, touches.EVERY do assert(reader:get("k1")) end
    now = 9
    for _ = 1, touches.EVERY do assert(reader:get("k2")) end
    assert.equal("0", db:sql("SELECT count(*) FROM q.cache WHERE touched IS NOT NULL"))
    now = 10.5
    for _ = 1, touches.EVERY do assert(reader:get("k3")) end
    assert.equal("3", db:sql("SELECT count(*) FROM q.cache WHERE touched IS NOT NULL"))
    reader:transaction(function(tx)
      assert.is_nil(tx.touches)
      return true
    end)
    for _ = 1, touches.EVERY do assert(reader:get("k4")) end
    reader:close()
    reader.touches:send()
  end)

  it("what is evicted is told: near caches follow within the promise", function()
    local there = layers.open(db)
    fill(cache, 100)
    layers.warm(there, "k1")
    assert(quota { max_entries = 50 })
    db:sql("TRUNCATE q.fpcache_feed")
    assert.equal(53, assert(sweep()).evicted)
    assert.equal("1", db:sql("SELECT count(*) FROM q.fpcache_feed"), "one row for a slice of pages and a namespace")
    core.system.sleep(layers.STALENESS)
    assert.is_nil((there:get("k1")))
  end)

  it("are estimated from a sample where the table is large", function()
    fill(cache, 20000, "k", ("x"):rep(500))
    local bob = db:open { as = "bob" }
    fill(bob, 50, "b")
    assert(quota { max_entries = 10000 })
    assert(quota { cache_of = "bob", max_entries = 20 })
    local rows = {}
    for line in db:sql("SELECT user_id, entries, excess FROM q.fpcache_usage(700) ORDER BY 1"):gmatch("[^\n]+") do
      rows[#rows + 1] = line
    end
    -- Of about 1,450 pages: half of them in the sample, so that 4,000 is eight times its standard deviation.
    local entries, excess = rows[1]:match("^|(%d+)|(%d+)$")
    assert.is_true(math.abs(entries - 20050) < 4000, rows[1])
    assert.is_true(math.abs(excess - 10550) < 4000, rows[1])
    assert.equal("bob|50|31", rows[2], "too few in the sample: counted")
  end)

  it("cannot be used to evict others' rows", function()
    fill(db:open { as = "bob" }, 10, "b")
    cache:transaction(function(tx)
      assert.same({ { n = 0 } }, tx:query("SELECT q.fpcache_evict(0, 1000) AS n"))
      return true
    end)
    for _, text in ipairs { "INSERT INTO q.fpcache_evictions VALUES ('bob', 9e18, 100)", "SELECT * FROM q.fpcache_usage()",
      "INSERT INTO q.fpcache_quotas VALUES ('bob', 0, 0)", "UPDATE q.fpcache_passes SET began = 'infinity'" } do
      local _, err = cache:transaction(function(tx) return tx:query(text) end)
      assert.matches("SQLSTATE 42501", err, nil, text)
    end
  end)

  it("are set, told and taken away by the owner", function()
    assert.same({}, assert(quota {}))
    assert.equal(5, assert(quota { max_entries = 5, max_bytes = 1000 })[1].max_entries)
    local q = assert(quota { max_entries = 6 })[1]
    assert.equal(6, q.max_entries)
    assert.is_nil(q.max_bytes)
    assert.same({}, assert(quota { remove = true }))
    assert.equal("invalid: remove excludes max_entries and max_bytes", select(2, quota { remove = true, max_bytes = 1 }))
    assert.equal("invalid: a quota needs max_entries, max_bytes or both (or remove)", select(2, quota { cache_of = "bob" }))
    assert.matches("^denied: .*this needs the owner of the cache",
      select(2, admin.quota { connection_string = db:url_of("bob"), schema = "q", max_bytes = 1 }))
    assert.matches("^schema: no cache is set up", select(2, admin.quota { connection_string = db.url, schema = "none" }))
    raises("options.max_bytes: must not be negative, got -1", function() admin.quota { max_bytes = -1 } end)
    raises("options.max_entries: must be at most 562949953421312, got 1e+99", function() admin.quota { max_entries = 1e99 } end)
    assert.equal(2 ^ 49, assert(quota { max_entries = 2 ^ 49, max_bytes = 2 ^ 49 })[1].max_entries)
    assert.same({}, assert(quota { remove = true }))
  end)

  describe("the sweeper", function()
    it("removes what has expired and tags in vain", function()
      assert(cache:set("old", 1, { expires_at = 1, tags = "t" }))
      assert(cache:set("young", 1, { tags = "t" }))
      local report = assert(sweep())
      assert.same({ 1, 0, 1 }, { report.expired, report.evicted, report.tags })
      assert.is_true(report.seconds >= 0)
      assert.equal("1", db:sql("SELECT count(*) FROM q.cache"))
    end)

    it("walks over all of a large table, slice by slice", function()
      -- 4 rows of 1.8 kB to a page: more than the 1,000 pages of a slice
      db:sql([[INSERT INTO q.cache (user_id, key, value, expires_at)
        SELECT 'app', convert_to('k' || i, 'UTF8'), (SELECT string_agg(decode(md5(i::text || j), 'hex'), '')
          FROM generate_series(1, 112) AS j), now() - interval '1 second' FROM generate_series(1, 4600) AS i]])
      assert.is_true(tonumber(db:sql("SELECT pg_relation_size('q.fpcache_entries') / 8192")) > 1100)
      local last = assert(db:sql("SELECT max(ctid) FROM q.cache"))
      assert.is_true(tonumber(last:match("%d+")) > 1000)
      assert.equal(4600, assert(sweep { duty = 1 }).expired)
      assert.equal("0", db:sql("SELECT count(*) FROM q.cache"))
    end)

    it("is one at a time, and not too often, whoever offers it", function()
      assert.is_table(sweep { every = "1h" })
      assert.is_false(sweep { every = "1h", connection_string = db:url_of("bob") })
      assert.is_table(sweep { every = 0.001 })
      local holder = db:open { connection_string = db:url_of("keeper") }
      holder:transaction(function(tx)
        assert(tx:query("SELECT q.fpcache_begin_pass('0')"))
        assert.is_false(sweep())
        return true
      end)
    end)

    it("works by slices with pauses in proportion, behind a transaction pooler too", function()
      local sweeper = assert(fpcache.sweeper { connection_string = db:url_of(), schema = "q", every = 0.001, duty = 0.5,
        prepared = false })
      local slept = 0
      sweeper.sleep = function(seconds) slept = slept + seconds end
      assert.is_table(sweeper:pass())
      assert.is_true(slept > 0)
      local runs = 0
      assert.is_true(sweeper:run(function(report)
        runs = runs + 1
        assert.is_table(report)
        if runs == 3 then sweeper:stop() end
      end))
      assert.equal(3, runs)
      sweeper:close()
    end)

    it("tells failures and goes on", function()
      local sweeper = assert(fpcache.sweeper { connection_string = db:url_of(), schema = "q", every = 0.001 })
      finally(function() sweeper:close() end)
      db:sql("ALTER TABLE q.fpcache_quotas RENAME TO hidden")
      local told = {}
      sweeper:run(function(report, err)
        told[#told + 1] = err or report and "fine" or "held up by the one that failed"
        db:sql(#told == 1 and "ALTER TABLE q.hidden RENAME TO fpcache_quotas" or "")
        if #told == 2 then sweeper:stop() end
      end)
      assert.matches('relation "q.fpcache_quotas" does not exist', told[1])
      assert.equal("fine", told[2])
      raises("options.every: must be more than 0, got 0", function() fpcache.sweeper { every = 0 } end)
      raises('options.every: "often" is no duration (such as "250ms", "90s", "5m", "1h30m", "2d", "1w")',
        function() fpcache.sweeper { every = "often" } end)
      raises("options.duty: must be more than 0 and at most 1, got 2", function() fpcache.sweeper { duty = 2 } end)
      raises("options.dutty: unknown option (did you mean duty?)", function() fpcache.sweeper { dutty = 1 } end)
    end)

    it("is a procedure as well, for pg_cron", function()
      assert(quota { max_entries = 10 })
      fill(cache, 40)
      assert(cache:set("old", 1, { expires_at = 1 }))
      db:sql("CALL q.fpcache_keep()")
      assert.equal("9", db:sql("SELECT count(*) FROM q.cache"))
      fill(cache, 40)
      db:sql("CALL q.fpcache_keep('1 hour')")
      db:sql("UPDATE q.fpcache_passes SET alive = now() + interval '1 minute'; CALL q.fpcache_keep()")
      assert.equal("40", db:sql("SELECT count(*) FROM q.cache"))
      db:sql("UPDATE q.fpcache_passes SET alive = now(); CALL q.fpcache_keep(); CALL q.fpcache_keep()")
      assert.equal("9|-infinity", db:sql("SELECT (SELECT count(*) FROM q.cache), (SELECT alive FROM q.fpcache_passes)"))
    end)
  end)
end)

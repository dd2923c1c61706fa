-- feed_switch_spec.lua -- the change feed switched off and on for a schema: nothing stale is ever answered.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local database = require "support.database"
local layers = require "support.layers"
local schema = require "fpcache.schema"

local eventually = database.eventually

describe("the switch of the change feed", function()
  local db

  setup(function() db = database.new() end)

  local function switch(is_on)
    return assert(admin.switch_feed({ connection_string = db.url }, is_on))
  end

  after_each(function()
    db:close_all()
    switch(true)
    db:sql("TRUNCATE cache")
  end)

  local function rows_in_feed() return tonumber(db:sql("SELECT count(*) FROM fpcache_feed")) end

  local function state(cache)
    local stats = cache:stats()
    return { stats.feed.state, stats.filter.state, stats.near.state }
  end

  it("is told by status, and repeatable", function()
    assert.is_true(admin.status({ connection_string = db.url }).feed_on)
    assert.is_false(switch(false).feed_on)
    assert.is_false(switch(false).feed_on)
    assert.is_true(switch(true).feed_on)
    assert.has_error(function() admin.switch_feed({ connection_string = db.url }, "off") end,
      "bad is_on (boolean expected, got string)")
    local report, err = admin.switch_feed({ connection_string = db.url, schema = "nowhere" }, false)
    assert.is_nil(report)
    assert.equal("schema: there is no up-to-date cache in schema nowhere; run `fpcache admin setup`", err)
    report, err = admin.switch_feed({ connection_string = db:url_of() }, false)
    assert.is_nil(report)
    assert.matches("^denied: ", err)
  end)

  it("off: writers tell nothing, and the server answers every read", function()
    local reader = layers.open(db)
    assert(reader:set("k", 1))
    layers.warm(reader, "k")
    assert.equal("filter", layers.source(reader, "nothing"))
    switch(false)
    assert(eventually(function() return reader:stats().feed.state == "off" end))
    assert.same({ "off", "off", "off" }, state(reader))
    local writer = db:open()
    local before = rows_in_feed()
    assert(writer:set("k", 2))
    assert(writer:set_many { k = 3, l = 4 })
    assert(writer:delete("l"))
    db:sql("SELECT cache_set('app', 'm', '1', NULL)")
    assert.equal(before, rows_in_feed())
    assert.same({ 3, "db" }, { reader:get("k"), layers.source(reader, "k") })
    assert.equal("db", layers.source(reader, "nothing"))
    local ok, err = reader:wait_ready(5)
    assert.is_nil(ok)
    assert.matches("^invalid: the change feed is switched off for this schema %(`fpcache admin feed on`%), or ", err)
  end)

  it("on again: begins from nothing, and writers that began while it was off are told by the triggers", function()
    local reader = layers.open(db)
    assert(reader:set("k", 1))
    layers.warm(reader, "k")
    switch(false)
    assert(eventually(function() return reader:stats().feed.state == "off" end))
    local silent = db:open()
    assert(silent:set("k", 2))
    assert(silent:set("new", 2))
    switch(true)
    assert(reader:wait_ready(20))
    assert.same({ 2, "db" }, { reader:get("k"), (select(3, reader:get("new"))) })
    assert.equal("near", layers.source(reader, "k"))
    assert(silent:set("k", 3))
    assert(silent:set("newer", 3))
    assert(reader:wait_ready(20))
    assert.equal(3, (reader:get("k")))
    assert.equal(3, (reader:get("newer")))
    assert(silent:delete_many { "k" })
    assert(reader:wait_ready(20))
    assert.is_nil((reader:get("k")))
  end)

  it("off and on between two looks of a reader drops all that it keeps", function()
    local reader = layers.open(db)
    assert(reader:set("k", 1))
    layers.warm(reader, "k")
    -- By hand, and in one transaction, which no reader can see halfway; what is written in between is told to nobody.
    db:sql([[
      BEGIN; ALTER TABLE cache DISABLE TRIGGER USER;
      UPDATE cache SET value = '2'; INSERT INTO cache (user_id, key, value) VALUES ('app', 'new', '1');
      ALTER TABLE cache ENABLE TRIGGER USER; COMMIT]])
    assert(reader:wait_ready(20))
    assert.equal(1, reader:stats().feed.incarnation_changes)
    assert.equal(2, (reader:get("k")))
    assert.equal(1, (reader:get("new")))
  end)

  it("one trigger off is off", function()
    local reader = layers.open(db)
    db:sql("ALTER TABLE cache DISABLE TRIGGER fpcache_tell_deleted")
    assert(eventually(function() return reader:stats().feed.state == "off" end))
    switch(true)
    assert(reader:wait_ready(20))
  end)

  it("waits for writers that have begun: none of them is in between", function()
    for _, name in ipairs { "cache", "fpcache_entries" } do
      for _, is_on in ipairs { false, true } do
        local writer = assert(db:open().pool:acquire(5))
        assert(writer:query("BEGIN", 5))
        assert(writer:query(("INSERT INTO %s (key, value) VALUES ('k', '1')"):format(name), 5))
        local report, err = admin.switch_feed({ connection_string = db.url, timeout = 0.1 }, is_on)
        assert.is_nil(report)
        assert.matches("^timeout: ", err)
        assert(writer:query("ROLLBACK", 5))
        writer:close()
        assert.equal(is_on, switch(is_on).feed_on)
      end
    end
  end)

  it("and a writer that has begun never wait for each other", function()
    for _, turn in ipairs { { true, "fpcache_entries" }, { false, "cache" } } do
      switch(not turn[1])
      local writer = assert(db:open().pool:acquire(5))
      assert(writer:query("BEGIN", 5))
      assert(writer:query(("LOCK TABLE ONLY %s IN ROW EXCLUSIVE MODE"):format(turn[2]), 5)) -- as a statement that began so far
      local switching = assert(io.popen(("'%s/fpcache' admin feed %s --url '%s' 2>&1"):format(require "support.build",
        turn[1] and "on" or "off", db.url)))
      assert(eventually(function()
        return db:sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'") == "1"
      end))
      assert(writer:query(("INSERT INTO %s (key, value) VALUES ('k', '1')"):format(turn[2]), 20))
      assert(writer:query("ROLLBACK", 5))
      writer:close()
      assert.matches("feed +" .. (turn[1] and "on" or "OFF"), switching:read("*a"))
      switching:close()
    end
  end)

  it("exchanges the names of one table, so that off nobody meets a trigger", function()
    local function kinds()
      return db:sql("SELECT string_agg(format('%s %s', relname, relkind), ', ' ORDER BY relname) FROM pg_class "
        .. "WHERE relname IN ('cache', 'fpcache_entries', 'fpcache_exchanged')")
    end
    local rows = db:sql("SELECT 'fpcache_entries'::regclass::oid")
    for _ = 1, 2 do
      assert.equal("cache p, fpcache_entries r", kinds())
      assert.equal(rows, db:sql("SELECT 'fpcache_entries'::regclass::oid"))
      switch(false)
      assert.equal("cache r, fpcache_entries p", kinds())
      assert.equal(rows, db:sql("SELECT 'cache'::regclass::oid"))
      assert.equal("fpcache_tell_truncate",
        db:sql("SELECT string_agg(tgname, ', ') FROM pg_trigger WHERE tgrelid = 'cache'::regclass"))
      switch(true)
    end
  end)

  it("is nothing that our own functions meet: they name the entries, and what is told they tell", function()
    assert.equal("cache_delete, cache_exists, cache_get, cache_set, cache_ttl", db:sql([[
      SELECT string_agg(proname, ', ' ORDER BY proname) FROM pg_proc
      WHERE pronamespace = 'public'::regnamespace AND prosrc ~ '(FROM|INTO|UPDATE|JOIN|ONLY)\s+"?public"?\.cache\M']]))
  end)

  it("either way the sweeper finds what has expired, and sizes are those of the rows", function()
    for _, is_on in ipairs { false, true } do
      switch(is_on)
      db:sql([[INSERT INTO cache (user_id, key, value, expires_at)
        SELECT 'app', convert_to('p' || i, 'UTF8'), decode(repeat('00', 1500), 'hex'), now() - interval '1 s'
        FROM generate_series(1, 6000) AS i]])
      local cache = db:open()
      assert.is_true(assert(admin.status { connection_string = db.url }).bytes > 6000 * 1500)
      assert.is_true(cache:stats().server.bytes > 6000 * 1500)
      if is_on then
        assert.equal(6000, cache:cleanup())
      else
        assert.equal("6000", db:sql("SELECT cache_cleanup()"))
      end
      assert.equal("0", db:sql("SELECT count(*) FROM cache"))
    end
  end)

  it("keeps telling what a writer of the time before tells, and outlives a crash", function()
    local early = db:open()
    switch(false)
    local before = rows_in_feed()
    assert(early:set("k", 1))
    assert.equal(before + 1, rows_in_feed())
    switch(true)
    assert(early:set("k", 2)) -- by itself, and by no trigger
    assert.equal(before + 2, rows_in_feed())
    switch(false)
    assert.same({ 2, true, 1 }, { early:get("k"), early:delete("k"), early:set_many { l = 1 } })
    assert.equal(before + 4, rows_in_feed())
    db.srv:restart("crash")
    local reader = db:open { feed = true, max_staleness = 0.5 }
    assert(eventually(function() return reader:stats().feed.state == "off" end))
    assert.is_false(admin.status({ connection_string = db.url }).feed_on)
  end)

  it("is turned by the program", function()
    local program = require "support.build" .. "/fpcache"
    local function run(...)
      local result = assert(core.run { argv = { program, "admin", "feed", ... }, timeout = 30 })
      return result.status, result.output
    end
    local status, output = run("off", "--url", db.url)
    assert.equal(0, status, output)
    assert.matches("feed      OFF: no near cache and no filter answers", output, 1, true)
    status, output = run("on", "--url", db.url)
    assert.equal(0, status, output)
    assert.matches("feed      on", output, 1, true)
    status = run("perhaps", "--url", db.url)
    assert.not_equal(0, status)
  end)

  it("stays as it was when the schema is upgraded, as do the rights on the feed", function()
    local all, newest = {}, schema.VERSION
    local function know(last)
      schema.VERSION = last
      for i, migration in ipairs(all) do schema.MIGRATIONS[i] = migration.version <= last and migration or nil end
    end
    for i, migration in ipairs(schema.MIGRATIONS) do all[i] = migration end
    local grants = schema.GRANTS
    finally(function()
      know(newest)
      schema.GRANTS = grants
    end)
    know(10) -- 11 makes the feed and its triggers anew
    schema.GRANTS = grants:gsub("{schema}.fpcache_go_on%b(), {schema}.fpcache_end_pass%b(),", "") -- as of that time
    local old = database.new { grant = "app" }
    schema.GRANTS = grants
    assert(admin.switch_feed({ connection_string = old.url }, false))
    local incarnation = old:sql("SELECT incarnation FROM fpcache_state")
    know(newest)
    assert.is_false(assert(admin.upgrade { connection_string = old.url }).feed_on)
    assert.not_equal(incarnation, old:sql("SELECT incarnation FROM fpcache_state"))
    assert.is_true(admin.switch_feed({ connection_string = old.url }, true).feed_on)
    local cache = layers.open(old)
    assert(cache:set("k", 1))
    layers.warm(cache, "k")
    old:sql("UPDATE cache SET value = '2'")
    assert(eventually(function() return cache:get("k") == 2 end))
    cache:close()
    old:close_all()
  end)
end)

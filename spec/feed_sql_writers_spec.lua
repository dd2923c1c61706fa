-- feed_sql_writers_spec.lua -- whatever writes the table by SQL, the Python functions included, tells the feed: what is there
-- is found, and what is gone is gone, in a process that keeps both in its layers.
local database = require "support.database"
local layers = require "support.layers"

describe("a reader knows, after", function()
  local db, reader, bobs, in_space
  setup(function()
    db = database.new()
    -- Never stale, however slow the machine is: then only what was told makes it ask the server.
    reader = layers.open(db, { max_staleness = 60 })
    bobs = layers.open(db, { max_staleness = 60, as = "bob" })
    in_space = reader:namespace("n")
  end)
  teardown(function() db:close_all() end)

  local function app(text) db.srv:sql(text, db:url_of()) end
  local function owner(text) db:sql(text) end

  -- Before each of them keys k# and other# hold "old", both in the near cache, and new# is known to be absent.
  -- what = { who runs it, SQL, k#, other#, new# afterwards (nil: none), how many keys are told (nil: all) }
  local OLD, NEW = "old", "changed"
  local WRITERS = {
    ["INSERT"] = { app, "INSERT INTO cache (key, value) VALUES ('new#', 'v')", OLD, OLD, "v", 1 },
    ["INSERT of many rows"] = { app, "INSERT INTO cache (key, value) VALUES ('new#', 'v'), ('second#', 'v'), ('third#', 'v')",
      OLD, OLD, "v", 3 },
    ["an upsert that overwrites"] = { app, "INSERT INTO cache (key, value) VALUES ('k#', 'changed'), ('new#', 'v') "
      .. "ON CONFLICT (user_id, namespace, key) DO UPDATE SET value = excluded.value", NEW, OLD, "v", 2 },
    ["an upsert that does nothing"] = { app, "INSERT INTO cache (key, value) VALUES ('k#', 'changed') ON CONFLICT DO NOTHING",
      OLD, OLD, nil, 0 },
    ["UPDATE"] = { app, "UPDATE cache SET value = 'changed' WHERE key = 'k#'", NEW, OLD, nil, 1 },
    ["UPDATE of all rows"] = { app, "UPDATE cache SET value = 'changed' WHERE key LIKE '%#'", NEW, NEW, nil, 2 },
    ["UPDATE of a key"] = { app, "UPDATE cache SET key = 'new#' WHERE key = 'k#'", nil, OLD, OLD, 2 },
    ["UPDATE that ends a life"] = { app, "UPDATE cache SET expires_at = statement_timestamp() WHERE key = 'k#'",
      nil, OLD, nil, 1 },
    ["UPDATE that hits nothing"] = { app, "UPDATE cache SET value = 'changed' WHERE key = 'nothing#'", OLD, OLD, nil, 0 },
    ["DELETE"] = { app, "DELETE FROM cache WHERE key = 'k#'", nil, OLD, nil, 1 },
    ["DELETE of all rows"] = { app, "DELETE FROM cache WHERE key LIKE '%#'", nil, nil, nil, 2 },
    ["DELETE that hits nothing"] = { app, "DELETE FROM cache WHERE key = 'nothing#'", OLD, OLD, nil, 0 },
    ["DELETE and INSERT in one statement"] = { app, "WITH gone AS (DELETE FROM cache WHERE key = 'k#' RETURNING value) "
      .. "INSERT INTO cache (key, value) SELECT 'new#', value FROM gone", nil, OLD, OLD, 2 },
    ["COPY"] = { owner, "COPY cache (user_id, key, value) FROM stdin;\napp\tnew#\tv\n\\.\n", OLD, OLD, "v", 1 },
    ["TRUNCATE"] = { owner, "TRUNCATE cache", nil, nil, nil },
    ["what was rolled back"] = { app, "BEGIN; UPDATE cache SET value = 'changed' WHERE key = 'k#'; "
      .. "INSERT INTO cache (key, value) VALUES ('new#', 'v'); ROLLBACK", OLD, OLD, nil, 0 },
    ["what a savepoint kept"] = { app, "BEGIN; SAVEPOINT a; UPDATE cache SET value = 'changed' WHERE key = 'k#'; ROLLBACK TO a; "
      .. "DELETE FROM cache WHERE key = 'other#'; COMMIT", OLD, nil, nil, 1 },
    ["cache_set of a new key"] = { app, "SELECT cache_set('app', 'new#', 'v')", OLD, OLD, "v", 1 },
    ["cache_set with a ttl"] = { app, "SELECT cache_set('app', 'new#', 'v', 100)", OLD, OLD, "v", 1 },
    ["cache_set over another value"] = { app, "SELECT cache_set('app', 'k#', 'changed', NULL)", NEW, OLD, nil, 1 },
    ["cache_set in another's name"] = { owner, "SELECT cache_set('app', 'new#', 'v')", OLD, OLD, "v", 1 },
    ["cache_delete in another's name"] = { owner, "SELECT cache_delete('app', 'k#')", nil, OLD, nil, 1 },
    ["cache_set by who may not tell"] = { owner, "REVOKE INSERT ON fpcache_feed FROM public; SET SESSION AUTHORIZATION app; "
      .. "SELECT cache_set('app', 'new#', 'v'); RESET SESSION AUTHORIZATION; "
      .. "GRANT INSERT (namespace, keys) ON fpcache_feed TO public", OLD, OLD, "v", 1 },
    ["MERGE"] = { app, "MERGE INTO cache AS c USING (VALUES ('k#'::bytea), ('new#')) AS v (key) ON c.key = v.key "
      .. "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (key, value) VALUES (v.key, 'v')", nil, OLD, "v", 2 },
    ["cache_delete"] = { app, "SELECT cache_delete('app', 'k#')", nil, OLD, nil, 1 },
    ["cache_delete that hits nothing"] = { app, "SELECT cache_delete('app', 'nothing#')", OLD, OLD, nil, 0 },
    ["the functions that only read"] = { app, "SELECT cache_get('app', 'k#'), cache_exists('app', 'k#'), cache_ttl('app', 'k#'), "
      .. "cache_get('app', 'nothing#')", OLD, OLD, nil, 0 },
    ["cache_cleanup of what lives"] = { app, "SELECT cache_cleanup()", OLD, OLD, nil, 0 },
    ["cache_cleanup of what has ended"] = { app, "UPDATE cache SET expires_at = statement_timestamp() WHERE key = 'k#'; "
      .. "SELECT cache_cleanup()", nil, OLD, nil, 1 },
    ["cache_set of what has ended"] = { app, "UPDATE cache SET expires_at = statement_timestamp() WHERE key = 'k#'; "
      .. "SELECT cache_set('app', 'k#', 'changed')", NEW, OLD, nil, 2 },
  }
  local count, k, other, new = 0, nil, nil, nil

  before_each(function()
    count = count + 1 -- keys of its own for each: what went before is not in the way
    k, other, new = "k" .. count, "other" .. count, "new" .. count
    assert(reader:set_many { [k] = OLD, [other] = OLD })
    layers.warm(reader, k)
    layers.warm(reader, other)
    assert.equal("filter", layers.source(reader, new))
  end)

  local function run(who, text) who((text:gsub("#", count))) end

  local function changes() return reader:stats({ server = false }).feed.changes end

  for name, about in pairs(WRITERS) do
    it(name, function()
      local told = changes()
      run(about[1], about[2])
      assert(reader:wait_ready(20))
      if about[6] then assert.equal(about[6], changes() - told, "keys told") end
      assert.same({ [k] = about[3], [other] = about[4], [new] = about[5] }, reader:get_many { k, other, new })
      -- What was not told of is answered as before.
      if about[3] == OLD then assert.equal("near", layers.source(reader, k)) end
      if not about[5] and about[6] then assert.equal("filter", layers.source(reader, new)) end
    end)
  end

  it("UPDATE of a namespace", function()
    assert.equal("filter", layers.source(in_space, k))
    run(app, "UPDATE cache SET namespace = 'n' WHERE key = 'k#'")
    assert(reader:wait_ready(20))
    assert.is_nil((reader:get(k)))
    assert.equal(OLD, (in_space:get(k)))
    assert.equal("near", layers.source(reader, other))
  end)

  it("UPDATE of a user: both users", function()
    assert(bobs:wait_ready(20))
    assert.equal("filter", layers.source(bobs, k))
    run(owner, "UPDATE cache SET user_id = 'bob' WHERE key = 'k#'")
    assert(reader:wait_ready(20))
    assert(bobs:wait_ready(20))
    assert.is_nil((reader:get(k)))
    assert.equal(OLD, (bobs:get(k)))
    assert.equal("near", layers.source(reader, other))
  end)

  it("INSERT, UPDATE and DELETE of very many rows, which are told in few", function()
    local function rows() return tonumber(db:sql("SELECT count(*) FROM fpcache_feed")) end
    local function key(i) return "many" .. count .. "-" .. i end
    for _, text in ipairs {
      "INSERT INTO cache (key, value) SELECT convert_to('many#-' || i, 'UTF8'), 'v' FROM generate_series(1, 25000) AS i",
      "UPDATE cache SET value = 'changed' WHERE key LIKE 'many#-%'", "DELETE FROM cache WHERE key LIKE 'many#-%'" } do
      for _, i in ipairs { 1, 12345, 25000 } do reader:get(key(i)) end
      local told, before = changes(), rows()
      run(app, text)
      assert.is_true(rows() - before <= 3)
      assert(reader:wait_ready(20))
      assert.equal(25000, changes() - told)
      local there = { INSERT = "v", UPDATE = NEW }
      for _, i in ipairs { 1, 12345, 25000 } do assert.equal(there[text:match("^%u+")], (reader:get(key(i)))) end
    end
  end)

  it("nothing of what other users write", function()
    local told = changes()
    db.srv:sql(("SELECT cache_set('bob', '%s', 'of bob')"):format(k), db:url_of("bob"))
    assert(reader:wait_ready(20))
    assert.equal(told, changes())
    assert.equal("near", layers.source(reader, k))
  end)
end)

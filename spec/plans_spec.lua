-- The plans that the server keeps for our statements: by primary key, whatever the size of the table when they
-- were made.
local fpcache = require "fpcache"
local server = require "support.server"

describe("the kept plan of a statement", function()
  local url, cache

  setup(function()
    local srv = server.start()
    url = srv:fresh_database()
    assert(fpcache.setup_cache { connection_string = url })
    cache = assert(fpcache.new { connection_string = url, maxconn = 1 })
  end)

  teardown(function() cache:close() end)

  -- Runs everything often enough for the server to keep its plans, and returns them by statement text.
  local function kept_plans()
    return assert(cache:transaction(function(tx)
      for _ = 1, 7 do
        assert(tx:get("key 1"))
        assert(tx:ttl("key 1"))
        assert(tx:entry("key 1"))
        assert(tx:expire("key 1", 100))
        assert(tx:persist("key 1"))
        assert(tx:replace("key 1", "new"))
        assert(tx:get_set("key 1", "newer"))
        assert(tx:get_many { "key 1", "key 2", "key 3" })
        assert(tx:delete("gone") == false)
        assert(tx:delete_many { "gone", "far" } == 0)
        assert(tx:keys "key 1")
        assert(tx:count "key 1")
      end
      local plans = {}
      for _, statement in ipairs(assert(tx:query [[
        SELECT name, statement, cardinality(parameter_types) AS parameters
        FROM pg_prepared_statements WHERE statement LIKE '%.fpcache_entries%'
          AND statement NOT LIKE '%INSERT INTO "public".fpcache_entries %'
          AND cardinality(parameter_types) > 0]])) do
        local nulls = ("NULL, "):rep(statement.parameters):gsub(", $", "")
        local lines = {}
        for _, line in ipairs(assert(tx:query(("EXPLAIN EXECUTE %s(%s)"):format(statement.name, nulls)))) do
          lines[#lines + 1] = line["QUERY PLAN"]
        end
        plans[statement.statement] = table.concat(lines, "\n")
      end
      return plans
    end))
  end

  it("looks rows up by all columns of the key, though the table was tiny", function()
    for i = 1, 20 do assert(cache:set("key " .. i, "value")) end
    assert(cache:transaction(function(tx) return tx:query "ANALYZE public.cache" end))
    local count = 0
    for statement, plan in pairs(kept_plans()) do
      count = count + 1
      local told = statement .. "\n" .. plan
      assert(not plan:find("Seq Scan", 1, true), told)
      assert(plan:find("Index Cond: %(%(user_id = %(?SESSION_USER%)?::text%) AND %(namespace = %$1%) AND %(key "), told)
    end
    assert.is_true(count >= 11, count .. " statements")
  end)

  -- Sessions that are not ours have the server's own page costs: pg_cron, psql.
  it("of what sweeps and evicts finds rows by their places, though the table was tiny", function()
    local srv = server.start()
    local _, name = srv:fresh_database()
    local there = srv:url_for("fpcache", nil, name)
    assert(fpcache.setup_cache { connection_string = there })
    local walks = srv:sql([[
      SET fpcache.tells = 'on';
      CREATE FUNCTION pg_temp.k(i integer) RETURNS bytea LANGUAGE sql AS $$ SELECT convert_to('key ' || i, 'UTF8') $$;
      INSERT INTO cache (key, value, expires_at) SELECT pg_temp.k(i), 'v', '-infinity' FROM generate_series(1, 9) i;
      INSERT INTO fpcache_tags (namespace, tag, key) SELECT '', 'tag', pg_temp.k(i) FROM generate_series(1, 9) i;
      ANALYZE cache, fpcache_tags;
      INSERT INTO fpcache_evictions VALUES ('fpcache', 0, 1000000);
      DO $$ BEGIN
        FOR _ IN 1 .. 7 LOOP
          PERFORM fpcache_sweep(0, 1), fpcache_evict(0, 1), fpcache_sweep_tags(0, 1);
        END LOOP;
      END $$;
      INSERT INTO cache (key, value)
      SELECT pg_temp.k(i), convert_to(repeat('v', 200), 'UTF8') FROM generate_series(10, 5000) i;
      INSERT INTO fpcache_tags (namespace, tag, key) SELECT '', 'tag', pg_temp.k(i) FROM generate_series(10, 5000) i;
      BEGIN;
      CREATE TEMPORARY TABLE before AS SELECT relname, seq_scan FROM pg_stat_xact_user_tables;
      DO $$ BEGIN
        PERFORM fpcache_sweep(0, 1), fpcache_evict(0, 1), fpcache_sweep_tags(0, 1), fpcache_forget(NULL, '', '{k1}', '{}');
      END $$;
      SELECT string_agg(relname || ' ' || a.seq_scan - b.seq_scan, ', ') FROM pg_stat_xact_user_tables AS a JOIN before AS b
        USING (relname) WHERE relname IN ('fpcache_entries', 'fpcache_tags') AND a.seq_scan > b.seq_scan;
      COMMIT]], there)
    assert.equal("", walks)
  end)
end)

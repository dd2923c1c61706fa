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
        FROM pg_prepared_statements WHERE statement LIKE '%.cache%' AND statement NOT LIKE '%INSERT INTO "public".cache %'
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
end)

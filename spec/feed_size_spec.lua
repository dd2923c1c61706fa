-- feed_size_spec.lua -- however long changes are told, the feed stays as large as what is told within some slots: it is
-- rotated and truncated.  By a clock that the spec turns, at the server.
local database = require "support.database"

local STEP, STEPS, CHANGES = 10, 42, 50 -- seconds between two turns of the clock: half a slot; seven minutes in all

describe("the change feed's size", function()
  local db
  setup(function() db = database.new() end)
  teardown(function() db:close_all() end)

  --- Whatever of the feed asks for the time asks the spec's clock.
  local function turn_clocks()
    db:sql([[
      CREATE TABLE spec_clock AS SELECT timestamptz '2001-01-01 00:00:05+00' AS now;
      GRANT SELECT ON spec_clock TO public;
      CREATE FUNCTION spec_now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now FROM public.spec_clock';
      DO $do$
      DECLARE
        clock CONSTANT text := '(clock|statement)_timestamp\(\)';
        c record;
      BEGIN
        FOR c IN SELECT a.attrelid::regclass AS of_table, a.attname, pg_get_expr(d.adbin, d.adrelid) AS given
          FROM pg_attrdef AS d JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
          WHERE pg_get_expr(d.adbin, d.adrelid) ~ clock AND a.attrelid::regclass::text ~ '^fpcache_feed'
        LOOP
          EXECUTE format('ALTER TABLE %s ALTER %I SET DEFAULT %s', c.of_table, c.attname,
            regexp_replace(c.given, clock, 'public.spec_now()', 'g'));
        END LOOP;
        EXECUTE regexp_replace(pg_get_functiondef('fpcache_rotate_feed()'::regprocedure), clock, 'public.spec_now()', 'g');
      END $do$]])
  end

  --- Writes and rotates at every step; rows and bytes of the feed after each.
  local function run()
    local steps = {}
    for i = 1, STEPS do
      steps[i] = ([[
        SELECT count(cache_set('fpcache', 'k' || i, 'v', NULL)) FROM generate_series(1, %d) i \g /dev/null
        SELECT fpcache_rotate_feed() \g /dev/null
        SELECT count(cache_set('fpcache', 'k' || i, 'v', NULL)) FROM generate_series(1, %d) i \g /dev/null
        SELECT count(*), (SELECT sum(pg_relation_size(oid)) FROM pg_class
          WHERE relname ~ '^fpcache_feed' AND relkind IN ('r', 'i')) FROM fpcache_feed;
        UPDATE spec_clock SET now = now + interval '%d s';]]):format(CHANGES / 2, CHANGES / 2, STEP)
    end
    local rows, bytes = {}, {}
    for count, size in db:sql(table.concat(steps, "\n")):gmatch("(%d+)|(%d+)") do
      rows[#rows + 1], bytes[#bytes + 1] = tonumber(count), tonumber(size)
    end
    return rows, bytes
  end

  it("does not grow with time, and keeps what is young", function()
    turn_clocks()
    local rows, bytes = run()
    assert.equal(STEPS, #rows)
    local minute = 60 / STEP
    local function most(list, first, last)
      local value = 0
      for i = first, last do value = math.max(value, list[i]) end
      return value
    end
    assert.is_true(most(bytes, 1, 2 * minute) > 0)
    assert.is_true(most(bytes, 2 * minute + 1, STEPS) <= most(bytes, 1, 2 * minute), "it grows")
    for i = minute + 1, STEPS do
      assert.is_true(rows[i] <= minute * CHANGES, "a minute's changes at most")
      assert.is_true(rows[i] >= 3 * CHANGES, "those of the slot before are there, for who is slow")
    end
  end)
end)

--- The schema's migrations in order, and what `admin` needs to know about the objects they make.
local sql = require("fpcache.sql")
local switch = require("fpcache.schema.switch")

local MIGRATIONS = {
  (require("fpcache.schema.m001_cache")), -- in parentheses: Lua 5.4's require returns a second value
  (require("fpcache.schema.m002_feed")),
  (require("fpcache.schema.m003_feed_cost")),
  (require("fpcache.schema.m004_leases")),
  (require("fpcache.schema.m005_tags")),
  (require("fpcache.schema.m006_quota")),
  (require("fpcache.schema.m007_watch")),
  (require("fpcache.schema.m008_sealing")),
  (require("fpcache.schema.m010_namespaces")),
  (require("fpcache.schema.m011_feed_quick")),
  (require("fpcache.schema.m013_watch_races")),
  (require("fpcache.schema.m014_inner_tables")),
  (require("fpcache.schema.m016_evicted")),
  (require("fpcache.schema.m018_one_pass")),
  (require("fpcache.schema.m019_two_names")),
}

local schema = { MIGRATIONS = MIGRATIONS, VERSION = MIGRATIONS[#MIGRATIONS].version } -- a number may have been passed over

--- Tells which migrations ran.  Logged, unlike the cache: it must survive a crash as the tables do.
schema.VERSION_TABLE = [[
CREATE TABLE IF NOT EXISTS {schema}.fpcache_schema (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    applied_by text NOT NULL DEFAULT session_user)]]

schema.RECORD = "INSERT INTO {schema}.fpcache_schema (version, name) VALUES ($1, $2)"

--- Everything a role needs to use the cache.
schema.GRANTS = [[
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.cache TO {role};
DO {body}
BEGIN
    IF to_regclass({entries}) IS NOT NULL THEN  -- not in PostgreSQL 10
        GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.fpcache_entries TO {role};
    END IF;
END {body};
GRANT SELECT ON {schema}.valid_cache, {schema}.fpcache_schema, {schema}.fpcache_state, {schema}.fpcache_quotas TO {role};
GRANT SELECT, INSERT (namespace, keys) ON {schema}.fpcache_feed TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.fpcache_tags TO {role};
GRANT SELECT, INSERT, UPDATE ON {schema}.fpcache_namespaces TO {role};
GRANT EXECUTE ON FUNCTION {schema}.fpcache_sweep(bigint, integer), {schema}.cache_cleanup(),
    {schema}.fpcache_sweep_tags(bigint, integer), {schema}.fpcache_begin_pass(interval),
    {schema}.fpcache_go_on(bigint), {schema}.fpcache_end_pass(bigint),
    {schema}.fpcache_plan_evictions(), {schema}.fpcache_evict(bigint, integer),
    {schema}.fpcache_rotate_feed(), {schema}.fpcache_begin_incarnation() TO {role}]]

-- Functions and procedures that are called fpcache_… go by their names, those of watched tables with their triggers.
local DROP = [[
DROP VIEW IF EXISTS {schema}.valid_cache;
DROP TABLE IF EXISTS {schema}.cache CASCADE;
DO {body}
DECLARE
    thing record;
    kind  text := CASE WHEN current_setting('server_version_num')::integer < 110000 THEN 'FUNCTION' ELSE 'ROUTINE' END;
BEGIN
    FOR thing IN SELECT oid::regclass AS name FROM pg_class
                 WHERE relnamespace = to_regnamespace({space}) AND relkind IN ('r', 'p') AND NOT relispartition
                   AND relname ~ '^fpcache_' LOOP
        EXECUTE format('DROP TABLE %s CASCADE', thing.name);
    END LOOP;
    FOR thing IN SELECT oid::regprocedure AS name FROM pg_proc
                 WHERE pronamespace = to_regnamespace({space}) AND proname ~ '^fpcache_' LOOP
        EXECUTE format('DROP %s %s CASCADE', kind, thing.name);
    END LOOP;
END {body};
DROP FUNCTION IF EXISTS {schema}.cache_set(text, text, text, integer);
DROP FUNCTION IF EXISTS {schema}.cache_get(text, text);
DROP FUNCTION IF EXISTS {schema}.cache_delete(text, text);
DROP FUNCTION IF EXISTS {schema}.cache_exists(text, text);
DROP FUNCTION IF EXISTS {schema}.cache_ttl(text, text);
DROP FUNCTION IF EXISTS {schema}.cache_cleanup()]]

--- The names of the objects of one schema, as SQL has them, and what says how its feed is switched: places of templates.
---@param quoted_schema string
---@return table<string, string>
function schema.places(quoted_schema)
  local places = { schema = quoted_schema, body = sql.dollar_quote(quoted_schema) }
  for place, name in pairs { relation = "cache", entries = "fpcache_entries", tagsRelation = "fpcache_tags",
    feedRelation = "fpcache_feed" } do
    places[place] = sql.quote_literal(quoted_schema .. "." .. name)
  end
  for place, template in pairs { switch = switch.STATE, rows = switch.ROWS } do
    places[place] = sql.fill(template, places)
  end
  return places
end

--- The SQL that gives a role what it needs to use the cache.
---@param quoted_schema string
---@param quoted_role string
---@return string
function schema.grants_sql(quoted_schema, quoted_role)
  local places = schema.places(quoted_schema)
  places.role, places.body = quoted_role, sql.dollar_quote(quoted_schema .. quoted_role)
  return sql.fill(schema.GRANTS, places)
end

--- The SQL that switches the feed of a schema on, or off where it is on.
---@param quoted_schema string
---@param is_on boolean
---@return string
function schema.switch_sql(quoted_schema, is_on) return sql.fill(switch.turn(is_on), schema.places(quoted_schema)) end

--- The SQL that removes all of it, and what the Python library made under the same names.
---@param quoted_schema string
---@return string
function schema.drop_sql(quoted_schema)
  local places = schema.places(quoted_schema)
  places.space = sql.quote_literal(quoted_schema)
  return sql.fill(DROP, places)
end

--- The SQL of one migration.
---@param migration table
---@param quoted_schema string
---@param is_logged boolean a table that survives a crash, and is slower
---@return string
function schema.migration_sql(migration, quoted_schema, is_logged)
  local places = schema.places(quoted_schema)
  places.format = sql.format_template(quoted_schema)
  places.table = is_logged and "CREATE TABLE" or "CREATE UNLOGGED TABLE"
  places.schemaText = sql.quote_literal(quoted_schema)
  places.relationText, places.entriesText = sql.quote_literal(places.relation), sql.quote_literal(places.entries)
  if migration.procedure then -- text inside text: its quote must be another one
    places.literal = sql.quote_literal(sql.fill(migration.procedure, places))
    places.procedure = sql.dollar_quote(places.literal)
  end
  return sql.fill(migration.sql, places)
end

return schema

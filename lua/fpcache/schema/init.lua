--- The schema's migrations in order, and what `admin` needs to know about the objects they make.
local sql = require("fpcache.sql")

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
GRANT SELECT ON {schema}.valid_cache, {schema}.fpcache_schema, {schema}.fpcache_state, {schema}.fpcache_quotas TO {role};
GRANT SELECT, INSERT (namespace, keys) ON {schema}.fpcache_feed TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.fpcache_tags TO {role};
GRANT SELECT, INSERT, UPDATE ON {schema}.fpcache_namespaces TO {role};
GRANT EXECUTE ON FUNCTION {schema}.fpcache_sweep(bigint, integer), {schema}.cache_cleanup(),
    {schema}.fpcache_sweep_tags(bigint, integer), {schema}.fpcache_begin_pass(interval),
    {schema}.fpcache_go_on(bigint), {schema}.fpcache_end_pass(bigint),
    {schema}.fpcache_plan_evictions(), {schema}.fpcache_evict(bigint, integer),
    {schema}.fpcache_rotate_feed(), {schema}.fpcache_begin_incarnation() TO {role}]]

--- Whether writers that are not ours tell the feed.  Off, nobody has to, and no reader answers anything.  It waits for the
-- writers that have begun, and those that begin later see it: so a reader sees the switch before any change that was not told.
schema.SWITCH_FEED = [[
ALTER TABLE {schema}.cache {verb} TRIGGER fpcache_tell_row, {verb} TRIGGER fpcache_tell_deleted_row]]

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

--- The SQL that removes all of it, and what the Python library made under the same names.
---@param quoted_schema string
---@return string
function schema.drop_sql(quoted_schema)
  return sql.fill(DROP, { schema = quoted_schema, space = sql.quote_literal(quoted_schema),
    body = sql.dollar_quote(quoted_schema) })
end

--- The SQL of one migration.
---@param migration table
---@param quoted_schema string
---@param is_logged boolean a table that survives a crash, and is slower
---@return string
function schema.migration_sql(migration, quoted_schema, is_logged)
  local places = {
    schema = quoted_schema,
    relation = sql.quote_literal(quoted_schema .. ".cache"),
    tagsRelation = sql.quote_literal(quoted_schema .. ".fpcache_tags"),
    feedRelation = sql.quote_literal(quoted_schema .. ".fpcache_feed"),
    format = sql.format_template(quoted_schema),
    table = is_logged and "CREATE TABLE" or "CREATE UNLOGGED TABLE",
    body = sql.dollar_quote(quoted_schema),
  }
  if migration.procedure then -- text inside text: its quote must be another one
    places.literal = sql.quote_literal(sql.fill(migration.procedure, places))
    places.procedure = sql.dollar_quote(places.literal)
  end
  return sql.fill(migration.sql, places)
end

return schema

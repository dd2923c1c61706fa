--- The schema's migrations in order, and what `admin` needs to know about the objects they make.
local sql = require("fpcache.sql")

local MIGRATIONS = {
  (require("fpcache.schema.m001_cache")), -- in parentheses: Lua 5.4's require returns a second value
  (require("fpcache.schema.m002_feed")),
  (require("fpcache.schema.m003_feed_cost")),
}

local schema = { MIGRATIONS = MIGRATIONS, VERSION = #MIGRATIONS }

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
GRANT SELECT ON {schema}.valid_cache, {schema}.fpcache_schema, {schema}.fpcache_state TO {role};
GRANT SELECT, INSERT (namespace, keys) ON {schema}.fpcache_feed TO {role};
GRANT EXECUTE ON FUNCTION {schema}.fpcache_sweep(bigint, integer), {schema}.cache_cleanup(),
    {schema}.fpcache_rotate_feed(), {schema}.fpcache_begin_incarnation() TO {role}]]

--- Whether writers that are not ours tell the feed.  Off, nobody has to, and no reader answers anything.  It waits for the
-- writers that have begun, and those that begin later see it: so a reader sees the switch before any change that was not told.
schema.SWITCH_FEED = [[
ALTER TABLE {schema}.cache {verb} TRIGGER fpcache_tell_row, {verb} TRIGGER fpcache_tell_deleted_row]]

--- Removes all of it, and what the Python library made under the same names.
schema.DROP = [[
DROP VIEW IF EXISTS {schema}.valid_cache;
DROP TABLE IF EXISTS {schema}.cache CASCADE;
DROP TABLE IF EXISTS {schema}.fpcache_schema, {schema}.fpcache_feed, {schema}.fpcache_frozen, {schema}.fpcache_state;
DROP FUNCTION IF EXISTS {schema}.cache_set(text, text, text, integer);
DROP FUNCTION IF EXISTS {schema}.cache_get(text, text);
DROP FUNCTION IF EXISTS {schema}.cache_delete(text, text);
DROP FUNCTION IF EXISTS {schema}.cache_exists(text, text);
DROP FUNCTION IF EXISTS {schema}.cache_ttl(text, text);
DROP FUNCTION IF EXISTS {schema}.cache_cleanup();
DROP FUNCTION IF EXISTS {schema}.fpcache_sweep(bigint, integer);
DROP FUNCTION IF EXISTS {schema}.fpcache_text(bytea);
DROP FUNCTION IF EXISTS {schema}.fpcache_stored_key(bytea);
DROP FUNCTION IF EXISTS {schema}.fpcache_begin_incarnation();
DROP FUNCTION IF EXISTS {schema}.fpcache_rotate_feed();
DROP FUNCTION IF EXISTS {schema}.fpcache_tell_row();
DROP FUNCTION IF EXISTS {schema}.fpcache_tell_truncate()]]

--- The SQL of one migration.
---@param migration table
---@param quoted_schema string
---@param is_logged boolean a table that survives a crash, and is slower
---@return string
function schema.migration_sql(migration, quoted_schema, is_logged)
  return sql.fill(migration.sql, {
    schema = quoted_schema,
    relation = sql.quote_literal(quoted_schema .. ".cache"),
    format = sql.format_template(quoted_schema),
    table = is_logged and "CREATE TABLE" or "CREATE UNLOGGED TABLE",
    body = sql.dollar_quote(quoted_schema),
  })
end

return schema

--- Every statement that the client ever sends, in one place, for a DBA to read.
--
-- Parameters: $1 is the namespace and $2 the stored key, where there is one.  The user is never a
-- parameter: it is the role that logged in (session_user), and row-level security says the same.
-- Times are the server's: statement_timestamp() goes on inside a long transaction, as now() does not.
local core = require("fpcache.core")
local sql = require("fpcache.sql")

-- `{own}` is one row by primary key; `{live}` that it has not expired.
local PARTS = {
  mine = "user_id = session_user::text AND namespace = $1",
  own = "user_id = session_user::text AND namespace = $1 AND key = $2",
  live = "expires_at > statement_timestamp()",
  cLive = "c.expires_at > statement_timestamp()",
  version = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint",
  nextVersion = "greatest(c.version + 1, excluded.version)",
  ttl = [[CASE WHEN expires_at = 'infinity' THEN -1
     ELSE extract(epoch FROM expires_at - statement_timestamp()) END::float8]],
  -- $6 seconds from now, $7 seconds since 1970; none of them: never
  expiry = "coalesce(statement_timestamp() + $6 * interval '1 second', to_timestamp($7), 'infinity')",
}

-- One row in: $1 namespace, $2 key, $3 long key, $4 value, $5 format, $6 ttl, $7 expires_at.
local INSERT = [[
{tellKey}INSERT INTO {schema}.cache AS c (namespace, key, long_key, value, format, version, expires_at)
VALUES ($1, $2, $3, $4, $5, {version}, {expiry})
ON CONFLICT (user_id, namespace, key) DO UPDATE
SET value = excluded.value, format = excluded.format, version = {nextVersion}, ]]

-- A change of a live row: the parameters of INSERT, $3 being unused.
local UPDATE = [[
{tellKey}UPDATE {schema}.cache AS c
SET value = $4, format = $5, version = greatest(c.version + 1, {version}), expires_at = %s
WHERE {own} AND {live}%s RETURNING version]]

local KEEP_TTL = "CASE WHEN {cLive} THEN c.expires_at ELSE excluded.expires_at END"

-- name = { SQL, parameter types (see src/lua/statement.c), read-only? }
local TEMPLATES = {
  schema_version = { "SELECT max(version) FROM {schema}.fpcache_schema", "", true },
  ping = { "SELECT 1", "", true },

  get = { "SELECT value, format FROM {schema}.cache WHERE {own} AND {live}", "ty", true },
  get_many = { [[
SELECT coalesce(long_key, key), value, format FROM {schema}.cache
WHERE {mine} AND key = ANY ($2) AND {live}]], "tY", true },
  -- What the near cache keeps has to know how long it may live.
  get_with_ttl = { "SELECT value, format, {ttl} FROM {schema}.cache WHERE {own} AND {live}", "ty", true },
  get_many_with_ttl = { [[
SELECT coalesce(long_key, key), value, format, {ttl} FROM {schema}.cache
WHERE {mine} AND key = ANY ($2) AND {live}]], "tY", true },
  entry = { [[
SELECT value, format, version, {ttl}, octet_length(value) FROM {schema}.cache WHERE {own} AND {live}]], "ty", true },
  ttl = { "SELECT {ttl} FROM {schema}.cache WHERE {own} AND {live}", "ty", true },

  set = { INSERT .. "expires_at = excluded.expires_at RETURNING version", "tyyycff" },
  set_keep_ttl = { INSERT .. "expires_at = " .. KEEP_TTL .. " RETURNING version", "tyyycff" },
  add = { INSERT .. "expires_at = excluded.expires_at WHERE NOT {cLive} RETURNING version", "tyyycff" },
  replace = { UPDATE:format("{expiry}", ""), "tyyycff" },
  replace_keep_ttl = { UPDATE:format("c.expires_at", ""), "tyyycff" },
  cas = { UPDATE:format("{expiry}", " AND version = $8"), "tyyycffi" },
  cas_keep_ttl = { UPDATE:format("c.expires_at", " AND version = $8"), "tyyycffi" },

  -- The old value.  The inner query locks the row first, so that what it returns is what is replaced.
  get_set = { [[
{tellKey}UPDATE {schema}.cache AS c
SET value = $4, format = $5, version = greatest(c.version + 1, {version}), expires_at = {expiry}
FROM (SELECT value, format FROM {schema}.cache WHERE {own} AND {live} FOR UPDATE) AS old
WHERE c.user_id = session_user::text AND c.namespace = $1 AND c.key = $2
RETURNING old.value, old.format]], "tyyycff" },
  get_delete = { "{tellKey}DELETE FROM {schema}.cache WHERE {own} AND {live} RETURNING value, format", "ty" },

  -- $4 the first value, $5 what is added to an old one.  An old value that is no integer gives no row.
  incr = { [[
{tellKey}INSERT INTO {schema}.cache AS c (namespace, key, long_key, value, format, version, expires_at)
VALUES ($1, $2, $3, convert_to($4::text, 'UTF8'), 'i', {version}, {expiry})
ON CONFLICT (user_id, namespace, key) DO UPDATE
SET value = CASE WHEN {cLive} THEN convert_to((convert_from(c.value, 'UTF8')::bigint + $5)::text, 'UTF8')
                 ELSE excluded.value END,
    format = 'i', version = {nextVersion}, expires_at = ]] .. KEEP_TTL .. [[

WHERE NOT {cLive} OR c.format = 'i'
   OR (c.format = 't' AND octet_length(c.value) < 20 AND convert_from(c.value, 'UTF8') ~ '^-?[0-9]+$')
RETURNING convert_from(value, 'UTF8')::bigint]], "tyyiiff" },

  delete = { "{tellKey}DELETE FROM {schema}.cache WHERE {own} AND {live}", "ty" },
  -- Locked in the order of keys, as bulk writes are: two of them cannot deadlock.
  delete_many = { [[
{tellKeys}WITH victims AS (
    SELECT ctid FROM {schema}.cache WHERE {mine} AND key = ANY ($2) AND {live} ORDER BY key FOR UPDATE)
DELETE FROM {schema}.cache WHERE ctid = ANY (ARRAY(SELECT ctid FROM victims))]], "tY" },
  expire = { [[
{tellKey}UPDATE {schema}.cache SET expires_at = statement_timestamp() + $3 * interval '1 second'
WHERE {own} AND {live}]], "tyf" },
  touch = { [[
{tellKey}UPDATE {schema}.cache SET expires_at = greatest(expires_at, statement_timestamp() + $3 * interval '1 second')
WHERE {own} AND {live}]], "tyf" },
  persist = { "{tellKey}UPDATE {schema}.cache SET expires_at = 'infinity' WHERE {own} AND {live}", "ty" },

  set_many = { [[
{tellKeys}INSERT INTO {schema}.cache AS c (namespace, key, long_key, value, format, version, expires_at)
SELECT $1, r.key, r.long_key, r.value, r.format, {version},
       coalesce(statement_timestamp() + r.ttl * interval '1 second', 'infinity')
FROM unnest($2, $3, $4, $5, $6) AS r (key, long_key, value, format, ttl)
ON CONFLICT (user_id, namespace, key) DO UPDATE
SET value = excluded.value, format = excluded.format, version = {nextVersion},
    expires_at = excluded.expires_at]], "tB" },

  -- A page of a scan: keys from $2 (included) to $3 (excluded), at most $4.
  scan_keys = { [[
SELECT key, long_key FROM {schema}.cache
WHERE {mine} AND key >= $2 AND key < $3 AND {live} ORDER BY key LIMIT $4]], "tyyi", true },
  scan_values = { [[
SELECT key, long_key, value, format FROM {schema}.cache
WHERE {mine} AND key >= $2 AND key < $3 AND {live} ORDER BY key LIMIT $4]], "tyyi", true },
  count = { [[
SELECT count(*) FROM {schema}.cache WHERE {mine} AND key >= $2 AND key < $3 AND {live}]], "tyy", true },
  count_all = { "SELECT count(*) FROM {schema}.cache WHERE user_id = session_user::text AND {live}", "", true },
  clear = { "{tellSpace}DELETE FROM {schema}.cache WHERE {mine}", "t" },
  clear_all = { "{tellAll}DELETE FROM {schema}.cache WHERE user_id = session_user::text", "" },

  pages = { [[
SELECT pg_relation_size({relation}::regclass) / current_setting('block_size')::bigint]], "", true },
  sweep = { "SELECT {schema}.fpcache_sweep($1, $2::integer)", "ii" },

  -- Of the whole table, for everybody; the number of rows is the server's estimate.
  table_stats = { [[
SELECT greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0), pg_total_relation_size(c.oid),
       c.relpersistence = 'u'
FROM pg_class AS c WHERE c.oid = {relation}::regclass]], "", true },
}

-- What a change writes into the feed (see schema/m002_feed.lua), in its own statement.
local TELLS = {
  tellKey = "($1, ARRAY[$2])",
  tellKeys = "($1, $2)",
  tellSpace = "($1, NULL)",
  tellAll = "(NULL, NULL)",
}
local TELL = "WITH told AS (INSERT INTO {schema}.fpcache_feed (namespace, keys) VALUES {row})\n"

local statements = {}

--- The statements for one schema.
---@param quoted_schema string
---@param tells boolean whether changes write the feed; behind a transaction pooler the table's trigger does
---@return table<string, userdata>
function statements.new(quoted_schema, tells)
  local places = { schema = quoted_schema, relation = sql.quote_literal(quoted_schema .. ".cache") }
  for name, part in pairs(PARTS) do places[name] = part end -- a part holds no places itself
  for name, row in pairs(TELLS) do
    places[name] = tells and sql.fill(TELL, { schema = quoted_schema, row = row }) or ""
  end
  local made = {}
  for name, template in pairs(TEMPLATES) do
    local text = sql.fill(template[1], places)
    text = text:gsub("%)\nWITH ", "), ") -- a statement has one WITH
    made[name] = core.statement(text, template[2], template[3] or false)
  end
  return made
end

return statements

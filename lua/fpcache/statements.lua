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
INSERT INTO {schema}.cache AS c (namespace, key, long_key, value, format, version, expires_at)
VALUES ($1, $2, $3, $4, $5, {version}, {expiry})
ON CONFLICT (user_id, namespace, key) DO UPDATE
SET value = excluded.value, format = excluded.format, version = {nextVersion}, ]]

-- A change of a live row: the parameters of INSERT, $3 being unused.
local UPDATE = [[
UPDATE {schema}.cache AS c
SET value = $4, format = $5, version = greatest(c.version + 1, {version}), expires_at = %s
WHERE {own} AND {live}%s RETURNING version]]

local KEEP_TTL = "CASE WHEN {cLive} THEN c.expires_at ELSE excluded.expires_at END"

-- name = { SQL, parameter types (see src/lua/statement.c), read-only? }
local TEMPLATES = {
  schema_version = { "SELECT max(version) FROM {schema}.fpcache_schema", "", true },
  ping = { "SELECT 1", "", true },

  get = { "SELECT value, format FROM {schema}.cache WHERE {own} AND {live}", "ty", true },
  -- LIMIT keeps the lookup of one key a plan of its own.  With `key = ANY ($2)` a plan made while the table was
  -- small reads all keys of the namespace, and stays after the table has grown.  Sorted keys walk the index once.
  get_many = { [[
SELECT coalesce(c.long_key, k.key), c.value, c.format
FROM (SELECT unnest($2) AS key ORDER BY key) AS k
CROSS JOIN LATERAL (
    SELECT long_key, value, format FROM {schema}.cache WHERE {mine} AND key = k.key AND {live} LIMIT 1) AS c]],
    "tY", true },
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
UPDATE {schema}.cache AS c
SET value = $4, format = $5, version = greatest(c.version + 1, {version}), expires_at = {expiry}
FROM (SELECT value, format FROM {schema}.cache WHERE {own} AND {live} FOR UPDATE) AS old
WHERE c.user_id = session_user::text AND c.namespace = $1 AND c.key = $2
RETURNING old.value, old.format]], "tyyycff" },
  get_delete = { "DELETE FROM {schema}.cache WHERE {own} AND {live} RETURNING value, format", "ty" },

  -- $4 the first value, $5 what is added to an old one.  An old value that is no integer gives no row.
  incr = { [[
INSERT INTO {schema}.cache AS c (namespace, key, long_key, value, format, version, expires_at)
VALUES ($1, $2, $3, convert_to($4::text, 'UTF8'), 'i', {version}, {expiry})
ON CONFLICT (user_id, namespace, key) DO UPDATE
SET value = CASE WHEN {cLive} THEN convert_to((convert_from(c.value, 'UTF8')::bigint + $5)::text, 'UTF8')
                 ELSE excluded.value END,
    format = 'i', version = {nextVersion}, expires_at = ]] .. KEEP_TTL .. [[

WHERE NOT {cLive} OR c.format = 'i'
   OR (c.format = 't' AND octet_length(c.value) < 20 AND convert_from(c.value, 'UTF8') ~ '^-?[0-9]+$')
RETURNING convert_from(value, 'UTF8')::bigint]], "tyyiiff" },

  delete = { "DELETE FROM {schema}.cache WHERE {own} AND {live}", "ty" },
  -- Locked in the order of keys, as bulk writes are: two of them cannot deadlock.
  delete_many = { [[
WITH victims AS (
    SELECT c.ctid FROM (SELECT unnest($2) AS key ORDER BY key) AS k
    CROSS JOIN LATERAL (
        SELECT ctid FROM {schema}.cache WHERE {mine} AND key = k.key AND {live} LIMIT 1 FOR UPDATE) AS c)
DELETE FROM {schema}.cache WHERE ctid = ANY (ARRAY(SELECT ctid FROM victims))]], "tY" },
  expire = { [[
UPDATE {schema}.cache SET expires_at = statement_timestamp() + $3 * interval '1 second'
WHERE {own} AND {live}]], "tyf" },
  touch = { [[
UPDATE {schema}.cache SET expires_at = greatest(expires_at, statement_timestamp() + $3 * interval '1 second')
WHERE {own} AND {live}]], "tyf" },
  persist = { "UPDATE {schema}.cache SET expires_at = 'infinity' WHERE {own} AND {live}", "ty" },

  -- unnest() in the select list, not in FROM, where its rows would be stored aside first.  The subqueries
  -- are computed once, not for each row.
  set_many = { [[
INSERT INTO {schema}.cache AS c (user_id, namespace, key, long_key, value, format, version, expires_at)
SELECT (SELECT session_user::text), $1, r.key, r.long_key, r.value, r.format, (SELECT {version}),
       coalesce(statement_timestamp() + r.ttl * interval '1 second', 'infinity')
FROM (SELECT unnest($2) AS key, unnest($3) AS long_key, unnest($4) AS value, unnest($5) AS format,
             unnest($6) AS ttl) AS r
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
  clear = { "DELETE FROM {schema}.cache WHERE {mine}", "t" },
  clear_all = { "DELETE FROM {schema}.cache WHERE user_id = session_user::text", "" },

  pages = { [[
SELECT pg_relation_size({relation}::regclass) / current_setting('block_size')::bigint]], "", true },
  sweep = { "SELECT {schema}.fpcache_sweep($1, $2::integer)", "ii" },

  -- Of the whole table, for everybody; the number of rows is the server's estimate.
  table_stats = { [[
SELECT greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0), pg_total_relation_size(c.oid),
       c.relpersistence = 'u'
FROM pg_class AS c WHERE c.oid = {relation}::regclass]], "", true },
}

local statements = {}

--- The statements for one schema.
---@param quoted_schema string
---@return table<string, userdata>
function statements.new(quoted_schema)
  local places = { schema = quoted_schema, relation = sql.quote_literal(quoted_schema .. ".cache") }
  for name, part in pairs(PARTS) do places[name] = part end -- a part holds no places itself
  local made = {}
  for name, template in pairs(TEMPLATES) do
    made[name] = core.statement(sql.fill(template[1], places), template[2], template[3] or false)
  end
  return made
end

return statements

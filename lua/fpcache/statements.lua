--- Every statement that the client ever sends, in one place, for a DBA to read.
--
-- Parameters: $1 is the namespace and $2 the stored key, where there is one.  The user is never a
-- parameter: it is the role that logged in (session_user), and row-level security says the same.
-- Times are the server's: statement_timestamp() goes on inside a long transaction, as now() does not.
--
-- `{cache}` is the table of entries, by the name that says who tells the feed of the change (see schema/switch.lua).
local core = require("fpcache.core")
local schema = require("fpcache.schema")
local sql = require("fpcache.sql")

-- `{own}` is one row by primary key; `{live}` that it has not expired.
local PARTS = {
  mine = "user_id = session_user::text AND namespace = $1",
  own = "user_id = session_user::text AND namespace = $1 AND key = $2",
  live = "expires_at > statement_timestamp()",
  cLive = "c.expires_at > statement_timestamp()",
  liveAnywhere = "expires_at > statement_timestamp()", -- in any namespace
  cKnown = "", -- and it is not of a time before its namespace was cleared at once
  version = "(extract(epoch FROM statement_timestamp()) * 1000000)::bigint",
  nextVersion = "greatest(c.version + 1, excluded.version)",
  ttl = [[CASE WHEN expires_at = 'infinity' THEN -1
     ELSE date_part('epoch', expires_at - statement_timestamp()) END]], -- extract() is exact, and slower
  -- $6 seconds from now, $7 seconds since 1970; none of them: never
  expiry = "coalesce(statement_timestamp() + $6 * interval '1 second', to_timestamp($7), 'infinity')",
}

-- The same where namespaces may be cleared at once (see schema/m010_namespaces.lua): what is older is not there.  It costs a look
-- into another table, so it is for those only who ask for it.
local CLEARED = "coalesce((SELECT n.cleared FROM {schema}.fpcache_namespaces AS n "
  .. "WHERE n.user_id = session_user::text AND n.namespace = %s), 0)"
local VERSIONED = {
  live = ("(%s AND version > %s)"):format(PARTS.live, CLEARED:format("$1")),
  cLive = ("(%s AND c.version > %s)"):format(PARTS.cLive, CLEARED:format("$1")),
  liveAnywhere = ("%s AND version > %s"):format(PARTS.live, CLEARED:format("c.namespace")),
  cKnown = (" AND c.version > %s"):format(CLEARED:format("$1")),
  version = ("greatest(%s, %s + 1)"):format(PARTS.version, CLEARED:format("$1")),
}

-- One row in: $1 namespace, $2 key, $3 long key, $4 value, $5 format, $6 ttl, $7 expires_at.
-- A write without tags takes them off: `tags` is not named, so excluded.tags is NULL.
local INSERT = [[
{tellKey}INSERT INTO {cache} AS c (namespace, key, long_key, value, format, version, expires_at)
VALUES ($1, $2, $3, $4, $5, {version}, {expiry})
ON CONFLICT (user_id, namespace, key) DO UPDATE
SET value = excluded.value, format = excluded.format, version = {nextVersion}, tags = excluded.tags, ]]

-- A change of a live row: the parameters of INSERT, $3 being unused.
local UPDATE = [[
{tellKey}UPDATE {cache} AS c
SET value = $4, format = $5, version = greatest(c.version + 1, {version}), tags = NULL, expires_at = %s
WHERE {own} AND {live}%s RETURNING version]]

-- Many rows, from a SELECT of key, long_key, value, format, ttl.  The subqueries are computed once, not for each row.
local INSERT_ROWS = [[
INSERT INTO {cache} AS c (user_id, namespace, key, long_key, value, format, version, expires_at)
SELECT (SELECT session_user::text), $1, r.key, r.long_key, r.value, r.format, (SELECT {version}),
       coalesce(statement_timestamp() + r.ttl * interval '1 second', 'infinity')
FROM (%s) AS r
ON CONFLICT (user_id, namespace, key) DO UPDATE
SET value = excluded.value, format = excluded.format, version = {nextVersion},
    tags = excluded.tags, expires_at = excluded.expires_at]]

local KEEP_TTL = "CASE WHEN {cLive} THEN c.expires_at ELSE excluded.expires_at END"

-- name = { SQL, parameter types (see src/lua/statement.c), read-only?, slow = of many rows: in a pipeline of its own,
--          many = the statement that does it for many keys at once in the place of $2 (see include/fpcache/statement.h) }
local TEMPLATES = {
  -- and whether the change feed is switched on, and whether this login may tell it: who was given rights by hand may not
  schema_version = { [[
SELECT max(version), (SELECT is_on FROM {switch} AS t)::integer, coalesce(
           has_table_privilege(to_regclass({entries}), 'SELECT') AND has_table_privilege(to_regclass({entries}), 'INSERT')
           AND has_table_privilege(to_regclass({entries}), 'UPDATE') AND has_table_privilege(to_regclass({entries}), 'DELETE')
           AND has_column_privilege(to_regclass({feedRelation}), 'namespace', 'INSERT')
           AND has_column_privilege(to_regclass({feedRelation}), 'keys', 'INSERT'), false)::integer
FROM {schema}.fpcache_schema]], "", true },
  login = { "SELECT session_user::text", "", true },
  ping = { "SELECT 1", "", true },

  get = { "SELECT value, format FROM {cache} WHERE {own} AND {live}", "ty", true, many = "get_merged" },
  -- LIMIT keeps the lookup of one key a plan of its own.  With `key = ANY ($2)` a plan made while the table was
  -- small reads all keys of the namespace, and stays after the table has grown.  Sorted keys walk the index once.
  get_many = { [[
SELECT coalesce(c.long_key, k.key), c.value, c.format
FROM (SELECT unnest($2) AS key ORDER BY key) AS k
CROSS JOIN LATERAL (
    SELECT long_key, value, format FROM {cache} WHERE {mine} AND key = k.key AND {live} LIMIT 1) AS c]],
    "tY", true, slow = true },
  -- What the near cache keeps has to know how long it may live.
  get_with_ttl = { "SELECT value, format, {ttl} FROM {cache} WHERE {own} AND {live}", "ty", true,
    many = "get_merged_with_ttl" },
  -- Single gets that travel together: each row says whose it is.
  get_merged = { [[
SELECT k.number, c.value, c.format
FROM unnest($2) WITH ORDINALITY AS k (key, number)
CROSS JOIN LATERAL (
    SELECT value, format FROM {cache} WHERE {mine} AND key = k.key AND {live} LIMIT 1) AS c]], "tY", true },
  get_merged_with_ttl = { [[
SELECT k.number, c.value, c.format, c.ttl
FROM unnest($2) WITH ORDINALITY AS k (key, number)
CROSS JOIN LATERAL (
    SELECT value, format, {ttl} AS ttl FROM {cache} WHERE {mine} AND key = k.key AND {live} LIMIT 1) AS c]],
    "tY", true },
  get_many_with_ttl = { [[
SELECT coalesce(c.long_key, k.key), c.value, c.format, c.ttl
FROM unnest($2) AS k (key)
CROSS JOIN LATERAL (
    SELECT long_key, value, format, {ttl} AS ttl FROM {cache} WHERE {mine} AND key = k.key AND {live} LIMIT 1) AS c]],
    "tY", true, slow = true },
  entry = { [[
SELECT value, format, version, {ttl}, octet_length(value) FROM {cache} WHERE {own} AND {live}]], "ty", true },
  ttl = { "SELECT {ttl} FROM {cache} WHERE {own} AND {live}", "ty", true },

  set = { INSERT .. "expires_at = excluded.expires_at RETURNING version", "tyyycff", many = "set_merged" },
  set_keep_ttl = { INSERT .. "expires_at = " .. KEEP_TTL .. " RETURNING version", "tyyycff" },
  add = { INSERT .. "expires_at = excluded.expires_at WHERE NOT {cLive} RETURNING version", "tyyycff" },
  replace = { UPDATE:format("{expiry}", ""), "tyyycff" },
  replace_keep_ttl = { UPDATE:format("c.expires_at", ""), "tyyycff" },
  cas = { UPDATE:format("{expiry}", " AND version = $8"), "tyyycffi" },
  cas_keep_ttl = { UPDATE:format("c.expires_at", " AND version = $8"), "tyyycffi" },

  -- The old value.  The inner query locks the row first, so that what it returns is what is replaced.
  get_set = { [[
{tellKey}UPDATE {cache} AS c
SET value = $4, format = $5, version = greatest(c.version + 1, {version}), tags = NULL,
    expires_at = {expiry}
FROM (SELECT value, format FROM {cache} WHERE {own} AND {live} FOR UPDATE) AS old
WHERE c.user_id = session_user::text AND c.namespace = $1 AND c.key = $2
RETURNING old.value, old.format]], "tyyycff" },
  -- Every delete takes rows that have expired too: what is stale is forgotten, and who loads the key has lost his lease (see
  -- schema/m004_leases.lua).  Its answer speaks of living ones.
  get_delete = { [[
{tellKey}WITH gone AS (DELETE FROM {cache} WHERE {own} RETURNING value, format, {live} AS lived)
SELECT value, format FROM gone WHERE lived]], "ty" },

  -- $4 the first value, $5 what is added to an old one.  An old value that is no integer gives no row.
  incr = { [[
{tellKey}INSERT INTO {cache} AS c (namespace, key, long_key, value, format, version, expires_at)
VALUES ($1, $2, $3, convert_to($4::text, 'UTF8'), 'i', {version}, {expiry})
ON CONFLICT (user_id, namespace, key) DO UPDATE
SET value = CASE WHEN {cLive} THEN convert_to((convert_from(c.value, 'UTF8')::bigint + $5)::text, 'UTF8')
                 ELSE excluded.value END,
    format = 'i', version = {nextVersion}, tags = CASE WHEN {cLive} THEN c.tags END, expires_at = ]] .. KEEP_TTL .. [[

WHERE NOT {cLive} OR c.format = 'i'
   OR (c.format = 't' AND octet_length(c.value) < 20 AND convert_from(c.value, 'UTF8') ~ '^-?[0-9]+$')
RETURNING convert_from(value, 'UTF8')::bigint]], "tyyiiff" },

  delete = { "{tellKey}DELETE FROM {cache} WHERE {own} RETURNING {live}", "ty" },
  -- Locked in the order of keys, as bulk writes are: two of them cannot deadlock.
  delete_many = { [[
{tellKeys}WITH victims AS (
    SELECT c.ctid FROM (SELECT unnest($2) AS key ORDER BY key) AS k
    CROSS JOIN LATERAL (
        SELECT ctid FROM {cache} WHERE {mine} AND key = k.key LIMIT 1 FOR UPDATE) AS c),
gone AS (DELETE FROM {cache} WHERE ctid = ANY (ARRAY(SELECT ctid FROM victims)) RETURNING {live} AS lived)
SELECT count(*) FROM gone WHERE lived]], "tY", slow = true },
  expire = { [[
{tellKey}UPDATE {cache} SET expires_at = statement_timestamp() + $3 * interval '1 second'
WHERE {own} AND {live}]], "tyf" },
  touch = { [[
{tellKey}UPDATE {cache} SET expires_at = greatest(expires_at, statement_timestamp() + $3 * interval '1 second')
WHERE {own} AND {live}]], "tyf" },
  persist = { "{tellKey}UPDATE {cache} SET expires_at = 'infinity' WHERE {own} AND {live}", "ty" },

  -- unnest() in the select list, not in FROM, where its rows would be stored aside first.
  set_many = { "{tellKeys}" .. INSERT_ROWS:format([[
SELECT unnest($2) AS key, unnest($3) AS long_key, unnest($4) AS value, unnest($5) AS format, unnest($6) AS ttl]]),
    "tB", slow = true },
  -- Single sets that travel together, each of another key, in the order of keys: each row says which.
  set_merged = { "{tellKeys}" .. INSERT_ROWS:format([[
SELECT unnest($2) AS key, unnest($3) AS long_key, unnest($4) AS value, unnest($5) AS format, unnest($6) AS ttl]])
    .. " RETURNING key, version", "tB" },
  -- The entries after $2 and up to $3 of a warm-up on the server (statements/warm.lua), $4 their ttl.  Of a key that
  -- comes twice the last one; in the order of keys, as the other bulk writes.
  warm_copy = { "{tellWarm}" .. INSERT_ROWS:format([[
SELECT DISTINCT ON (key) key, long_key, value, format, $4::float8 AS ttl
FROM pg_temp.fpcache_warm WHERE n > $2 AND n <= $3 AND bad IS NULL ORDER BY key, n DESC]]), "tiif", slow = true },

  -- A page of a scan: keys from $2 (included) to $3 (excluded), at most $4.
  scan_keys = { [[
SELECT key, long_key FROM {cache}
WHERE {mine} AND key >= $2 AND key < $3 AND {live} ORDER BY key LIMIT $4]], "tyyi", true, slow = true },
  scan_values = { [[
SELECT key, long_key, value, format FROM {cache}
WHERE {mine} AND key >= $2 AND key < $3 AND {live} ORDER BY key LIMIT $4]], "tyyi", true, slow = true },
  count = { [[
SELECT count(*) FROM {cache} WHERE {mine} AND key >= $2 AND key < $3 AND {live}]], "tyy", true, slow = true },
  count_all = { "SELECT count(*) FROM {cache} AS c WHERE user_id = session_user::text AND {liveAnywhere}", "", true,
    slow = true },
  clear = { "{tellSpace}DELETE FROM {cache} WHERE {mine}", "t", slow = true },
  -- One row, however many there are.  It is told in any case: the triggers that tell for others are those of the cache.
  clear_at_once = { [[
WITH told AS (INSERT INTO {schema}.fpcache_feed (namespace, keys) VALUES ($1, NULL))
INSERT INTO {schema}.fpcache_namespaces AS n (namespace, cleared)
VALUES ($1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
ON CONFLICT (user_id, namespace) DO UPDATE SET cleared = greatest(n.cleared + 1, excluded.cleared)]], "t" },
  clear_all = { "{tellAll}DELETE FROM {cache} WHERE user_id = session_user::text", "", slow = true },

  -- Of the whole table, for everybody; the number of rows is the server's estimate.
  table_stats = { [[
SELECT greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0), pg_total_relation_size(c.oid),
       c.relpersistence = 'u'
FROM pg_class AS c WHERE c.oid = {rows}]], "", true },
}

require("fpcache.statements.policies").add(TEMPLATES)
require("fpcache.statements.tags").add(TEMPLATES)
require("fpcache.statements.keeping").add(TEMPLATES)
require("fpcache.statements.rates").add(TEMPLATES)

-- What a change writes into the feed (see schema/m002_feed.lua), in its own statement.
local TELLS = {
  tellKey = "($1, ARRAY[$2])",
  tellKeys = "($1, $2)",
  tellWarm = "($1, ARRAY(SELECT key FROM pg_temp.fpcache_warm WHERE n > $2 AND n <= $3 AND bad IS NULL))",
  tellSpace = "($1, NULL)",
  tellAll = "(NULL, NULL)",
}
-- What took away rows that it had to find first names them by the common table expression `gone`.
local TELL_GONE = [[,
told AS (INSERT INTO {schema}.fpcache_feed (namespace, keys) SELECT $1, array_agg(key) FROM gone HAVING count(*) > 0{wake})]]
-- What may have written nothing names its row by the common table expression `tried`.
local TELL_TRIED = [[,
told AS (INSERT INTO {schema}.fpcache_feed (namespace, keys) SELECT $1, ARRAY[$2] FROM tried{wake})]]
local TELL = "WITH told AS (INSERT INTO {schema}.fpcache_feed (namespace, keys) VALUES {row}{wake})\n"
-- Wakes readers that listen; they then poll as ever.  Commits that wake wait for one another.
local WAKE = " RETURNING pg_notify('fpcache', {name})"

-- What the feed's reader sends on its two connections (src/core/feed*.c), which take these texts as they are.  The
-- poll must be one plain statement in READ COMMITTED: then the server locks the feed's tables before it takes the
-- snapshot, and no rotation comes in between.  `{seen}`: nothing was truncated that $1 had not seen.
local FEED = {
  -- $backend: see connection.lua.
  session = [[
SELECT set_config('application_name', 'fpcache feed', false), set_config('statement_timeout', '60000', false),
       set_config('default_transaction_isolation', 'read committed', false), set_config('enable_seqscan', 'off', false)
WHERE pg_backend_pid() = $backend;
SELECT set_config(name, 'off', false) FROM pg_settings WHERE name = 'jit' AND pg_backend_pid() = $backend]],
  -- Run with the session's, on demand.  A pooler's session may not listen, as it would for others; and what cannot be is no
  -- error, since polls do without.
  listen = [[
DO $fpcache$ BEGIN
    IF pg_backend_pid() = $backend THEN LISTEN fpcache; END IF;
EXCEPTION WHEN OTHERS THEN NULL;
END $fpcache$]],
  is_listening = "SELECT 1 FROM pg_listening_channels() AS c (name) WHERE name = 'fpcache'",
  -- A plan made while the feed was empty must do when it is full; its cost is then so high that the server
  -- would compile it at each poll.

  -- A standby counts as switched off: its snapshots do not name the transactions that are still open at the primary, whose
  -- changes would be overlooked for ever; and how far it is behind, nobody here knows.

  -- $1 text: the snapshot of the last poll, NULL at first.  One row for each change, at least one:
  -- snapshot, incarnation (NULL after a wipe), start of the server, fell behind?, rotation due?, READ COMMITTED?,
  -- switched on?, is a change?, its namespace (NULL: all), its keys (NULL: all)
  poll = [[
SELECT txid_current_snapshot()::text, {incarnation}, extract(epoch FROM pg_postmaster_start_time())::text,
       NOT {seen}, coalesce({halfSlots} % 2 = 1 AND s.slot < {halfSlots} / 2, false),
       current_setting('transaction_isolation') = 'read committed', t.is_on AND NOT pg_is_in_recovery(), f.xid IS NOT NULL,
       f.namespace, f.keys
FROM (SELECT $1::txid_snapshot AS snapshot) AS last
CROSS JOIN {switch} AS t
LEFT JOIN {schema}.fpcache_state AS s ON true
LEFT JOIN {schema}.fpcache_feed AS f
       ON f.user_id = session_user AND {seen}
      AND f.xid >= (SELECT txid_snapshot_xmin($1::txid_snapshot))
      AND NOT txid_visible_in_snapshot(f.xid, (SELECT $1::txid_snapshot))]],
  rotate = "SELECT {schema}.fpcache_rotate_feed()",
  begin_incarnation = "SELECT {schema}.fpcache_begin_incarnation()",

  load_session = [[
SELECT set_config('application_name', 'fpcache filter', false), set_config('statement_timeout', '60000', false)
WHERE pg_backend_pid() = $backend;
SELECT set_config(name, 'off', false) FROM pg_settings WHERE name = 'jit' AND pg_backend_pid() = $backend]],
  -- All live keys of this user, as of one moment, with the incarnation they belong to.
  load_count = "SELECT count(*) FROM {schema}.cache WHERE user_id = session_user::text AND {live}",
  load_begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
  load_incarnation = "SELECT {incarnation} FROM {schema}.fpcache_state AS s CROSS JOIN {switch} AS t",
  load_declare = [[
DECLARE fpcache_keys NO SCROLL CURSOR FOR
SELECT c.namespace, c.key FROM {schema}.cache AS c
LEFT JOIN {schema}.fpcache_namespaces AS n ON n.user_id = session_user::text AND n.namespace = c.namespace
WHERE c.user_id = session_user::text AND {cLive} AND (n.cleared IS NULL OR c.version > n.cleared)]],
  load_fetch = "FETCH 5000 FROM fpcache_keys",
}
local FEED_PARTS = {
  live = PARTS.live, cLive = PARTS.cLive,
  seen = "coalesce(s.marker = 0 OR txid_visible_in_snapshot(s.marker, last.snapshot), true)",
  -- The switch is a part of it: what was kept before it was off is worth nothing when it is on again.
  incarnation = "s.incarnation || ':' || coalesce(t.since, 'off')",
  halfSlots = "(extract(epoch FROM clock_timestamp())::bigint / 10)", -- see schema/m011_feed_quick.lua
}

local statements = {}

--- The SQL of the feed's reader for one schema.
---@param quoted_schema string
---@return table<string, string>
function statements.feed(quoted_schema)
  local places, made = schema.places(quoted_schema), {}
  for name, part in pairs(FEED_PARTS) do places[name] = part end
  for name, template in pairs(FEED) do made[name] = sql.fill(template, places) end
  made.session_listening = made.session .. ";\n" .. made.listen
  return made
end

--- The statements for one schema.
---@param quoted_schema string
---@param tells boolean whether changes write the feed; if not, the table's triggers do while the feed is switched on
---@param versioned boolean? whether namespaces may be cleared at once
---@param wakes boolean? whether what tells the feed also wakes readers that listen
---@return table<string, userdata>
function statements.new(quoted_schema, tells, versioned, wakes)
  local places = schema.places(quoted_schema)
  places.cache = quoted_schema .. (tells and ".fpcache_entries" or ".cache")
  for name, part in pairs(PARTS) do places[name] = part end -- a part holds no places itself
  if versioned then
    for name, part in pairs(VERSIONED) do places[name] = sql.fill(part, { schema = quoted_schema }) end
  end
  places.wake = wakes and sql.fill(WAKE, { name = sql.quote_literal(quoted_schema) }) or ""
  for name, row in pairs(TELLS) do
    places[name] = tells and sql.fill(TELL, { schema = quoted_schema, row = row, wake = places.wake }) or ""
  end
  places.tellGone = tells and sql.fill(TELL_GONE, places) or ""
  places.tellTried = tells and sql.fill(TELL_TRIED, places) or ""
  local made = {}
  local function make(name)
    if made[name] then return made[name] end
    local template = TEMPLATES[name]
    local text = sql.fill(template[1], places)
    text = text:gsub("%)\nWITH ", "), ") -- a statement has one WITH
    local many = template.many and make(template.many)
    made[name] = core.statement(text, template[2], template[3] or false, template.slow or false, many, many and 2)
    return made[name]
  end
  for name in pairs(TEMPLATES) do make(name) end
  return made
end

return statements

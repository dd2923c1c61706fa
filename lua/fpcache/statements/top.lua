--- What `fpcache top`, `slowlog` and `monitor` ask the server.  {schema} is filled in; $1 is the schema's name where told.
return {
  -- $1: the schema
  server = [[
SELECT current_setting('server_version') AS version, current_database()::text AS database, session_user::text AS login,
       extract(epoch FROM clock_timestamp())::float8 AS at,
       extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS up_s,
       current_setting('max_connections')::int AS connections_max,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fpcache'
                                               AND datname = current_database()) AS clients,
       (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'fpcache feed'
                                               AND datname = current_database()) AS readers,
       c.relpersistence = 'u' AS unlogged, pg_total_relation_size(c.oid) AS bytes,
       greatest(c.reltuples::bigint, s.n_live_tup, 0) AS rows, s.n_dead_tup AS dead, s.n_tup_ins AS inserts,
       s.n_tup_upd AS updates, s.n_tup_hot_upd AS hot_updates, s.n_tup_del AS deletes, s.idx_scan AS lookups,
       io.heap_blks_hit AS blocks_hit, io.heap_blks_read AS blocks_read
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.oid LEFT JOIN pg_statio_user_tables AS io ON io.relid = c.oid
WHERE n.nspname = $1 AND c.relname IN ('cache', 'fpcache_entries') AND c.relkind = 'r']],

  -- Rows that quotas cost since the table was made, of all users.
  evicted = "SELECT coalesce(sum(total), 0)::bigint AS total FROM {schema}.fpcache_evicted",

  -- $1: per cent of the pages.  Of the rows that this login may see.
  namespaces = [[
SELECT namespace, count(*) AS entries, sum(octet_length(value) + octet_length(key))::bigint AS bytes
FROM {schema}.cache TABLESAMPLE SYSTEM ($1::float4) WHERE expires_at > statement_timestamp()
GROUP BY namespace ORDER BY bytes DESC LIMIT 8]],

  -- Whether the extension is here, and to be read.
  has_statements = [[
SELECT quote_ident(n.nspname) AS schema, current_setting('server_version_num')::int AS number
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname = 'pg_stat_statements']],
  -- {statements} is the extension's schema; $1 what the statements of this cache hold.  Setup's are left out.
  statements = [[
SELECT s.query AS text, s.calls, {mean} / 1000 AS mean_s, {max} / 1000 AS max_s, s.rows,
       pg_get_userbyid(s.userid)::text AS login
FROM {statements}.pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
WHERE d.datname = current_database() AND strpos(s.query, $1) > 0 AND s.query ~ '^\s*(WITH|SELECT|INSERT|UPDATE|DELETE)'
ORDER BY {mean} DESC LIMIT 50]],

  -- {statements}, $1 as above: all that this login's statements took, in seconds.
  statements_total = [[
SELECT coalesce(sum(s.calls), 0)::bigint AS calls, coalesce(sum({total}), 0)::float8 / 1000 AS seconds
FROM {statements}.pg_stat_statements AS s JOIN pg_database AS d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.userid = session_user::regrole AND strpos(s.query, $1) > 0]],

  -- The changes since a snapshot, one row for each key, at least one row; as the feed's reader asks (see statements.lua).
  -- What became of a key is looked up now.  $1: the last snapshot, NULL at first; $2: a user or NULL; $3: a namespace or NULL.
  monitor = [[
SELECT txid_current_snapshot()::text AS snapshot, s.incarnation, t.is_on AND NOT pg_is_in_recovery() AS is_on, f.user_id AS login,
       f.namespace, f.xid IS NOT NULL AS is_change, f.keys IS NULL AS is_all, k.key IS NOT NULL AS has_key,
       {schema}.fpcache_text(coalesce(c.long_key, k.key)) AS key, c.key IS NOT NULL AS is_there, c.bytes, c.ttl,
       NOT coalesce(s.marker = 0 OR txid_visible_in_snapshot(s.marker, last.snapshot), true) AS fell_behind
FROM (SELECT $1::txid_snapshot AS snapshot) AS last
CROSS JOIN {switch} AS t
LEFT JOIN {schema}.fpcache_state AS s ON true
LEFT JOIN {schema}.fpcache_feed AS f
       ON f.xid >= (SELECT txid_snapshot_xmin($1::txid_snapshot))
      AND NOT txid_visible_in_snapshot(f.xid, (SELECT $1::txid_snapshot))
      AND ($2::text IS NULL OR f.user_id = $2::text)
      AND ($3::text IS NULL OR f.namespace = $3::text OR f.namespace IS NULL)
LEFT JOIN LATERAL unnest(f.keys) AS k (key) ON true
LEFT JOIN LATERAL (
    SELECT key, long_key, octet_length(value) AS bytes,
           CASE WHEN expires_at = 'infinity' THEN -1
                ELSE extract(epoch FROM expires_at - statement_timestamp()) END::float8 AS ttl
    FROM {schema}.cache WHERE user_id = f.user_id AND namespace = f.namespace AND key = k.key
                          AND expires_at > statement_timestamp() LIMIT 1) AS c ON true
ORDER BY f.xid]],
}

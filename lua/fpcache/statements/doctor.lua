--- What `fpcache doctor` asks.  Everything a plain user of the cache may read; $1 is the schema, except where told.  Tables
-- are looked up in pg_class: to_regclass() fails in a schema that one may not use.
return {
  server = [[
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
       pg_is_in_recovery() AS is_standby, extract(epoch FROM clock_timestamp())::float8 AS clock,
       extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS up_s,
       current_setting('autovacuum') = 'on' AS autovacuum,
       (SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers') AS buffer_bytes,
       current_setting('max_connections')::int AS connections_max,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
       session_user::text AS login, current_database()::text AS database,
       (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = session_user) AS unbound,
       EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = 'cache') AS has_table,
       EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = 'fpcache_schema') AS has_versions]],

  -- The rights of this login; each is asked for by name, so that the answer can name it.
  rights = [[
SELECT coalesce(string_agg(object || ' ' || privilege, ', ' ORDER BY object), '') AS missing
FROM unnest(ARRAY['cache', 'cache', 'cache', 'cache', 'fpcache_feed', 'fpcache_feed', 'fpcache_state', 'fpcache_schema'],
            ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'SELECT', 'INSERT', 'SELECT', 'SELECT']) AS need (object, privilege)
WHERE NOT coalesce((SELECT CASE object WHEN 'fpcache_feed' THEN has_any_column_privilege(c.oid, privilege)
                                       ELSE has_table_privilege(c.oid, privilege) END
                    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                    WHERE n.nspname = $1 AND c.relname = object), false)]],
  -- Who may write the entries by themselves, and who the feed in others' names: setup grants two columns of it.
  tellers = [[
SELECT coalesce((SELECT bool_and(has_table_privilege(c.oid, privilege)) FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'])
                 AS p (privilege), pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE n.nspname = $1 AND c.relname = 'fpcache_entries'), true) AS may_tell,
       (SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END, ', ')
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace CROSS JOIN LATERAL (
            SELECT * FROM aclexplode(c.relacl) UNION ALL
            SELECT e.* FROM pg_attribute AS t CROSS JOIN LATERAL aclexplode(t.attacl) AS e
            WHERE t.attrelid = c.oid AND t.attname NOT IN ('namespace', 'keys')) AS a
        WHERE n.nspname = $1 AND c.relname = 'fpcache_feed' AND a.privilege_type = 'INSERT'
          AND a.grantee <> c.relowner) AS forgers]],
  uses_schema = "SELECT has_schema_privilege(oid, 'USAGE') AS usage FROM pg_namespace WHERE nspname = $1",

  table_ = [[
SELECT c.relpersistence = 'u' AS unlogged,
       (SELECT bool_and(t.relrowsecurity AND t.relforcerowsecurity) FROM pg_class AS t
        WHERE t.relnamespace = n.oid AND t.relname IN ('cache', 'fpcache_entries')) AS isolated,
       pg_get_userbyid(c.relowner)::text AS owner, pg_relation_size(c.oid) AS heap_bytes,
       pg_total_relation_size(c.oid) AS bytes,
       greatest(c.reltuples::bigint, s.n_live_tup, 0) AS rows, s.n_dead_tup AS dead,
       s.n_tup_upd AS updates, s.n_tup_hot_upd AS hot_updates,
       coalesce('autovacuum_enabled=false' = ANY (c.reloptions) OR 'autovacuum_enabled=off' = ANY (c.reloptions),
                false) AS autovacuum_off
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace LEFT JOIN pg_stat_user_tables AS s ON s.relid = c.oid
WHERE n.nspname = $1 AND c.relname IN ('cache', 'fpcache_entries') AND c.relkind = 'r']],

  -- {schema} is filled in: no user data, and rows cannot be asked for by a parameter.
  versions = "SELECT coalesce(max(version), 0) AS version FROM {schema}.fpcache_schema",
  feed = [[
SELECT (SELECT count(*) FROM {schema}.fpcache_state) AS states,
       (SELECT CASE WHEN slot >= 0 THEN greatest(extract(epoch FROM clock_timestamp())::bigint - 20 * slot, 0) END
        FROM {schema}.fpcache_state) AS rotated_ago, -- seconds; a slot has 20
       (SELECT sum(pg_total_relation_size(({slots} || n)::regclass)) FROM generate_series(0, 2) AS n)::bigint AS bytes]],
  -- $1: per cent of the pages
  expired = [[
SELECT count(*) AS seen, count(*) FILTER (WHERE expires_at <= statement_timestamp()) AS expired
FROM {schema}.cache TABLESAMPLE SYSTEM ($1::float4)]],
  backend = "SELECT pg_backend_pid() AS pid",
}

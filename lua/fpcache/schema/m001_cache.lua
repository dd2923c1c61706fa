--- Migration 1: the table, its isolation, the sweeper, and the six functions of the Python library.
--
-- Places: {schema} the quoted schema, {relation} the table's name as a literal, {table} CREATE UNLOGGED TABLE or
-- CREATE TABLE, {body} a dollar quote, {format} the schema inside E'...', a template of format().
--
-- Columns of fixed width come first: no padding, and the server finds them without walking the row.
-- Fillfactor 90 and no index beside the primary key keep updates heap-only (HOT), so that overwriting does not
-- bloat; `expires_at` has none for that reason, and the sweeper walks the pages instead.
local sql = [==[
{table} {schema}.cache (
    expires_at timestamptz NOT NULL DEFAULT 'infinity',
    version    bigint NOT NULL DEFAULT 0,       -- microseconds of the last write, growing with each
    format     "char" NOT NULL DEFAULT 't',     -- how to read value: see docs/sql.md
    user_id    text COLLATE "C" NOT NULL DEFAULT session_user,
    namespace  text COLLATE "C" NOT NULL DEFAULT '',
    key        bytea NOT NULL,                  -- up to 1,024 bytes; longer: these and their SHA-256
    long_key   bytea,                           -- the whole key where it is longer
    value      bytea NOT NULL,
    PRIMARY KEY (user_id, namespace, key)
) WITH (fillfactor = 90,
        autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.1,
        toast.autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_cost_delay = 0);

COMMENT ON TABLE {schema}.cache IS 'fpcache: a shared cache. Rows belong to the role that logged in.';

-- Big values: lz4 where this server has it, for a tenth of the time of pglz.
DO {body}
BEGIN
    EXECUTE format(E'ALTER TABLE {format}.cache ALTER COLUMN value SET COMPRESSION lz4');  -- which older ones cannot parse
EXCEPTION WHEN syntax_error OR feature_not_supported OR invalid_parameter_value THEN
    NULL;  -- before PostgreSQL 14, or built without lz4
END {body};

-- Isolation is the server's: nobody reads or writes another login's rows, whatever he says.
ALTER TABLE {schema}.cache ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.cache FORCE ROW LEVEL SECURITY;
CREATE POLICY cache_own_rows ON {schema}.cache
    USING (user_id = session_user::text) WITH CHECK (user_id = session_user::text);
-- The owner, on whose behalf the sweeper runs, reaches everybody's expired rows and nothing else.
CREATE POLICY cache_expired_rows ON {schema}.cache TO CURRENT_USER
    USING (expires_at <= statement_timestamp()) WITH CHECK (false);

-- The form of a key in the primary key; the client does the same.
CREATE FUNCTION {schema}.fpcache_stored_key(raw bytea) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE STRICT AS {body}
BEGIN
    IF length(raw) <= 1024 THEN RETURN raw; END IF;
    RETURN substring(raw FROM 1 FOR 1024) || sha256(raw);
END {body};

-- Bytes as text for people: UTF-8 where it is, else with escapes.
CREATE FUNCTION {schema}.fpcache_text(raw bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS {body}
BEGIN
    RETURN convert_from(raw, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN encode(raw, 'escape');
END {body};

-- What is in the cache of the role that looks, for people and reports.
CREATE VIEW {schema}.valid_cache WITH (security_barrier) AS
SELECT user_id, namespace, {schema}.fpcache_text(coalesce(long_key, key)) AS key, format,
       {schema}.fpcache_text(value) AS value, octet_length(value) AS bytes, version, expires_at,
       CASE WHEN expires_at = 'infinity' THEN -1
            ELSE extract(epoch FROM expires_at - statement_timestamp()) END AS ttl_seconds
FROM {schema}.cache
WHERE user_id = session_user::text AND expires_at > statement_timestamp();

-- Deletes the expired rows of everybody in a slice of pages and says how many.  Rows that are being
-- written are passed over; the expiry is checked again once a row is locked.
CREATE FUNCTION {schema}.fpcache_sweep(first_page bigint, page_count integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    swept bigint;
BEGIN
    WITH expired AS (
        SELECT ctid FROM {schema}.cache
        WHERE ctid >= format('(%s,0)', first_page)::tid
          AND ctid < format('(%s,0)', first_page + page_count)::tid
          AND expires_at <= statement_timestamp()
        FOR UPDATE SKIP LOCKED)
    DELETE FROM {schema}.cache
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM expired)) AND expires_at <= statement_timestamp();
    GET DIAGNOSTICS swept = ROW_COUNT;
    RETURN swept;
END {body};

-- The Python library's functions: same names, arguments and meaning, on the same rows.  Reading does
-- not write.  p_user_id must be the role that logged in; another name finds nothing and cannot be written.
CREATE FUNCTION {schema}.cache_set(p_user_id text, p_key text, p_value text, p_ttl_seconds integer DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql AS {body}
DECLARE
    raw bytea := convert_to(p_key, 'UTF8');
BEGIN
    INSERT INTO {schema}.cache AS c (user_id, key, long_key, value, format, version, expires_at)
    VALUES (p_user_id, {schema}.fpcache_stored_key(raw), CASE WHEN length(raw) > 1024 THEN raw END,
            convert_to(p_value, 'UTF8'), 't', (extract(epoch FROM statement_timestamp()) * 1000000)::bigint,
            coalesce(statement_timestamp() + p_ttl_seconds * interval '1 second', 'infinity'))
    ON CONFLICT (user_id, namespace, key) DO UPDATE
    SET value = excluded.value, format = excluded.format, expires_at = excluded.expires_at,
        version = greatest(c.version + 1, excluded.version);
    RETURN true;
END {body};

CREATE FUNCTION {schema}.cache_get(p_user_id text, p_key text) RETURNS text LANGUAGE plpgsql STABLE AS {body}
DECLARE
    found_value bytea;
BEGIN
    SELECT value INTO found_value FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = '' AND expires_at > statement_timestamp()
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8'));
    RETURN convert_from(found_value, 'UTF8');
END {body};

CREATE FUNCTION {schema}.cache_delete(p_user_id text, p_key text) RETURNS boolean LANGUAGE plpgsql AS {body}
BEGIN
    DELETE FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = '' AND expires_at > statement_timestamp()
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8'));
    RETURN FOUND;
END {body};

CREATE FUNCTION {schema}.cache_exists(p_user_id text, p_key text) RETURNS boolean LANGUAGE plpgsql STABLE AS {body}
BEGIN
    PERFORM 1 FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = '' AND expires_at > statement_timestamp()
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8'));
    RETURN FOUND;
END {body};

CREATE FUNCTION {schema}.cache_ttl(p_user_id text, p_key text) RETURNS integer LANGUAGE plpgsql STABLE AS {body}
DECLARE
    expiry timestamptz;
BEGIN
    SELECT expires_at INTO expiry FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = '' AND expires_at > statement_timestamp()
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8'));
    IF NOT FOUND THEN RETURN -2; END IF;
    IF expiry = 'infinity' THEN RETURN -1; END IF;
    RETURN ceil(extract(epoch FROM expiry - statement_timestamp()));  -- never 0 for a live key
END {body};

CREATE FUNCTION {schema}.cache_cleanup() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    pages bigint := pg_relation_size({relation}::regclass) / current_setting('block_size')::bigint;
    swept bigint := 0;
BEGIN
    FOR part IN 0 .. pages / 1000 LOOP
        swept := swept + {schema}.fpcache_sweep(part * 1000, 1000);
    END LOOP;
    RETURN swept;
END {body};

-- Functions that act for the owner are for those only to whom setup grants them.
REVOKE EXECUTE ON FUNCTION {schema}.fpcache_sweep(bigint, integer) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION {schema}.cache_cleanup() FROM PUBLIC;
]==]

return { version = 1, name = "cache table, row isolation, sweeper, Python functions", sql = sql }

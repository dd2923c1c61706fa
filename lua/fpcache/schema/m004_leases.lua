--- Migration 4: what `fetch` notes beside an entry, and leases: who loads a key.
--
-- Places as in migration 1.
--
-- The columns are those of the row itself, empty for who never calls fetch, so a read of an entry reads them for nothing,
-- row-level security holds for them, and whatever removes the row (delete, clear, TRUNCATE, a crash, a watch) removes
-- the lease with it.  They speak of the version that `noted_version` names: a write that knows nothing of them makes another
-- version and so voids
-- them, whoever it is.  `expires_at` stays what everybody else goes by: a stale entry, a mark of absence (format 'a') and
-- a row that only carries a lease have expired for all but fetch.
local sql = [==[
ALTER TABLE {schema}.cache
    ADD COLUMN noted_version bigint,
    ADD COLUMN stale_until   timestamptz,       -- until then fetch may give the value as stale, or the absence as known
    ADD COLUMN lease_holder  bigint,            -- drawn for each lease; 0: loading failed, nobody shall try before lease_until
    ADD COLUMN lease_until   timestamptz,
    ADD COLUMN load_seconds  double precision,  -- what loading the value cost
    ADD COLUMN validator     bytea;             -- of the value, for "not modified"

-- The lease of a key for who wants to load it: true when granted.  `p_version`: the version of the living entry that is to be
-- loaded before it expires; NULL: only one that has expired, or is not there.
CREATE FUNCTION {schema}.fpcache_claim(p_namespace text, p_key bytea, p_long_key bytea, p_holder bigint, p_seconds float8,
                                       p_version bigint)
RETURNS boolean LANGUAGE plpgsql AS {body}
BEGIN
    INSERT INTO {schema}.cache AS c (namespace, key, long_key, value, format, version, expires_at,
                                     noted_version, lease_holder, lease_until)
    VALUES (p_namespace, p_key, p_long_key, '', 'a', (extract(epoch FROM statement_timestamp()) * 1000000)::bigint, '-infinity',
            (extract(epoch FROM statement_timestamp()) * 1000000)::bigint, p_holder,
            statement_timestamp() + p_seconds * interval '1 second')
    ON CONFLICT (user_id, namespace, key) DO UPDATE
    SET noted_version = c.version, lease_holder = excluded.lease_holder, lease_until = excluded.lease_until,
        stale_until  = CASE WHEN c.noted_version = c.version THEN c.stale_until END,
        load_seconds = CASE WHEN c.noted_version = c.version THEN c.load_seconds END,
        validator    = CASE WHEN c.noted_version = c.version THEN c.validator END
    WHERE (c.noted_version IS DISTINCT FROM c.version OR c.lease_until IS NULL OR c.lease_until <= statement_timestamp())
      AND CASE WHEN c.expires_at > statement_timestamp() THEN c.version = p_version
               ELSE c.format <> 'a' OR c.noted_version IS DISTINCT FROM c.version
                    OR c.stale_until IS NULL OR c.stale_until <= statement_timestamp() END;
    RETURN FOUND;
END {body};

-- What may still be of use to fetch is not swept.
ALTER POLICY cache_expired_rows ON {schema}.cache
    USING (greatest(expires_at, stale_until, lease_until) <= statement_timestamp());

CREATE OR REPLACE FUNCTION {schema}.fpcache_sweep(first_page bigint, page_count integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    swept bigint;
BEGIN
    WITH expired AS (
        SELECT ctid FROM {schema}.cache
        WHERE ctid >= format('(%s,0)', first_page)::tid
          AND ctid < format('(%s,0)', first_page + page_count)::tid
          AND greatest(expires_at, stale_until, lease_until) <= statement_timestamp()
        FOR UPDATE SKIP LOCKED)
    DELETE FROM {schema}.cache
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM expired))
      AND greatest(expires_at, stale_until, lease_until) <= statement_timestamp();
    GET DIAGNOSTICS swept = ROW_COUNT;
    RETURN swept;
END {body};

-- As before, but a delete also forgets what is stale and ends the lease of who loads the old value.
CREATE OR REPLACE FUNCTION {schema}.cache_delete(p_user_id text, p_key text) RETURNS boolean LANGUAGE plpgsql AS {body}
DECLARE
    lived boolean;
BEGIN
    DELETE FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = ''
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8'))
    RETURNING expires_at > statement_timestamp() INTO lived;
    RETURN coalesce(lived, false);
END {body};
]==]

return { version = 4, name = "leases and stale entries", sql = sql }

--- Migration 10: namespaces that are cleared at once, and what fetch asks on a miss.
--
-- Places as in migration 1.
--
-- `fpcache_namespaces` tells up to which version the rows of a namespace count for nothing.  One row is written to clear any
-- number of them; a write after it has a greater version and so is there, whether its writer has heard of it or not.  The
-- sweeper takes the rows away.  The table is of the kind of the cache, so a crash empties both.
--
-- A hit of fetch is the plain read of a row.  Everything else is asked by fpcache_missed(), which a hit does not call: so what
-- it takes to grant a lease costs those who need none nothing.
local CLEARED = "coalesce((SELECT n.cleared FROM {schema}.fpcache_namespaces AS n "
  .. "WHERE n.user_id = %s AND n.namespace = %s), 0)"

-- Also for a later migration: {create} is how, {claim} what grants the lease.
local MISSED = [==[
-- What fetch is told of a key that has no living entry, or one that is to be loaded before it expires: `p_share` of its whole
-- life is left, or less, or so little that `p_times` its cost of loading would not fit.  `p_seconds`: of the lease that is
-- wanted.  The answer begins with a line of words, `-` for none: format, seconds it lives (-1: no end), seconds it may still be
-- given as stale or absent, its age, cost of loading, granted? (none: a hit), the lease's fence, the validator in
-- hexadecimal.  The value follows, where it may be given.
{create} FUNCTION {schema}.fpcache_missed(p_namespace text, p_key bytea, p_long_key bytea, p_seconds float8,
                                        p_share float8, p_times float8, p_tags bytea[])
RETURNS bytea LANGUAGE plpgsql AS {body}
DECLARE
    cleared bigint := {clearedHere};
    fence   bigint := 1 + (random() * 9e15)::bigint;
    entry   record;
    granted boolean;
BEGIN
    SELECT c.value, c.format, c.version, x.*,
           CASE WHEN x.is_fresh AND c.expires_at <> 'infinity'
                THEN coalesce(x.life <= p_share * (x.life + x.age), false)
                     OR coalesce(x.life <= p_times * x.cost, false) ELSE false END AS is_early INTO entry
    FROM {schema}.cache AS c CROSS JOIN LATERAL (
        SELECT c.expires_at > statement_timestamp() AS is_fresh,
               CASE WHEN c.expires_at = 'infinity' THEN -1 WHEN c.expires_at > statement_timestamp()
                    THEN date_part('epoch', c.expires_at - statement_timestamp()) END AS life,
               (date_part('epoch', statement_timestamp()) - c.version / 1000000.0)::float8 AS age,
               c.noted_version = c.version AND c.lease_until > statement_timestamp() AS is_leased,
               CASE WHEN c.noted_version = c.version AND c.stale_until > statement_timestamp()
                    THEN date_part('epoch', c.stale_until - statement_timestamp()) END AS kept,
               CASE WHEN c.noted_version = c.version THEN c.load_seconds END AS cost,
               CASE WHEN c.noted_version = c.version THEN c.validator END AS validator) AS x
    WHERE c.user_id = session_user::text AND c.namespace = p_namespace AND c.key = p_key AND c.version > cleared;
    IF FOUND AND (entry.is_fresh AND NOT entry.is_early OR entry.format = 'a' AND entry.kept IS NOT NULL) THEN
        granted := NULL;
    ELSIF p_seconds IS NULL OR entry.is_leased THEN
        granted := false;
    ELSE
{claim}
    END IF;
    RETURN convert_to(concat_ws(' ', coalesce(entry.format, '-'), coalesce(entry.life::text, '-'),
                                coalesce(entry.kept::text, '-'), coalesce(entry.age::text, '-'),
                                coalesce(entry.cost::text, '-'), coalesce(granted::text, '-'), fence,
                                coalesce(encode(entry.validator, 'hex'), '-')) || chr(10), 'UTF8')
           || CASE WHEN entry.is_fresh OR entry.kept IS NOT NULL THEN entry.value ELSE '' END;
END {body};
]==]

local CLAIM = [==[
        granted := {schema}.fpcache_claim(p_namespace, p_key, p_long_key, fence, p_seconds,
                                          CASE WHEN entry.is_fresh THEN entry.version END, p_tags);]==]

local function missed(create, claim)
  return (MISSED:gsub("{create}", create):gsub("{claim}", function() return claim end)
    :gsub("{clearedHere}", (CLEARED:format("session_user::text", "p_namespace"))))
end

local sql = [==[
{table} {schema}.fpcache_namespaces (
    user_id   text COLLATE "C" NOT NULL DEFAULT session_user,
    namespace text COLLATE "C" NOT NULL,
    cleared   bigint NOT NULL,  -- rows of this version and older are not there
    PRIMARY KEY (user_id, namespace)
);
ALTER TABLE {schema}.fpcache_namespaces ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_namespaces FORCE ROW LEVEL SECURITY;
CREATE POLICY fpcache_namespaces_own ON {schema}.fpcache_namespaces
    USING (user_id = session_user::text) WITH CHECK (user_id = session_user::text);
CREATE POLICY fpcache_namespaces_kept ON {schema}.fpcache_namespaces FOR SELECT TO CURRENT_USER
    USING (current_setting('fpcache.keeps', true) = 'on');

-- The lease of a key for who wants to load it: true when granted.  `p_version`: the version of the living entry that is to be
-- loaded before it expires; NULL: only one that has expired, or is not there.  `p_tags`: what the value will have, so that
-- invalidating one of them ends the lease.  An older value that may still be given keeps its own.
DROP FUNCTION {schema}.fpcache_claim(text, bytea, bytea, bigint, float8, bigint);
CREATE FUNCTION {schema}.fpcache_claim(p_namespace text, p_key bytea, p_long_key bytea, p_holder bigint, p_seconds float8,
                                       p_version bigint, p_tags bytea[])
RETURNS boolean LANGUAGE plpgsql AS {body}
DECLARE
    cleared bigint := {clearedHere};
    now_us  bigint := greatest((extract(epoch FROM statement_timestamp()) * 1000000)::bigint, cleared + 1);
BEGIN
    IF cleared > 0 THEN
        DELETE FROM {schema}.cache AS c
        WHERE c.user_id = session_user::text AND c.namespace = p_namespace AND c.key = p_key AND c.version <= cleared;
    END IF;
    INSERT INTO {schema}.cache AS c (namespace, key, long_key, value, format, version, expires_at,
                                     noted_version, lease_holder, lease_until, tags)
    VALUES (p_namespace, p_key, p_long_key, '', 'a', now_us, '-infinity', now_us, p_holder,
            statement_timestamp() + p_seconds * interval '1 second', p_tags)
    ON CONFLICT (user_id, namespace, key) DO UPDATE
    SET noted_version = c.version, lease_holder = excluded.lease_holder, lease_until = excluded.lease_until,
        stale_until  = CASE WHEN c.noted_version = c.version THEN c.stale_until END,
        load_seconds = CASE WHEN c.noted_version = c.version THEN c.load_seconds END,
        validator    = CASE WHEN c.noted_version = c.version THEN c.validator END,
        tags = CASE WHEN c.format <> 'a' AND (c.expires_at > statement_timestamp() OR c.noted_version = c.version
                          AND c.stale_until > statement_timestamp()) THEN c.tags ELSE excluded.tags END
    WHERE (c.noted_version IS DISTINCT FROM c.version OR c.lease_until IS NULL OR c.lease_until <= statement_timestamp())
      AND CASE WHEN c.expires_at > statement_timestamp() THEN c.version = p_version
               ELSE c.format <> 'a' OR c.noted_version IS DISTINCT FROM c.version
                    OR c.stale_until IS NULL OR c.stale_until <= statement_timestamp() END;
    IF NOT FOUND THEN RETURN false; END IF;
    IF p_tags IS NOT NULL THEN
        INSERT INTO {schema}.fpcache_tags AS i (namespace, tag, key)
        SELECT p_namespace, t.tag, p_key FROM unnest(p_tags) AS t (tag)
        ON CONFLICT (user_id, namespace, tag, key) DO UPDATE SET key = excluded.key WHERE false;
    END IF;
    RETURN true;
END {body};

{missed}

-- As before, and what belongs to a namespace as it was before it was cleared is swept too.
CREATE OR REPLACE FUNCTION {schema}.fpcache_sweep(first_page bigint, page_count integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    told  text := coalesce(current_setting('fpcache.tells', true), '');
    swept bigint;
    more  bigint;
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
    PERFORM set_config('fpcache.keeps', 'on', true);
    IF EXISTS (SELECT 1 FROM {schema}.fpcache_namespaces) THEN
        PERFORM set_config('fpcache.tells', 'on', true);  -- that they are gone was told when the namespace was cleared
        WITH cleared AS (
            SELECT c.ctid FROM {schema}.cache AS c
            JOIN {schema}.fpcache_namespaces AS n ON n.user_id = c.user_id AND n.namespace = c.namespace
            WHERE c.ctid >= format('(%s,0)', first_page)::tid AND c.ctid < format('(%s,0)', first_page + page_count)::tid
              AND c.version <= n.cleared
            FOR UPDATE OF c SKIP LOCKED)
        DELETE FROM {schema}.cache AS c USING {schema}.fpcache_namespaces AS n
        WHERE c.ctid = ANY (ARRAY(SELECT cleared.ctid FROM cleared))
          AND n.user_id = c.user_id AND n.namespace = c.namespace AND c.version <= n.cleared;
        GET DIAGNOSTICS more = ROW_COUNT;
        swept := swept + more;
        PERFORM set_config('fpcache.tells', told, true);
    END IF;
    PERFORM set_config('fpcache.keeps', '', true);
    RETURN swept;
END {body};

-- As before, of what was not cleared.
CREATE OR REPLACE FUNCTION {schema}.cache_get(p_user_id text, p_key text) RETURNS text LANGUAGE plpgsql STABLE AS {body}
DECLARE
    found_value  bytea;
    found_format "char";
BEGIN
    SELECT value, format INTO found_value, found_format FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = '' AND expires_at > statement_timestamp()
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8')) AND version > {clearedPlain};
    IF found_format IN ('z', 'e') THEN
        RAISE EXCEPTION 'fpcache: this value is %, only fpcache can read it',
              CASE found_format WHEN 'z' THEN 'compressed' ELSE 'encrypted' END USING ERRCODE = 'feature_not_supported';
    END IF;
    RETURN convert_from(found_value, 'UTF8');
END {body};

CREATE OR REPLACE FUNCTION {schema}.cache_delete(p_user_id text, p_key text) RETURNS boolean LANGUAGE plpgsql AS {body}
DECLARE
    lived boolean;
BEGIN
    DELETE FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = ''
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8'))
    RETURNING expires_at > statement_timestamp() AND version > {clearedPlain} INTO lived;
    RETURN coalesce(lived, false);
END {body};

CREATE OR REPLACE FUNCTION {schema}.cache_exists(p_user_id text, p_key text) RETURNS boolean LANGUAGE plpgsql STABLE AS {body}
BEGIN
    PERFORM 1 FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = '' AND expires_at > statement_timestamp()
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8')) AND version > {clearedPlain};
    RETURN FOUND;
END {body};

CREATE OR REPLACE FUNCTION {schema}.cache_ttl(p_user_id text, p_key text) RETURNS integer LANGUAGE plpgsql STABLE AS {body}
DECLARE
    expiry timestamptz;
BEGIN
    SELECT expires_at INTO expiry FROM {schema}.cache
    WHERE user_id = p_user_id AND namespace = '' AND expires_at > statement_timestamp()
      AND key = {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8')) AND version > {clearedPlain};
    IF NOT FOUND THEN RETURN -2; END IF;
    IF expiry = 'infinity' THEN RETURN -1; END IF;
    RETURN ceil(extract(epoch FROM expiry - statement_timestamp()));  -- never 0 for a live key
END {body};

CREATE OR REPLACE VIEW {schema}.valid_cache WITH (security_barrier) AS
SELECT user_id, namespace, {schema}.fpcache_text(coalesce(long_key, key)) AS key, format,
       CASE WHEN format NOT IN ('z', 'e') THEN {schema}.fpcache_text(value) END AS value,
       octet_length(value) AS bytes, version, expires_at,
       CASE WHEN expires_at = 'infinity' THEN -1
            ELSE extract(epoch FROM expires_at - statement_timestamp()) END AS ttl_seconds
FROM {schema}.cache
WHERE user_id = session_user::text AND expires_at > statement_timestamp()
  AND version > coalesce((SELECT n.cleared FROM {schema}.fpcache_namespaces AS n
                          WHERE n.user_id = session_user::text AND n.namespace = cache.namespace), 0);
]==]

sql = sql:gsub("{missed}", function() return missed("CREATE", CLAIM) end)
  :gsub("{clearedHere}", (CLEARED:format("session_user::text", "p_namespace")))
  :gsub("{clearedPlain}", (CLEARED:format("p_user_id", "''")))

return { version = 10, name = "namespaces cleared at once, leases with tags", sql = sql, missed = missed, claim = CLAIM }

--- Migration 6: quotas, and the eviction of what was not used for longest.
--
-- Places as in migration 1, and {procedure} a second dollar quote around a body that has {body}.
--
-- Nothing is counted and nothing is written by reads.  What there is is estimated from a sample of pages; a row's last use is
-- the later of its last write (`version`) and its last sampled touch (`touched`), which clients write for few of their hits.
-- Of a user (or the table) beyond his quota, the age is found in the sample beyond which his rows are too many, and rows of that
-- age are deleted, a slice of pages at a time.
-- Also for a later migration: {create} is how, {counted} which rows count.
local USAGE = [==[
{create} FUNCTION {schema}.fpcache_usage(p_pages integer DEFAULT 2000)
RETURNS TABLE (user_id text, max_entries bigint, max_bytes bigint, entries bigint, bytes bigint, excess bigint, before bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    pages  bigint := pg_relation_size({relation}::regclass) / current_setting('block_size')::bigint;
    share  double precision := least(1, p_pages / greatest(pages, 1)::double precision);
    quota  record;
    seen   bigint;
    uses   bigint[];
    weight double precision;
    over   double precision;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM {schema}.fpcache_quotas) THEN RETURN; END IF;
    PERFORM set_config('fpcache.keeps', 'on', true);
    FOR quota IN
        SELECT q.user_id, q.max_entries, q.max_bytes, coalesce(s.rows, 0) AS rows, coalesce(s.size, 0) AS size, s.uses
        FROM {schema}.fpcache_quotas AS q LEFT JOIN (
            SELECT coalesce(c.user_id, '') AS user_id, count(*) AS rows,
                   sum(octet_length(c.key) + octet_length(c.value) + coalesce(octet_length(c.long_key), 0) + 140) AS size,
                   array_agg(greatest(c.version, c.touched) ORDER BY greatest(c.version, c.touched)) AS uses
            FROM {schema}.cache AS c TABLESAMPLE SYSTEM (share * 100) WHERE {counted}
            GROUP BY GROUPING SETS ((c.user_id), ())) AS s ON s.user_id = q.user_id
    LOOP
        user_id := quota.user_id; max_entries := quota.max_entries; max_bytes := quota.max_bytes;
        seen := quota.rows; bytes := quota.size; uses := quota.uses; weight := 1 / share;
        IF share < 1 AND seen < 100 AND user_id <> '' THEN
            SELECT count(*),
                   coalesce(sum(octet_length(c.key) + octet_length(c.value) + coalesce(octet_length(c.long_key), 0) + 140), 0),
                   array_agg(greatest(c.version, c.touched) ORDER BY greatest(c.version, c.touched))
            INTO seen, bytes, uses FROM {schema}.cache AS c
            WHERE c.user_id = quota.user_id AND {counted};
            weight := 1;
        END IF;
        entries := round(seen * weight); bytes := round(bytes * weight); excess := 0; before := NULL;
        over := 0;  -- share of his rows to go
        IF entries > max_entries THEN over := 1 - max_entries * 0.95 / entries; END IF;
        IF bytes > max_bytes THEN over := greatest(over, 1 - max_bytes * 0.95 / bytes); END IF;
        IF over > 0 THEN
            excess := ceil(entries * over);
            before := uses[least(ceil(seen * over), seen)::integer];
        END IF;
        RETURN NEXT;
    END LOOP;
    PERFORM set_config('fpcache.keeps', '', true);
END {body};]==]

local function usage(create, counted)
  return (USAGE:gsub("{create}", create):gsub("{counted}", counted))
end

local sql = [==[
ALTER TABLE {schema}.cache ADD COLUMN touched bigint;  -- microseconds since 1970 of a sampled use; NULL: none

-- Logged, unlike the cache: it is no cache.
CREATE TABLE {schema}.fpcache_quotas (
    user_id     text COLLATE "C" PRIMARY KEY,  -- '': all users together
    max_entries bigint CHECK (max_entries >= 0),
    max_bytes   bigint CHECK (max_bytes >= 0),
    CHECK (max_entries IS NOT NULL OR max_bytes IS NOT NULL)
);

-- When a pass over the table last began: many may offer to do it, one does.
CREATE TABLE {schema}.fpcache_passes (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    began  timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO {schema}.fpcache_passes DEFAULT VALUES;

-- Whether the caller is to begin a pass: nobody is at one just now, and the last began `every` ago.
CREATE FUNCTION {schema}.fpcache_begin_pass(every interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
BEGIN
    IF NOT pg_try_advisory_xact_lock(1668505709, {relation}::regclass::oid::integer) THEN RETURN false; END IF;
    UPDATE {schema}.fpcache_passes SET began = clock_timestamp() WHERE began <= clock_timestamp() - every;
    RETURN FOUND;
END {body};

-- What each user with a quota uses, by a sample of at most p_pages pages; where that shows too few of his rows, by counting
-- those.
-- `excess`: rows to evict, down to 95 % of the quota; those last used up to `before` are about so many.
{usage}

-- What is to be evicted, so that who does it need not be told, and cannot be asked for more.
{table} {schema}.fpcache_evictions (
    user_id text COLLATE "C" PRIMARY KEY,
    before  bigint NOT NULL,
    excess  bigint NOT NULL
);

-- Finds out what is to be evicted; says how many rows.
CREATE FUNCTION {schema}.fpcache_plan_evictions() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
BEGIN
    DELETE FROM {schema}.fpcache_evictions;
    INSERT INTO {schema}.fpcache_evictions AS e (user_id, before, excess)
    SELECT u.user_id, u.before, u.excess FROM {schema}.fpcache_usage() AS u WHERE u.excess > 0
    ON CONFLICT (user_id) DO UPDATE SET before = excluded.before, excess = excluded.excess;
    RETURN (SELECT coalesce(sum(e.excess), 0) FROM {schema}.fpcache_evictions AS e);
END {body};

-- Evicts from a slice of pages what is to be evicted, and tells the feed.  Rows that are being written are passed over.  Says how
-- many it deleted.
CREATE FUNCTION {schema}.fpcache_evict(first_page bigint, page_count integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    told text := coalesce(current_setting('fpcache.tells', true), '');
    plan record;
    gone bigint;
    all_gone bigint := 0;
BEGIN
    PERFORM set_config('fpcache.keeps', 'on', true), set_config('fpcache.tells', 'on', true);
    FOR plan IN SELECT * FROM {schema}.fpcache_evictions AS e WHERE e.excess > 0 FOR UPDATE LOOP
        WITH old AS (
            SELECT c.ctid FROM {schema}.cache AS c
            WHERE c.ctid >= format('(%s,0)', first_page)::tid AND c.ctid < format('(%s,0)', first_page + page_count)::tid
              AND greatest(c.version, c.touched) <= plan.before AND (plan.user_id = '' OR c.user_id = plan.user_id)
            LIMIT plan.excess FOR UPDATE SKIP LOCKED),
        evicted AS (
            DELETE FROM {schema}.cache AS c WHERE c.ctid = ANY (ARRAY(SELECT old.ctid FROM old))
              AND greatest(c.version, c.touched) <= plan.before
            RETURNING c.user_id, c.namespace, c.key),
        told AS (
            INSERT INTO {schema}.fpcache_feed (user_id, namespace, keys)
            SELECT e.user_id, e.namespace, array_agg(e.key) FROM evicted AS e GROUP BY e.user_id, e.namespace)
        SELECT count(*) INTO gone FROM evicted;
        UPDATE {schema}.fpcache_evictions AS e SET excess = e.excess - gone WHERE gone > 0 AND e.user_id = plan.user_id;
        all_gone := all_gone + gone;
    END LOOP;
    PERFORM set_config('fpcache.keeps', '', true), set_config('fpcache.tells', told, true);
    RETURN all_gone;
END {body};

-- Everything a sweeper does, for pg_cron and psql: CALL it where no transaction is open, since it commits after each slice.
DO {procedure}
BEGIN
    IF current_setting('server_version_num')::integer < 110000 THEN RETURN; END IF;  -- no procedures
    EXECUTE {literal};
END {procedure};

REVOKE EXECUTE ON FUNCTION {schema}.fpcache_begin_pass(interval), {schema}.fpcache_usage(integer),
    {schema}.fpcache_plan_evictions(), {schema}.fpcache_evict(bigint, integer) FROM PUBLIC;
]==]

local PROCEDURE = [==[
CREATE PROCEDURE {schema}.fpcache_keep(every interval DEFAULT '0') LANGUAGE plpgsql AS {body}
DECLARE
    pages bigint;
    page  bigint;
    left_over bigint;
BEGIN
    IF NOT {schema}.fpcache_begin_pass(every) THEN RETURN; END IF;
    COMMIT;
    pages := pg_relation_size({relation}::regclass) / current_setting('block_size')::bigint;
    page := 0;
    WHILE page <= pages LOOP
        PERFORM {schema}.fpcache_sweep(page, 1000);
        COMMIT;
        page := page + 1000;
    END LOOP;
    left_over := {schema}.fpcache_plan_evictions();
    COMMIT;
    page := 0;
    WHILE page <= pages AND left_over > 0 LOOP
        left_over := left_over - {schema}.fpcache_evict(page, 1000);
        COMMIT;
        page := page + 1000;
    END LOOP;
    pages := pg_relation_size({tagsRelation}::regclass) / current_setting('block_size')::bigint;
    page := 0;
    WHILE page <= pages LOOP
        PERFORM {schema}.fpcache_sweep_tags(page, 1000);
        COMMIT;
        page := page + 1000;
    END LOOP;
END {body};
REVOKE EXECUTE ON PROCEDURE {schema}.fpcache_keep(interval) FROM PUBLIC]==]

sql = sql:gsub("{usage}", function() return usage("CREATE", "c.expires_at > statement_timestamp()") end)

return { version = 6, name = "quotas and eviction", sql = sql, procedure = PROCEDURE, usage = usage }

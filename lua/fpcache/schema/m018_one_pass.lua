--- Migration 18: one pass over the table at a time, however long it takes; quotas count all that a pass leaves.
--
-- Places as in migration 6.
--
-- A pass is many transactions, and behind a transaction pooler it has no session.  So what makes it one at a time is written
-- down: its number, and until when it is taken to be alive.  Each slice holds the advisory lock, looks whether the number is
-- still its own, and prolongs that time now and then.  A sweeper that dies holds the others up for so long, and no longer.
--
-- Stale values and remembered absences have expired for all but fetch, and are not swept before their time is over.  They
-- did not count, so that who asked for many keys that do not exist filled the table beyond any quota.
local quotas = require("fpcache.schema.m006_quota")

local KEPT = "greatest(c.expires_at, c.stale_until, c.lease_until) > statement_timestamp()"
local ALIVE = "interval '1 minute'" -- without a sign of life; a sweeper that rests for long gives one each 20 s

local sql = [==[
ALTER TABLE {schema}.fpcache_passes
    ADD COLUMN pass  bigint NOT NULL DEFAULT 0,  -- the number of the last one
    ADD COLUMN alive timestamptz NOT NULL DEFAULT '-infinity';  -- until then it may be under way

-- The number of the pass that the caller is to do; NULL: somebody is at one, or the last began less than `every` ago.
DROP FUNCTION {schema}.fpcache_begin_pass(interval);
CREATE FUNCTION {schema}.fpcache_begin_pass(every interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    mine bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1668505709, {relation}::regclass::oid::integer) THEN RETURN NULL; END IF;
    UPDATE {schema}.fpcache_passes AS p SET began = clock_timestamp(), pass = p.pass + 1, alive = clock_timestamp() + {alive}
    WHERE p.began <= clock_timestamp() - every AND p.alive <= clock_timestamp() RETURNING p.pass INTO mine;
    RETURN mine;
END {body};

-- Whether the pass may go on, with a slice in this transaction; not when it was silent for so long that another has begun.
CREATE FUNCTION {schema}.fpcache_go_on(p_pass bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    until_then timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(1668505709, {relation}::regclass::oid::integer);
    SELECT p.alive INTO until_then FROM {schema}.fpcache_passes AS p WHERE p.pass = p_pass;
    IF until_then < clock_timestamp() + {alive} * 0.75 THEN
        UPDATE {schema}.fpcache_passes AS p SET alive = clock_timestamp() + {alive} WHERE p.pass = p_pass;
    END IF;
    RETURN until_then IS NOT NULL;
END {body};

-- The pass is over: the next need not wait until it would be taken for dead.
CREATE FUNCTION {schema}.fpcache_end_pass(p_pass bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
    UPDATE {schema}.fpcache_passes SET alive = '-infinity' WHERE pass = p_pass
{body};

{usage}

DO {procedure}
BEGIN
    IF current_setting('server_version_num')::integer < 110000 THEN RETURN; END IF;  -- no procedures
    EXECUTE {literal};
END {procedure};

REVOKE EXECUTE ON FUNCTION {schema}.fpcache_begin_pass(interval), {schema}.fpcache_go_on(bigint),
    {schema}.fpcache_end_pass(bigint) FROM PUBLIC;
]==]

-- As before, a slice at a time, each after asking whether to go on.
local PROCEDURE = [==[
CREATE OR REPLACE PROCEDURE {schema}.fpcache_keep(every interval DEFAULT '0') LANGUAGE plpgsql AS {body}
DECLARE
    mine  bigint := {schema}.fpcache_begin_pass(every);
    pages bigint;
    page  bigint := 0;
    left_over bigint;
BEGIN
    IF mine IS NULL THEN RETURN; END IF;
    COMMIT;
    pages := pg_relation_size({relation}::regclass) / current_setting('block_size')::bigint;
    WHILE page <= pages LOOP
        IF NOT {schema}.fpcache_go_on(mine) THEN RETURN; END IF;
        PERFORM {schema}.fpcache_sweep(page, 1000);
        COMMIT;
        page := page + 1000;
    END LOOP;
    IF NOT {schema}.fpcache_go_on(mine) THEN RETURN; END IF;
    left_over := {schema}.fpcache_plan_evictions();
    COMMIT;
    page := 0;
    WHILE page <= pages AND left_over > 0 LOOP
        IF NOT {schema}.fpcache_go_on(mine) THEN RETURN; END IF;
        left_over := left_over - {schema}.fpcache_evict(page, 1000);
        COMMIT;
        page := page + 1000;
    END LOOP;
    pages := pg_relation_size({tagsRelation}::regclass) / current_setting('block_size')::bigint;
    page := 0;
    WHILE page <= pages LOOP
        IF NOT {schema}.fpcache_go_on(mine) THEN RETURN; END IF;
        PERFORM {schema}.fpcache_sweep_tags(page, 1000);
        COMMIT;
        page := page + 1000;
    END LOOP;
    PERFORM {schema}.fpcache_end_pass(mine);
END {body}]==]

sql = sql:gsub("{alive}", ALIVE):gsub("{usage}", function() return quotas.usage("CREATE OR REPLACE", KEPT) end)

return { version = 18, name = "one pass at a time, quotas of all that is kept", sql = sql, procedure = PROCEDURE }

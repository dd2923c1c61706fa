--- Migration 11: a cheaper condition of the triggers, a cheaper row of the feed, and sweeping with a plan of its own.
--
-- Places as in migration 1, and {format} the schema inside E'...', a template of format().
--
-- Measured by instructions of the server for one `set` (PostgreSQL 15): 148,000 without the feed, of which nobody tells;
-- 234,000 as it was; 213,000 now.
--
-- The server keeps a trigger's condition as text and parses it in each statement, so it is one call of a function.  That is
-- declared immutable, which it is while a statement runs: so the server asks it once for a statement, not once for each row.
-- (A condition is never planned before the statement that meets it; one that is found true once is asked again next time.)
--
-- The slot is the second of the minute, by thirds: two functions instead of six, each of which costs its start in every
-- statement.  So slots have 20 s.  Who sets a time zone whose offset has seconds writes into another slot, which delays its
-- rotation and loses nothing.
local rotation = require("fpcache.schema.m002_feed").rotation

local sql = [==[
-- Whether what this session writes is to be told by the triggers: it does not say that its statements do.
CREATE FUNCTION {schema}.fpcache_is_untold() RETURNS boolean LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS {body}
BEGIN
    RETURN pg_catalog.current_setting('fpcache.tells', true) IS DISTINCT FROM 'on';
END {body};

CREATE TEMPORARY TABLE fpcache_m011 ON COMMIT DROP AS
SELECT (SELECT bool_and(tgenabled = 'D') FROM pg_trigger WHERE tgrelid = {relation}::regclass
        AND tgname IN ('fpcache_tell_row', 'fpcache_tell_deleted_row')) AS is_off;
DROP TRIGGER fpcache_tell_row ON {schema}.cache;
DROP TRIGGER fpcache_tell_deleted_row ON {schema}.cache;
CREATE TRIGGER fpcache_tell_row AFTER INSERT OR UPDATE ON {schema}.cache FOR EACH ROW
    WHEN ({schema}.fpcache_is_untold()) EXECUTE PROCEDURE {schema}.fpcache_tell_row();
CREATE TRIGGER fpcache_tell_deleted_row AFTER DELETE ON {schema}.cache FOR EACH ROW
    WHEN ({schema}.fpcache_is_untold() AND OLD.expires_at > statement_timestamp())
    EXECUTE PROCEDURE {schema}.fpcache_tell_row();
DO {body}
BEGIN
    IF (SELECT is_off FROM fpcache_m011) THEN
        ALTER TABLE {schema}.cache DISABLE TRIGGER fpcache_tell_row, DISABLE TRIGGER fpcache_tell_deleted_row;
    END IF;
END {body};

-- The feed anew; what the old one told is made good by another incarnation.
CREATE TEMPORARY TABLE fpcache_m011_grants ON COMMIT DROP AS
SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
       CASE a.privilege_type WHEN 'INSERT' THEN 'INSERT (namespace, keys)' ELSE 'SELECT' END AS allowed
FROM pg_class AS c CROSS JOIN LATERAL (
    SELECT * FROM aclexplode(c.relacl)
    UNION ALL SELECT e.* FROM pg_attribute AS t CROSS JOIN LATERAL aclexplode(t.attacl) AS e WHERE t.attrelid = c.oid) AS a
WHERE c.oid = {feedRelation}::regclass AND a.grantee <> c.relowner AND a.privilege_type IN ('SELECT', 'INSERT');
DROP TABLE {schema}.fpcache_feed;
CREATE TABLE {schema}.fpcache_feed (
    xid       bigint NOT NULL DEFAULT txid_current(),
    slot      double precision NOT NULL DEFAULT date_part('second', statement_timestamp()),
    user_id   name NOT NULL DEFAULT session_user,
    namespace text COLLATE "C",  -- NULL: every namespace of this user
    keys      bytea[]            -- as in the cache's primary key; NULL: every key of the namespace
) PARTITION BY RANGE (slot);
{table} {schema}.fpcache_feed_0 PARTITION OF {schema}.fpcache_feed FOR VALUES FROM (0) TO (20);
{table} {schema}.fpcache_feed_1 PARTITION OF {schema}.fpcache_feed FOR VALUES FROM (20) TO (40);
{table} {schema}.fpcache_feed_2 PARTITION OF {schema}.fpcache_feed FOR VALUES FROM (40) TO (60);
CREATE INDEX ON {schema}.fpcache_feed_0 (xid);
CREATE INDEX ON {schema}.fpcache_feed_1 (xid);
CREATE INDEX ON {schema}.fpcache_feed_2 (xid);
ALTER TABLE {schema}.fpcache_feed_0 ALTER COLUMN keys SET STORAGE EXTERNAL, SET (autovacuum_enabled = off);
ALTER TABLE {schema}.fpcache_feed_1 ALTER COLUMN keys SET STORAGE EXTERNAL, SET (autovacuum_enabled = off);
ALTER TABLE {schema}.fpcache_feed_2 ALTER COLUMN keys SET STORAGE EXTERNAL, SET (autovacuum_enabled = off);
DO {body}
DECLARE
    given record;
BEGIN
    FOR given IN SELECT * FROM fpcache_m011_grants LOOP
        EXECUTE format(E'GRANT %s ON {format}.fpcache_feed TO %s', given.allowed, given.grantee);
    END LOOP;
END {body};
ALTER TABLE {schema}.fpcache_feed ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_feed FORCE ROW LEVEL SECURITY;
CREATE POLICY fpcache_feed_read ON {schema}.fpcache_feed FOR SELECT USING (user_id = session_user);
CREATE POLICY fpcache_feed_tell ON {schema}.fpcache_feed FOR INSERT WITH CHECK (true);
CREATE POLICY fpcache_feed_kept ON {schema}.fpcache_feed FOR INSERT TO CURRENT_USER
    WITH CHECK (current_setting('fpcache.keeps', true) = 'on');
DELETE FROM {schema}.fpcache_frozen;
UPDATE {schema}.fpcache_state SET incarnation = DEFAULT, slot = -1, marker = 0;

{rotate}
-- Rows are found by their places.  A plan that a session made while the table was tiny is a walk over all of it, and
-- stays after the table has grown; these functions have no use for one in any case.
ALTER FUNCTION {schema}.fpcache_sweep(bigint, integer) SET enable_seqscan = off;
ALTER FUNCTION {schema}.fpcache_evict(bigint, integer) SET enable_seqscan = off;
ALTER FUNCTION {schema}.fpcache_sweep_tags(bigint, integer) SET enable_seqscan = off;
ALTER FUNCTION {schema}.fpcache_forget(text[], text, bytea[], bytea[]) SET enable_seqscan = off;
]==]

return { version = 11, name = "a quicker change feed, sweeping by places",
  sql = (sql:gsub("{rotate}", function() return rotation("CREATE OR REPLACE", 10) end)) }

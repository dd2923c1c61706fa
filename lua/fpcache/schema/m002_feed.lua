--- Migration 2: the change feed, from which every process learns what others changed.
--
-- Places as in migration 1, and {format} the schema inside E'...', a template of format().
--
-- A change writes one row into the feed, in the same transaction: who, which namespace, which keys.  A reader keeps
-- its last snapshot and asks for the rows that were not visible in it; that skips nothing and repeats nothing,
-- whatever the order of commits.  Row `fpcache_state` tells the incarnation: it lives in the same kind of table as the
-- cache, so when it is gone or different, the cache was emptied.
--
-- The feed is cut into three slots of SLOT_SECONDS that are written in turn and truncated: no dead rows.  A slot is frozen half
-- a slot after it ended: its freeze snapshot and the number of the transaction that noted it (the marker) are kept.  It is
-- truncated when its turn comes again, provided that every row in it was visible in the freeze snapshot.  A reader
-- that has not seen the marker may have missed rows, and knows it: it reloads.
local ROTATION = [==[
-- One step of the rotation, called by readers when a new slot has begun.  It never waits for long: what it cannot do
-- now the next call does.  Says what it did, for people.
{create} FUNCTION {schema}.fpcache_rotate_feed() RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    half_slots bigint := (extract(epoch FROM clock_timestamp())::bigint / {halfSlot});
    now_slot   bigint := half_slots / 2;
    next_slot  smallint := ((now_slot + 1) % 3)::smallint;  -- written next: to be empty by then
    old_slot   smallint := ((now_slot + 2) % 3)::smallint;  -- ended half a slot ago or more
    frozen     {schema}.fpcache_frozen;
    late       bigint;
    done       text := 'nothing to truncate';
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN RETURN 'only in READ COMMITTED'; END IF;
    IF half_slots % 2 = 0 THEN RETURN 'the slot before may still be written'; END IF;
    PERFORM set_config('lock_timeout', '50ms', true);
    BEGIN
        PERFORM 1 FROM {schema}.fpcache_state WHERE single FOR UPDATE NOWAIT;  -- one at a time
    EXCEPTION WHEN lock_not_available THEN
        RETURN 'somebody else does it';
    END;
    IF NOT FOUND OR (SELECT s.slot FROM {schema}.fpcache_state AS s) >= now_slot THEN
        RETURN 'done before';
    END IF;
    SELECT * INTO frozen FROM {schema}.fpcache_frozen AS f WHERE f.slot = next_slot;
    IF FOUND THEN
        BEGIN
            EXECUTE format(E'LOCK TABLE ONLY {format}.%I IN ACCESS EXCLUSIVE MODE', 'fpcache_feed_' || next_slot);
            EXECUTE format(E'SELECT count(*) FROM ONLY {format}.%I WHERE NOT txid_visible_in_snapshot(xid, $1)',
                           'fpcache_feed_' || next_slot) INTO late USING frozen.snapshot::txid_snapshot;
            IF late = 0 THEN
                EXECUTE format(E'TRUNCATE ONLY {format}.%I', 'fpcache_feed_' || next_slot);
                UPDATE {schema}.fpcache_state SET marker = greatest(marker, frozen.marker);  -- it may be an old one
                done := 'truncated slot ' || next_slot;
            ELSE
                done := 'postponed slot ' || next_slot || ', written late';
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            done := 'postponed slot ' || next_slot || ', in use';
        END;
    END IF;
    INSERT INTO {schema}.fpcache_frozen AS f (slot, snapshot, marker)
    VALUES (old_slot, txid_current_snapshot()::text, txid_current())
    ON CONFLICT (slot) DO UPDATE SET snapshot = excluded.snapshot, marker = excluded.marker;
    UPDATE {schema}.fpcache_state SET slot = now_slot;
    RETURN done;
END {body};
]==]

--- The function that rotates, for slots of twice so many seconds.
local function rotation(create, half_slot)
  return (ROTATION:gsub("{create}", create):gsub("{halfSlot}", ("%d"):format(half_slot)))
end

local sql = [==[
{table} {schema}.fpcache_state (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    incarnation text NOT NULL DEFAULT md5(random()::text || clock_timestamp()::text || txid_current()::text),
    slot        bigint NOT NULL DEFAULT -1,  -- number of the newest slot that a rotation has seen
    marker      bigint NOT NULL DEFAULT 0    -- transaction that froze the slot truncated last
);
{table} {schema}.fpcache_frozen (
    slot     smallint PRIMARY KEY,  -- 0, 1 or 2
    snapshot text NOT NULL,
    marker   bigint NOT NULL
);
CREATE TABLE {schema}.fpcache_feed (
    xid       bigint NOT NULL DEFAULT txid_current(),
    slot      smallint NOT NULL DEFAULT ((extract(epoch FROM statement_timestamp())::bigint / 10) % 3)::smallint,
    user_id   text COLLATE "C" NOT NULL DEFAULT session_user,
    namespace text COLLATE "C",  -- NULL: every namespace of this user
    keys      bytea[]            -- as in the cache's primary key; NULL: every key of the namespace
) PARTITION BY LIST (slot);
{table} {schema}.fpcache_feed_0 PARTITION OF {schema}.fpcache_feed FOR VALUES IN (0);
{table} {schema}.fpcache_feed_1 PARTITION OF {schema}.fpcache_feed FOR VALUES IN (1);
{table} {schema}.fpcache_feed_2 PARTITION OF {schema}.fpcache_feed FOR VALUES IN (2);
CREATE INDEX ON {schema}.fpcache_feed_0 (user_id, xid);
CREATE INDEX ON {schema}.fpcache_feed_1 (user_id, xid);
CREATE INDEX ON {schema}.fpcache_feed_2 (user_id, xid);
-- Long lists of keys are stored as they are: compressing what lives for seconds costs more than it saves.
ALTER TABLE {schema}.fpcache_feed_0 ALTER COLUMN keys SET STORAGE EXTERNAL, SET (autovacuum_enabled = off);
ALTER TABLE {schema}.fpcache_feed_1 ALTER COLUMN keys SET STORAGE EXTERNAL, SET (autovacuum_enabled = off);
ALTER TABLE {schema}.fpcache_feed_2 ALTER COLUMN keys SET STORAGE EXTERNAL, SET (autovacuum_enabled = off);
INSERT INTO {schema}.fpcache_state DEFAULT VALUES;

-- Only one's own changes are seen and told.
ALTER TABLE {schema}.fpcache_feed ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_feed FORCE ROW LEVEL SECURITY;
CREATE POLICY fpcache_feed_own ON {schema}.fpcache_feed
    USING (user_id = session_user::text) WITH CHECK (user_id = session_user::text);

-- A wipe empties the state too; whoever notices first begins a new incarnation.
CREATE FUNCTION {schema}.fpcache_begin_incarnation() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
    INSERT INTO {schema}.fpcache_state DEFAULT VALUES ON CONFLICT DO NOTHING
{body};

-- Writers that are not ours: any client, psql, the Python functions.  Our sessions write the feed in their own statements and
-- say so by a setting, at the price of one look at it for each row.
CREATE FUNCTION {schema}.fpcache_tell_row() RETURNS trigger LANGUAGE plpgsql AS {body}
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO {schema}.fpcache_feed (user_id, namespace, keys)
        VALUES (OLD.user_id, OLD.namespace, ARRAY[OLD.key]);
    END IF;
    IF TG_OP = 'INSERT'
       OR (TG_OP = 'UPDATE' AND (OLD.user_id, OLD.namespace, OLD.key) <> (NEW.user_id, NEW.namespace, NEW.key)) THEN
        INSERT INTO {schema}.fpcache_feed (user_id, namespace, keys)
        VALUES (NEW.user_id, NEW.namespace, ARRAY[NEW.key]);
    END IF;
    RETURN NULL;
END {body};
CREATE TRIGGER fpcache_tell_row AFTER INSERT OR UPDATE ON {schema}.cache FOR EACH ROW
    WHEN (current_setting('fpcache.tells', true) IS DISTINCT FROM 'on')
    EXECUTE PROCEDURE {schema}.fpcache_tell_row();
-- What expired is invisible already: sweeping it tells nobody.
CREATE TRIGGER fpcache_tell_deleted_row AFTER DELETE ON {schema}.cache FOR EACH ROW
    WHEN (current_setting('fpcache.tells', true) IS DISTINCT FROM 'on' AND OLD.expires_at > statement_timestamp())
    EXECUTE PROCEDURE {schema}.fpcache_tell_row();

-- TRUNCATE is the owner's doing and concerns everybody: a new incarnation says it shortest.
CREATE FUNCTION {schema}.fpcache_tell_truncate() RETURNS trigger LANGUAGE plpgsql AS {body}
BEGIN
    UPDATE {schema}.fpcache_state SET incarnation = DEFAULT;
    RETURN NULL;
END {body};
CREATE TRIGGER fpcache_tell_truncate AFTER TRUNCATE ON {schema}.cache FOR EACH STATEMENT
    EXECUTE PROCEDURE {schema}.fpcache_tell_truncate();

{rotation}
REVOKE EXECUTE ON FUNCTION {schema}.fpcache_rotate_feed(), {schema}.fpcache_begin_incarnation() FROM PUBLIC;
]==]

return { version = 2, name = "change feed", rotation = rotation,
  sql = (sql:gsub("{rotation}", function() return rotation("CREATE", 5) end)) }

--- The switch of the change feed: who tells it, and the two names of the table of entries.
--
-- Places as in migration 1.
--
-- Who writes `cache` is told by its triggers, whoever it is and however he does it.  Our own statements tell the feed
-- themselves, which costs half, and so write the same rows by the name `fpcache_entries`.  One of the two names is that of the
-- table which holds the rows, the other of a partitioned table of which it is the only part.  Triggers for each statement belong
-- to the partitioned one, and the server runs those of the table that a statement names, and no others:
--
--     on:   cache (partitioned, with the triggers) ──> fpcache_entries (the rows)
--     off:  fpcache_entries (partitioned, triggers off) ──> cache (the rows)
--
-- So off, who writes `cache` pays nothing at all; and whoever began before the names were exchanged still reaches all rows by
-- either, and is told for, or tells what nobody asks.  The server then looks up the names of prepared statements anew.
--
-- PostgreSQL 10 has no ON CONFLICT for partitioned tables.  There `cache` is the only table, and has triggers for each row.
local switch = {}

local BY_ROW = "('fpcache_tell_row', 'fpcache_tell_deleted_row')"
local BY_STATEMENT = "('fpcache_tell_inserted', 'fpcache_tell_updated', 'fpcache_tell_deleted')"

--- `is_on`, and `since`: each turn of it, also by hand, leaves other transactions' numbers on the triggers; NULL when all are
-- off.  {relation} is the name of `cache` as a literal.
switch.STATE = [[(
    SELECT count(*) FILTER (WHERE tgname IN ]] .. BY_STATEMENT .. [[) = 3
           OR count(*) FILTER (WHERE tgname IN ]] .. BY_ROW .. [[) = 2 AS is_on,
           string_agg(xmin::text, '.' ORDER BY tgname) AS since
    FROM pg_trigger WHERE tgrelid = to_regclass({relation}) AND tgenabled IN ('O', 'A')
      AND (tgname IN ]] .. BY_STATEMENT .. " OR tgname IN " .. BY_ROW .. "))"

--- The table that holds the rows, whichever its name is now: its OID.  An error where there is no `cache`.
switch.ROWS = [[coalesce((
    SELECT oid FROM pg_class WHERE relkind = 'r' AND oid IN (to_regclass({relation}), to_regclass({entries}))),
    {relation}::regclass)]]

-- Both tables locked.  Statements lock them in either order: so nobody is held up for long, and both are let go before a deadlock
-- would be found.  That there is no end to it is the caller's affair, who has a timeout.
local LOCK = [[
    DECLARE
        patience text := current_setting('lock_timeout');
    BEGIN
        LOOP
            BEGIN
                PERFORM set_config('lock_timeout', '50ms', true);
                LOCK TABLE {schema}.cache, {schema}.fpcache_entries IN ACCESS EXCLUSIVE MODE;
                EXIT;
            EXCEPTION WHEN lock_not_available THEN
                PERFORM pg_sleep(0.1);
            END;
        END LOOP;
        PERFORM set_config('lock_timeout', patience, true);
    END;
]]

-- The names exchanged, if `cache` is a table of kind %s.
local EXCHANGE = [[
    IF (SELECT relkind FROM pg_class WHERE oid = {relation}::regclass) = '%s' THEN
        ALTER TABLE {schema}.cache RENAME TO fpcache_exchanged;
        ALTER TABLE {schema}.fpcache_entries RENAME TO cache;
        ALTER TABLE {schema}.fpcache_exchanged RENAME TO fpcache_entries;
    END IF;
]]

-- In PL/pgSQL.  Each waits for the statements that have begun, and those that begin later see it: so a reader sees the switch
-- before any change that was not told.
switch.ON = [[
    IF to_regclass({entries}) IS NULL THEN  -- PostgreSQL 10
        ALTER TABLE {schema}.cache ENABLE TRIGGER fpcache_tell_row, ENABLE TRIGGER fpcache_tell_deleted_row;
        RETURN;
    END IF;
]] .. LOCK .. EXCHANGE:format("r") .. [[
    ALTER TABLE {schema}.cache ENABLE TRIGGER fpcache_tell_inserted, ENABLE TRIGGER fpcache_tell_updated,
                               ENABLE TRIGGER fpcache_tell_deleted;
]]

--- Only where it is on.
switch.OFF = [[
    IF to_regclass({entries}) IS NULL THEN
        ALTER TABLE {schema}.cache DISABLE TRIGGER fpcache_tell_row, DISABLE TRIGGER fpcache_tell_deleted_row;
        RETURN;
    END IF;
]] .. LOCK .. [[
    ALTER TABLE {schema}.cache DISABLE TRIGGER fpcache_tell_inserted, DISABLE TRIGGER fpcache_tell_updated,
                               DISABLE TRIGGER fpcache_tell_deleted;
]] .. EXCHANGE:format("p")

--- The statement that turns it.
---@param is_on boolean
---@return string
function switch.turn(is_on) return "DO {body}\nBEGIN\n" .. (is_on and switch.ON or switch.OFF) .. "END {body}" end

return switch

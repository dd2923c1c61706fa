--- Migration 13: what a watch deletes stays away, also for keys that had no row.
--
-- Places as in migration 1.
--
-- Between the trigger of a watch and its COMMIT others still read the old rows of the business table.  A key that has a row is
-- locked by the trigger until then.  For one that has none the trigger leaves *marks*: shared advisory locks, which last
-- exactly as long as its transaction, conflict with no other writer, and are waited for by nobody.  Who is granted a lease
-- looks for marks; if there is one, his lease is taken back and what he loads is not stored.
--
-- A transaction takes marks of single keys and tags up to MOST_KEYS, as the server has room for a limited number of locks;
-- beyond, of what stands before their first colon; and at last of the whole namespace.
--
-- A lease that is being granted while the trigger runs is not to be seen by it yet.  So who is granted one holds the lock of
-- readers, shared, from before he looks for marks until his statement ends; and the trigger, its marks taken, waits for those
-- who hold it.  They wait for nobody by then.
--
-- A writer in REPEATABLE READ or SERIALIZABLE does not see what was cached after it began.  It inserts the keys that it did not
-- find, which the server refuses as a serialization failure where there is such a row.
local MOST_KEYS, MOST_MARKS = 64, 128

local sql = [==[
-- The mark of a namespace; the next number is the lock of its readers.
CREATE FUNCTION {schema}.fpcache_space_mark(p_namespace text) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS {body}
BEGIN
    RETURN hashtext({relation} || ' ' || p_namespace)::bigint << 32;
END {body};

-- The marks of keys and tags.  Level 1: of each; 2: of what stands before their first colon.
CREATE FUNCTION {schema}.fpcache_marks(p_level integer, p_namespace text, p_keys bytea[], p_tags bytea[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS {body}
DECLARE
    key_space bigint := hashtext(concat_ws(' ', {relation}, 'key', p_level, p_namespace))::bigint << 32;
    tag_space bigint := hashtext(concat_ws(' ', {relation}, 'tag', p_level, p_namespace))::bigint << 32;
BEGIN
    RETURN ARRAY(
        SELECT DISTINCT m.space | (hashtext(encode(CASE WHEN p_level = 1 THEN m.bytes
                   ELSE substring(m.bytes FROM 1 FOR position('\x3a'::bytea IN m.bytes)) END, 'hex')) & 4294967295)
        FROM (SELECT key_space AS space, unnest(p_keys) AS bytes UNION ALL SELECT tag_space, unnest(p_tags)) AS m);
END {body};

-- Leaves the marks of what is about to be deleted (NULL: of the namespace), and waits for leases that are being granted.
CREATE FUNCTION {schema}.fpcache_mark(p_namespace text, p_keys bytea[], p_tags bytea[]) RETURNS void
LANGUAGE plpgsql AS {body}
DECLARE
    space   bigint := hashtext({relation} || ' ' || p_namespace)::bigint << 32;
    setting text := current_setting('fpcache.marks', true);  -- those that this transaction has
    held    bigint[];
    marks   bigint[];
    level   integer;
    mark    bigint;
BEGIN
    IF (setting IS NULL OR setting = '') AND cardinality(p_keys) = 1 AND coalesce(cardinality(p_tags), 0) = 0 THEN
        mark := (hashtext(concat_ws(' ', {relation}, 'key', 1, p_namespace))::bigint << 32)
                | (hashtext(encode(p_keys[1], 'hex')) & 4294967295);  -- mostly; as below, and no query
        IF NOT pg_try_advisory_xact_lock_shared(mark) THEN PERFORM pg_advisory_xact_lock_shared(mark); END IF;
        setting := set_config('fpcache.marks', '{' || mark || '}', true);
    ELSE
        held := coalesce(nullif(setting, ''), '{}')::bigint[];
        level := CASE WHEN p_keys IS NULL AND p_tags IS NULL THEN 3 WHEN cardinality(p_keys) > {mostKeys} THEN 2 ELSE 1 END;
        LOOP
            marks := CASE level WHEN 3 THEN ARRAY[space] ELSE {schema}.fpcache_marks(level, p_namespace, p_keys, p_tags) END;
            marks := ARRAY(SELECT unnest(marks) EXCEPT ALL SELECT unnest(held));
            IF marks = '{}' THEN RETURN; END IF;  -- who was granted a lease since it was taken has seen it
            EXIT WHEN level = 3
                OR cardinality(held) + cardinality(marks) <= CASE level WHEN 1 THEN {mostKeys} ELSE {mostMarks} END;
            level := level + 1;
        END LOOP;
        FOREACH mark IN ARRAY marks LOOP
            PERFORM pg_advisory_xact_lock_shared(mark);
        END LOOP;
        setting := set_config('fpcache.marks', (held || marks)::text, true);
    END IF;
    -- Both in one expression, between whose parts nothing is interrupted: the session must not keep it.
    IF NOT (CASE WHEN pg_try_advisory_lock(space + 1) THEN pg_advisory_unlock(space + 1) ELSE false END) THEN
        PERFORM pg_advisory_lock(space + 1), pg_advisory_unlock(space + 1);
    END IF;
END {body};

-- Whether a transaction that has not ended left a mark for a key or one of its tags.
CREATE FUNCTION {schema}.fpcache_is_marked(p_namespace text, p_key bytea, p_tags bytea[]) RETURNS boolean
LANGUAGE plpgsql AS {body}
DECLARE
    mark bigint;
BEGIN
    FOREACH mark IN ARRAY {schema}.fpcache_marks(1, p_namespace, ARRAY[p_key], p_tags)
                          || {schema}.fpcache_marks(2, p_namespace, ARRAY[p_key], p_tags)
                          || {schema}.fpcache_space_mark(p_namespace) LOOP
        -- Another who looks may have it at this moment, so the lock's kind decides.
        IF NOT (CASE WHEN pg_try_advisory_lock(mark) THEN pg_advisory_unlock(mark) ELSE false END) AND EXISTS (
            SELECT 1 FROM pg_locks AS l
            WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ShareLock' AND l.objsubid = 1
              AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
              AND l.classid::bigint = ((mark >> 32) & 4294967295) AND l.objid::bigint = (mark & 4294967295)) THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END {body};

-- Whether there is any watch.  The owner's, since only he may read the table of watches.
CREATE FUNCTION {schema}.fpcache_has_watches() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
BEGIN
    RETURN EXISTS (SELECT 1 FROM {schema}.fpcache_watches);
END {body};

CREATE POLICY cache_refused_rows ON {schema}.cache FOR INSERT TO CURRENT_USER
    WITH CHECK (current_setting('fpcache.keeps', true) = 'on' AND format = 'a' AND expires_at = '-infinity');

-- As before, with marks.
CREATE OR REPLACE FUNCTION {schema}.fpcache_forget(p_users text[], p_namespace text, p_keys bytea[], p_tags bytea[])
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS {body}
DECLARE
    told     text := coalesce(current_setting('fpcache.tells', true), '');
    is_blind boolean := current_setting('transaction_isolation') IN ('repeatable read', 'serializable');
    one    text := '';  -- no user is called so
    turn   integer := 0;
    places tid[];
    keys   bytea[];  -- that were deleted; and each again beside each tag that it had
    tagged bytea[];
    tags   bytea[];
    gone   bigint := 0;
BEGIN
    PERFORM {schema}.fpcache_mark(p_namespace, p_keys, p_tags);
    IF is_blind AND p_users IS NULL THEN  -- nor does it see who has rows by now
        p_users := ARRAY(SELECT r.rolname::text FROM pg_roles AS r
                         WHERE r.rolcanlogin AND has_table_privilege(r.oid, {relation}, 'INSERT') ORDER BY r.rolname);
    END IF;
    PERFORM set_config('fpcache.keeps', 'on', true), set_config('fpcache.tells', 'on', true);
    LOOP
        turn := turn + 1;
        IF p_users IS NULL THEN  -- the next user who has rows: one look into the primary key
            SELECT c.user_id INTO one FROM {schema}.cache AS c WHERE c.user_id > one ORDER BY c.user_id LIMIT 1;
            EXIT WHEN NOT FOUND;
        ELSE
            EXIT WHEN turn > cardinality(p_users);
            one := p_users[turn];
        END IF;
        IF is_blind THEN  -- the row, dead at COMMIT, of what is not there
            INSERT INTO {schema}.cache (user_id, namespace, key, value, format, version, expires_at)
            SELECT one, p_namespace, w.key, '', 'a', 0, '-infinity' FROM (SELECT DISTINCT unnest(p_keys) AS key) AS w
            ORDER BY w.key ON CONFLICT (user_id, namespace, key) DO NOTHING;
        END IF;
        -- Small statements: mostly nothing is found, and a large one costs more to begin than this to do.
        IF cardinality(p_tags) > 0 THEN
            places := ARRAY(
                SELECT v.ctid FROM (
                    SELECT unnest(p_keys) AS key
                    UNION SELECT g.key FROM unnest(p_tags) AS t (tag) CROSS JOIN LATERAL (
                        SELECT i.key FROM {schema}.fpcache_tags AS i
                        WHERE i.user_id = one AND i.namespace = p_namespace AND i.tag = t.tag OFFSET 0) AS g
                    ORDER BY key) AS w
                CROSS JOIN LATERAL (
                    SELECT c.ctid FROM {schema}.cache AS c
                    WHERE c.user_id = one AND c.namespace = p_namespace AND c.key = w.key
                      AND (w.key = ANY (p_keys) OR c.tags && p_tags) LIMIT 1 FOR UPDATE) AS v);
        ELSE
            places := ARRAY(
                SELECT v.ctid FROM (SELECT unnest(p_keys) AS key ORDER BY key) AS w CROSS JOIN LATERAL (
                    SELECT c.ctid FROM {schema}.cache AS c
                    WHERE c.user_id = one AND c.namespace = p_namespace AND c.key = w.key LIMIT 1 FOR UPDATE) AS v);
        END IF;
        CONTINUE WHEN cardinality(places) = 0;
        WITH deleted AS (DELETE FROM {schema}.cache AS c WHERE c.ctid = ANY (places) RETURNING c.key, c.tags, c.version)
        SELECT ARRAY(SELECT d.key FROM deleted AS d WHERE d.version <> 0), ARRAY(SELECT d.key FROM deleted AS d, unnest(d.tags)),
               ARRAY(SELECT unnest(d.tags) FROM deleted AS d) INTO keys, tagged, tags;
        CONTINUE WHEN cardinality(keys) = 0;
        INSERT INTO {schema}.fpcache_feed (user_id, namespace, keys) VALUES (one, p_namespace, keys);
        IF cardinality(tags) > 0 THEN
            DELETE FROM {schema}.fpcache_tags AS x WHERE x.ctid = ANY (ARRAY(
                SELECT e.ctid FROM unnest(tagged, tags) AS d (key, tag) CROSS JOIN LATERAL (
                    SELECT i.ctid FROM {schema}.fpcache_tags AS i
                    WHERE i.user_id = one AND i.namespace = p_namespace AND i.tag = d.tag AND i.key = d.key
                    LIMIT 1) AS e));
        END IF;
        gone := gone + cardinality(keys);
    END LOOP;
    PERFORM set_config('fpcache.keeps', '', true), set_config('fpcache.tells', told, true);
    RETURN gone;
END {body};

REVOKE EXECUTE ON FUNCTION {schema}.fpcache_mark(text, bytea[], bytea[]) FROM PUBLIC;

-- As before, with the mark of the namespace.
CREATE OR REPLACE FUNCTION {schema}.fpcache_forget_ranges(p_users text[], p_namespace text, p_key_from bytea[], p_key_to bytea[],
                                                         p_tag_from bytea[], p_tag_to bytea[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    one  text;
    keys bytea[];
    tags bytea[];
    gone bigint := 0;
BEGIN
    PERFORM {schema}.fpcache_mark(p_namespace, NULL, NULL);
    PERFORM set_config('fpcache.keeps', 'on', true);
    FOR one IN SELECT DISTINCT c.user_id FROM {schema}.cache AS c
               WHERE c.namespace = p_namespace AND (p_users IS NULL OR c.user_id = ANY (p_users)) LOOP
        PERFORM set_config('fpcache.keeps', 'on', true);  -- fpcache_forget takes it off
        keys := ARRAY(SELECT c.key FROM unnest(p_key_from, p_key_to) AS r (low, high)
                      JOIN {schema}.cache AS c ON c.key >= r.low AND c.key < r.high
                      WHERE c.user_id = one AND c.namespace = p_namespace);
        tags := ARRAY(SELECT DISTINCT i.tag FROM unnest(p_tag_from, p_tag_to) AS r (low, high)
                      JOIN {schema}.fpcache_tags AS i ON i.tag >= r.low AND i.tag < r.high
                      WHERE i.user_id = one AND i.namespace = p_namespace);
        gone := gone + {schema}.fpcache_forget(ARRAY[one], p_namespace, keys, tags);
    END LOOP;
    PERFORM set_config('fpcache.keeps', '', true);
    RETURN gone;
END {body};

-- As before; and who is granted a lease while a writer has the key or a tag marked gets the fence -1, by which nothing is stored.
{missed}
]==]

local namespaces = require("fpcache.schema.m010_namespaces")

-- A look before, so that who can be granted none does not wait for the row that the writer has locked.
local CLAIM = [==[
        is_watched := {schema}.fpcache_has_watches();
        IF is_watched AND {schema}.fpcache_is_marked(p_namespace, p_key, p_tags) THEN
            granted := true;
            fence := -1;
        ELSE
]==] .. namespaces.claim .. [==[

            IF granted AND is_watched THEN
                PERFORM pg_advisory_xact_lock_shared({schema}.fpcache_space_mark(p_namespace) + 1);
                IF {schema}.fpcache_is_marked(p_namespace, p_key, p_tags) THEN
                    UPDATE {schema}.cache AS c SET lease_holder = NULL, lease_until = NULL
                    WHERE c.user_id = session_user::text AND c.namespace = p_namespace AND c.key = p_key;
                    fence := -1;
                END IF;
            END IF;
        END IF;]==]

sql = sql:gsub("{missed}", function()
  return (namespaces.missed("CREATE OR REPLACE", CLAIM):gsub("    granted boolean;", "%0\n    is_watched boolean;"))
end):gsub("{mostKeys}", MOST_KEYS):gsub("{mostMarks}", MOST_MARKS)

return { version = 13, name = "watches and leases", sql = sql }

--- Migration 5: tags, and what lets the cache's own functions reach everybody's rows.
--
-- Places as in migration 1.
--
-- The tags of an entry are a column of its row: they come and go with it, whoever writes it.  `fpcache_tags` finds the
-- keys of a tag.  It is only an index: it may name keys that have lost the tag or are gone, so whoever reads it looks at the
-- row; it never misses one.  A write without tags does not touch it.  What is in vain in it the sweeper removes.
--
-- Not a GIN index on the column: under row-level security the server may not ask an index by `@>`, which is not leakproof,
-- and would read the whole of it (docs/design.md, "Tags", has what was measured).
local sql = [==[
ALTER TABLE {schema}.cache ADD COLUMN tags bytea[];  -- NULL: none

{table} {schema}.fpcache_tags (
    user_id   text COLLATE "C" NOT NULL DEFAULT session_user,
    namespace text COLLATE "C" NOT NULL,
    tag       bytea NOT NULL,
    key       bytea NOT NULL,
    PRIMARY KEY (user_id, namespace, tag, key)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE {schema}.fpcache_tags ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_tags FORCE ROW LEVEL SECURITY;
CREATE POLICY fpcache_tags_own ON {schema}.fpcache_tags
    USING (user_id = session_user::text) WITH CHECK (user_id = session_user::text);

-- The owner, on whose behalf functions of the cache run, reaches everybody's rows while such a function says so, to delete
-- them and to tell it.  Who can call such a function only gets what it answers: a number.  The policies are the owner's, so
-- that the setting is of no use to anybody else.  (A function cannot name it in its SET clause: that takes a superuser.)
CREATE POLICY cache_kept_rows ON {schema}.cache TO CURRENT_USER
    USING (current_setting('fpcache.keeps', true) = 'on') WITH CHECK (false);
CREATE POLICY fpcache_tags_kept ON {schema}.fpcache_tags TO CURRENT_USER
    USING (current_setting('fpcache.keeps', true) = 'on') WITH CHECK (false);
CREATE POLICY fpcache_feed_kept ON {schema}.fpcache_feed FOR INSERT TO CURRENT_USER
    WITH CHECK (current_setting('fpcache.keeps', true) = 'on');

-- Deletes keys, and all keys that have one of some tags, of some users (NULL: of all) in one namespace, and tells the feed.
-- Says how many.  For who owns the cache.
CREATE FUNCTION {schema}.fpcache_forget(p_users text[], p_namespace text, p_keys bytea[], p_tags bytea[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    told   text := coalesce(current_setting('fpcache.tells', true), '');
    one    text := '';  -- no user is called so
    turn   integer := 0;
    places tid[];
    keys   bytea[];  -- that were deleted; and each again beside each tag that it had
    tagged bytea[];
    tags   bytea[];
    gone   bigint := 0;
BEGIN
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
        WITH deleted AS (DELETE FROM {schema}.cache AS c WHERE c.ctid = ANY (places) RETURNING c.key, c.tags)
        SELECT ARRAY(SELECT d.key FROM deleted AS d), ARRAY(SELECT d.key FROM deleted AS d, unnest(d.tags)),
               ARRAY(SELECT unnest(d.tags) FROM deleted AS d) INTO keys, tagged, tags;
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

-- Removes from a slice of pages of `fpcache_tags` what leads to no row, and says how many.  Three steps, since a writer
-- relies on an entry that it has found and locked: those in vain; of them those that nobody has locked; and of
-- these, by a snapshot taken after the locks, those still in vain.
CREATE FUNCTION {schema}.fpcache_sweep_tags(first_page bigint, page_count integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
DECLARE
    places tid[];
    swept  bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN RETURN 0; END IF;  -- one snapshot for all
    PERFORM set_config('fpcache.keeps', 'on', true);
    places := ARRAY(
        SELECT i.ctid FROM {schema}.fpcache_tags AS i
        WHERE i.ctid >= format('(%s,0)', first_page)::tid AND i.ctid < format('(%s,0)', first_page + page_count)::tid
          AND (SELECT i.tag = ANY (c.tags) FROM {schema}.cache AS c
               WHERE c.user_id = i.user_id AND c.namespace = i.namespace AND c.key = i.key) IS NOT TRUE);
    places := ARRAY(SELECT i.ctid FROM {schema}.fpcache_tags AS i WHERE i.ctid = ANY (places) FOR UPDATE SKIP LOCKED);
    DELETE FROM {schema}.fpcache_tags AS i WHERE i.ctid = ANY (places)
        AND (SELECT i.tag = ANY (c.tags) FROM {schema}.cache AS c
             WHERE c.user_id = i.user_id AND c.namespace = i.namespace AND c.key = i.key) IS NOT TRUE;
    GET DIAGNOSTICS swept = ROW_COUNT;
    PERFORM set_config('fpcache.keeps', '', true);
    RETURN swept;
END {body};
REVOKE EXECUTE ON FUNCTION {schema}.fpcache_forget(text[], text, bytea[], bytea[]),
    {schema}.fpcache_sweep_tags(bigint, integer) FROM PUBLIC;

-- As before, and what Python writes has no tags.
CREATE OR REPLACE FUNCTION {schema}.cache_set(p_user_id text, p_key text, p_value text, p_ttl_seconds integer DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql AS {body}
DECLARE
    raw bytea := convert_to(p_key, 'UTF8');
BEGIN
    INSERT INTO {schema}.cache AS c (user_id, key, long_key, value, format, version, expires_at)
    VALUES (p_user_id, {schema}.fpcache_stored_key(raw), CASE WHEN length(raw) > 1024 THEN raw END,
            convert_to(p_value, 'UTF8'), 't', (extract(epoch FROM statement_timestamp()) * 1000000)::bigint,
            coalesce(statement_timestamp() + p_ttl_seconds * interval '1 second', 'infinity'))
    ON CONFLICT (user_id, namespace, key) DO UPDATE
    SET value = excluded.value, format = excluded.format, expires_at = excluded.expires_at, tags = NULL,
        version = greatest(c.version + 1, excluded.version);
    RETURN true;
END {body};
]==]

return { version = 5, name = "tags", sql = sql }

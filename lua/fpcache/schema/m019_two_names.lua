--- Migration 19: who tells the feed says so by the name of the table, not by a setting of his session.
--
-- Places as in migration 1; {entries} is the name of `fpcache_entries` as a literal, {schemaText} and {relationText} are the
-- texts {schema} and {relation} as literals.
--
-- switch.lua has the two names.  What it saves: a trigger for each row had to find out, in each statement, that it was not
-- wanted, which was a third of what the feed cost a `set`.  What it mends: behind a transaction pooler a session can have no
-- setting, so it could not tell the feed itself; and a setting that stayed behind in a session kept others' changes secret.
-- What it costs: one row that is written by hand through `cache` is told for by two calls of a trigger instead of one.  Many
-- rows of a statement are told in one row of the feed for each 10,000, where each had one of its own.
local switch = require("fpcache.schema.switch")

-- The Python functions tell the feed themselves where their caller may, as the client's statements do; else the triggers tell.
local MAY_TELL = [[p_user_id = session_user AND pg_relation_filenode(to_regclass({relation})) IS NULL  -- it is on
       AND has_column_privilege({feedRelation}, 'keys', 'INSERT')]]
local TOLD = "WITH told AS (INSERT INTO {schema}.fpcache_feed (namespace, keys) VALUES ('', ARRAY[stored]))\n        "
local SET = [[
INSERT INTO {schema}.%s AS c (user_id, key, long_key, value, format, version, expires_at)
        VALUES (p_user_id, stored, CASE WHEN length(raw) > 1024 THEN raw END,
                convert_to(p_value, 'UTF8'), 't', (extract(epoch FROM statement_timestamp()) * 1000000)::bigint,
                coalesce(statement_timestamp() + p_ttl_seconds * interval '1 second', 'infinity'))
        ON CONFLICT (user_id, namespace, key) DO UPDATE
        SET value = excluded.value, format = excluded.format, expires_at = excluded.expires_at, tags = NULL,
            version = greatest(c.version + 1, excluded.version)]]
local DELETE = [[
DELETE FROM {schema}.%s
        WHERE user_id = p_user_id AND namespace = '' AND key = stored
        RETURNING expires_at > statement_timestamp()
              AND version > coalesce((SELECT n.cleared FROM {schema}.fpcache_namespaces AS n
                                      WHERE n.user_id = p_user_id AND n.namespace = ''), 0) INTO lived]]

local PYTHON = ([==[
CREATE OR REPLACE FUNCTION {schema}.cache_set(p_user_id text, p_key text, p_value text, p_ttl_seconds integer DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql AS {body}
DECLARE
    raw    bytea := convert_to(p_key, 'UTF8');
    stored bytea := {schema}.fpcache_stored_key(raw);
BEGIN
    IF {mayTell} THEN
        {told}{setEntries};
    ELSE
        {setCache};
    END IF;
    RETURN true;
END {body};

CREATE OR REPLACE FUNCTION {schema}.cache_delete(p_user_id text, p_key text) RETURNS boolean LANGUAGE plpgsql AS {body}
DECLARE
    stored bytea := {schema}.fpcache_stored_key(convert_to(p_key, 'UTF8'));
    lived  boolean;
BEGIN
    IF {mayTell} THEN
        {deleteEntries};
        IF FOUND THEN INSERT INTO {schema}.fpcache_feed (namespace, keys) VALUES ('', ARRAY[stored]); END IF;
    ELSE
        {deleteCache};
    END IF;
    RETURN coalesce(lived, false);
END {body};
]==]):gsub("{(%a+)}", {
  mayTell = MAY_TELL, told = TOLD, setEntries = SET:format("fpcache_entries"), setCache = SET:format("cache"),
  deleteEntries = DELETE:format("fpcache_entries"), deleteCache = DELETE:format("cache") })

-- What runs where the server has what it takes, as a text; see switch.lua for the others.
local PROCEDURE = [==[
ALTER TABLE {schema}.cache RENAME TO fpcache_entries;
CREATE TABLE {schema}.cache (LIKE {schema}.fpcache_entries INCLUDING DEFAULTS INCLUDING COMMENTS) PARTITION BY LIST (user_id);
ALTER TABLE {schema}.cache ADD CONSTRAINT fpcache_key PRIMARY KEY (user_id, namespace, key);
COMMENT ON TABLE {schema}.cache IS 'fpcache: a shared cache. Rows belong to the role that logged in.';
COMMENT ON TABLE {schema}.fpcache_entries IS
    'fpcache: the entries, for who tells the change feed himself (docs/sql.md). Everybody else writes cache.';

-- What holds for the rows holds by either name: the owner, row-level security, rights.
ALTER TABLE {schema}.cache ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.cache FORCE ROW LEVEL SECURITY;
DO {body}
DECLARE
    given record;
BEGIN
    EXECUTE (SELECT format(E'ALTER TABLE {format}.cache OWNER TO %I', pg_get_userbyid(relowner)) FROM pg_class
             WHERE oid = {entries}::regclass);
    FOR given IN
        SELECT p.polname, CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                        WHEN 'd' THEN 'DELETE' ELSE 'ALL' END AS command,
               CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END AS kind,
               (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                FROM unnest(p.polroles) AS r) AS roles,
               ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')' AS using_rows,
               ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')' AS with_check
        FROM pg_policy AS p WHERE p.polrelid = {entries}::regclass
    LOOP
        EXECUTE format(E'CREATE POLICY %I ON {format}.cache AS %s FOR %s TO %s%s%s', given.polname, given.kind, given.command,
                       given.roles, given.using_rows, given.with_check);
    END LOOP;
    FOR given IN
        SELECT a.privilege_type, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS grantee,
               CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS grantable
        FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS a
        WHERE c.oid = {entries}::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format(E'GRANT %s ON {format}.cache TO %s%s', given.privilege_type, given.grantee, given.grantable);
    END LOOP;
END {body};
ALTER TABLE {schema}.cache ATTACH PARTITION {schema}.fpcache_entries DEFAULT;

-- Tells what a statement wrote through `cache`, in the name of the rows' owners, for which it acts for the owner of the table.
-- What expired is invisible already: taking it away tells nobody.
CREATE FUNCTION {schema}.fpcache_tell_rows() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {body}
BEGIN
    IF NOT {schema}.fpcache_is_untold() THEN RETURN NULL; END IF;
    IF TG_OP = 'INSERT' THEN
        IF NOT EXISTS (SELECT FROM written) THEN RETURN NULL; END IF;  -- of an upsert that overwrote
        INSERT INTO {schema}.fpcache_feed (user_id, namespace, keys)
        SELECT r.user_id, r.namespace, array_agg(r.key)
        FROM (SELECT user_id, namespace, key, row_number() OVER () AS n FROM written) AS r
        GROUP BY r.user_id, r.namespace, r.n / 10000;
    ELSIF TG_OP = 'UPDATE' THEN  -- a key may have been changed into another
        INSERT INTO {schema}.fpcache_feed (user_id, namespace, keys)
        SELECT r.user_id, r.namespace, array_agg(r.key)
        FROM (SELECT b.*, row_number() OVER () AS n
              FROM (SELECT user_id, namespace, key FROM written UNION SELECT user_id, namespace, key FROM gone) AS b) AS r
        GROUP BY r.user_id, r.namespace, r.n / 10000;
    ELSE
        INSERT INTO {schema}.fpcache_feed (user_id, namespace, keys)
        SELECT r.user_id, r.namespace, array_agg(r.key)
        FROM (SELECT user_id, namespace, key, row_number() OVER () AS n FROM gone
              WHERE expires_at > statement_timestamp()) AS r
        GROUP BY r.user_id, r.namespace, r.n / 10000;
    END IF;
    RETURN NULL;
END {body};
REVOKE EXECUTE ON FUNCTION {schema}.fpcache_tell_rows() FROM PUBLIC;
CREATE TRIGGER fpcache_tell_inserted AFTER INSERT ON {schema}.cache REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE PROCEDURE {schema}.fpcache_tell_rows();
CREATE TRIGGER fpcache_tell_updated AFTER UPDATE ON {schema}.cache REFERENCING OLD TABLE AS gone NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE PROCEDURE {schema}.fpcache_tell_rows();
CREATE TRIGGER fpcache_tell_deleted AFTER DELETE ON {schema}.cache REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE PROCEDURE {schema}.fpcache_tell_rows();
DROP FUNCTION {schema}.fpcache_tell_row() CASCADE;  -- and the triggers for each row

-- Our own functions know what they have to tell, and so use the name of the entries; what measures the table, both names.
-- The Python functions that read stay as they are, for those who have rights on `cache` alone.
DO {body}
DECLARE
    given record;
    text  text;
    word  text;
BEGIN
    FOR given IN SELECT oid FROM pg_proc WHERE pronamespace = to_regnamespace({schemaText})
                 AND (proname ~ '^fpcache_' OR proname = 'cache_cleanup') LOOP
        text := pg_get_functiondef(given.oid);
        FOREACH word IN ARRAY ARRAY['FROM ', 'INTO ', 'UPDATE ', 'JOIN '] LOOP
            word := word || {schemaText};
            text := replace(text, word || '.cache ', word || '.fpcache_entries ');
            text := replace(text, word || '.cache' || chr(10), word || '.fpcache_entries' || chr(10));
        END LOOP;
        text := replace(text, 'pg_relation_size(' || {relationText} || '::regclass)', '(pg_relation_size(' || {relationText}
                        || '::regclass) + pg_relation_size(' || {entriesText} || '::regclass))');
        IF text <> pg_get_functiondef(given.oid) THEN EXECUTE text; END IF;
    END LOOP;
END {body};

]==] .. PYTHON

local sql = [==[
DO {procedure}
DECLARE
    is_on boolean := (SELECT s.is_on FROM {switch} AS s);
BEGIN
    IF current_setting('server_version_num')::integer < 110000 THEN RETURN; END IF;
    EXECUTE {literal};
    IF NOT is_on THEN
        {off}
    END IF;
END {procedure};
]==]

return { version = 19, name = "the table of entries, by two names", procedure = PROCEDURE,
  sql = (sql:gsub("{off}", function() return switch.OFF end)) }

--- Migration 16: how many rows quotas have cost so far, for `fpcache top`.
--
-- Places as in migration 1.
--
-- One number for all users, to be read by anybody who may look at the schema.  A trigger counts, so that who evicts need not be
-- told; it runs as the owner, who evicts.  A crash begins it anew, as it does the cache.
local sql = [==[
{table} {schema}.fpcache_evicted (
    total bigint NOT NULL
);
INSERT INTO {schema}.fpcache_evicted VALUES (0);
ALTER TABLE {schema}.fpcache_evicted ENABLE ROW LEVEL SECURITY;
CREATE POLICY fpcache_evicted_read ON {schema}.fpcache_evicted FOR SELECT USING (true);
GRANT SELECT ON {schema}.fpcache_evicted TO PUBLIC;

CREATE FUNCTION {schema}.fpcache_count_evicted() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS {body}
BEGIN
    UPDATE {schema}.fpcache_evicted SET total = total + old.excess - new.excess;
    IF NOT FOUND THEN INSERT INTO {schema}.fpcache_evicted VALUES (old.excess - new.excess); END IF; -- after a crash
    RETURN NULL;
END {body};
REVOKE EXECUTE ON FUNCTION {schema}.fpcache_count_evicted() FROM PUBLIC;
CREATE TRIGGER fpcache_count_evicted AFTER UPDATE OF excess ON {schema}.fpcache_evictions
FOR EACH ROW WHEN (new.excess < old.excess) EXECUTE PROCEDURE {schema}.fpcache_count_evicted()]==]

return { version = 16, name = "evicted rows are counted", sql = sql }

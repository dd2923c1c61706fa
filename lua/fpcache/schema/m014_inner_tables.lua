--- Migration 14: what the cache keeps for itself is its owner's, whatever a role was granted.
--
-- Places as in migration 1, and {format} the schema inside E'...', a template of format().
--
-- ALTER DEFAULT PRIVILEGES and GRANT … ON ALL TABLES are common, and give roles of applications rights on tables that they were
-- never meant to see: the slots of the feed tell everybody's keys, what is planned to be evicted is anybody's rows.  So each has
-- row-level security, with no policy where only the owner has business.  It is not forced: the owner's functions work as before,
-- and who uses a slot through the feed meets the feed's policies, not the slot's.
--
-- The rotation looks at what was told late, and truncates: in a transaction with a snapshot of before it would not see that.
local rotation = require("fpcache.schema.m002_feed").rotation

local sql = [==[
ALTER TABLE {schema}.fpcache_feed_0 ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_feed_1 ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_feed_2 ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_frozen ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_passes ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_evictions ENABLE ROW LEVEL SECURITY;
ALTER TABLE {schema}.fpcache_watches ENABLE ROW LEVEL SECURITY;

-- To be read by who uses the cache.
ALTER TABLE {schema}.fpcache_state ENABLE ROW LEVEL SECURITY;
CREATE POLICY fpcache_state_read ON {schema}.fpcache_state FOR SELECT USING (true);
ALTER TABLE {schema}.fpcache_quotas ENABLE ROW LEVEL SECURITY;
CREATE POLICY fpcache_quotas_read ON {schema}.fpcache_quotas FOR SELECT USING (true);
ALTER TABLE {schema}.fpcache_schema ENABLE ROW LEVEL SECURITY;
CREATE POLICY fpcache_schema_read ON {schema}.fpcache_schema FOR SELECT USING (true);

{rotate}]==]

return { version = 14, name = "inner tables for the owner alone",
  sql = (sql:gsub("{rotate}", function() return rotation("CREATE OR REPLACE", 10) end)) }

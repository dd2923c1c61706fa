--- The statements of the sweeper, and the touches that tell it what is used.  Places as in statements.lua.
-- $%d: the pass; NULL: of none, at once.  The answer is NULL when the pass is not to go on.
local IN_PASS = "SELECT CASE WHEN $%d IS NULL OR {schema}.fpcache_go_on($%d) THEN {schema}.%s END"

local TEMPLATES = {
  -- A sample of the hits; no change of anything that a reader sees, so the feed is not told.
  touch_sampled = { [[
UPDATE {cache} SET touched = {version} WHERE ctid = ANY (ARRAY(
    SELECT c.ctid FROM (SELECT unnest($2) AS key ORDER BY key) AS k CROSS JOIN LATERAL (
        SELECT ctid FROM {cache} WHERE {mine} AND key = k.key AND {live} LIMIT 1 FOR UPDATE SKIP LOCKED) AS c))]], "tY" },
  -- Whether there are quotas; whether a namespace of this user was cleared at once.
  habits = { [[
SELECT EXISTS (SELECT 1 FROM {schema}.fpcache_quotas),
       EXISTS (SELECT 1 FROM {schema}.fpcache_namespaces WHERE user_id = session_user::text)]], "", true },

  begin_pass = { "SELECT {schema}.fpcache_begin_pass($1 * interval '1 second')", "f" },
  go_on = { "SELECT {schema}.fpcache_go_on($1)", "i" },
  end_pass = { "SELECT {schema}.fpcache_end_pass($1)", "i" },
  pages = { [[
SELECT pg_relation_size({rows}) / current_setting('block_size')::bigint]], "", true },
  tag_pages = { [[
SELECT pg_relation_size({tagsRelation}::regclass) / current_setting('block_size')::bigint]], "", true },
  sweep = { IN_PASS:format(3, 3, "fpcache_sweep($1, $2::integer)"), "iii" },
  evict = { IN_PASS:format(3, 3, "fpcache_evict($1, $2::integer)"), "iii" },
  sweep_tags = { IN_PASS:format(3, 3, "fpcache_sweep_tags($1, $2::integer)"), "iii" },
  plan_evictions = { IN_PASS:format(1, 1, "fpcache_plan_evictions()"), "i" },
}

local keeping = {}

--- Adds them to all the others.
---@param templates table<string, table>
function keeping.add(templates)
  for name, template in pairs(TEMPLATES) do templates[name] = template end
end

return keeping

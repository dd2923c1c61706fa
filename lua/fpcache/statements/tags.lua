--- The statements about tags.  Places and parameters as in statements.lua.
--
-- A write with tags is the write without them, which gets one more parameter and then enters its keys into `fpcache_tags`, after
-- the rows themselves: all who lock both go in this order.  An entry that is there already is locked and left as it is, so that
-- a sweep cannot take it away meanwhile.
local ENTER = "ON CONFLICT (user_id, namespace, tag, key) DO UPDATE SET key = excluded.key WHERE false"

-- The keys of tag $2, in order, that $1 names; whether they still have it is for the row to say.
local TAGGED = "SELECT key FROM {schema}.fpcache_tags WHERE {mine} AND tag = $2"

local tags = { ENTER = ENTER }

--- The template of a write of one row, with tags as its last parameter.
local function tagged(template)
  local text, place = template[1], "$" .. (#template[2] + 1)
  local count
  if text:find("INSERT INTO {cache}", 1, true) then
    text, count = text:gsub("expires_at%)\nVALUES %((.-{expiry})%)", function(values)
      return "expires_at, tags)\nVALUES (" .. values .. ", " .. place .. ")"
    end)
  else
    text, count = text:gsub("tags = NULL", "tags = " .. place)
    if count == 0 then text, count = text:gsub("tags = CASE.-END", "tags = " .. place) end -- kept as the value is
  end
  assert(count == 1)
  text, count = text:gsub("^{tellKey}", "{tellKey}WITH stored AS (\n")
  assert(count == 1)
  return { text .. ([[),
tagged AS (INSERT INTO {schema}.fpcache_tags (namespace, tag, key)
    SELECT $1, t.tag, $2 FROM stored CROSS JOIN unnest(%s) AS t (tag) %s)
SELECT version FROM stored]]):format(place, ENTER), template[2] .. "Y" }
end

local TEMPLATES = {
  set_many_tagged = { [[
{tellKeys}WITH stored AS (
INSERT INTO {cache} AS c (user_id, namespace, key, long_key, value, format, version, expires_at, tags)
SELECT (SELECT session_user::text), $1, r.key, r.long_key, r.value, r.format, (SELECT {version}),
       coalesce(statement_timestamp() + r.ttl * interval '1 second', 'infinity'), $7
FROM (SELECT unnest($2) AS key, unnest($3) AS long_key, unnest($4) AS value, unnest($5) AS format,
             unnest($6) AS ttl) AS r
ON CONFLICT (user_id, namespace, key) DO UPDATE
SET value = excluded.value, format = excluded.format, version = {nextVersion},
    tags = excluded.tags, expires_at = excluded.expires_at
RETURNING key)
INSERT INTO {schema}.fpcache_tags (namespace, tag, key)
SELECT $1, t.tag, s.key FROM stored AS s CROSS JOIN unnest($7) AS t (tag) ]] .. ENTER, "tBY" },

  -- Every row with one of the tags $2, expired ones too; answers the keys of those that lived.
  invalidate_tags = { [[
WITH victims AS (
    SELECT c.ctid FROM (
        SELECT DISTINCT i.key FROM unnest($2) AS t (tag) CROSS JOIN LATERAL (
            SELECT key FROM {schema}.fpcache_tags WHERE {mine} AND tag = t.tag OFFSET 0) AS i ORDER BY 1) AS k
    CROSS JOIN LATERAL (
        SELECT ctid FROM {cache} WHERE {mine} AND key = k.key AND tags && $2 LIMIT 1 FOR UPDATE) AS c),
gone AS (
    DELETE FROM {cache} WHERE ctid = ANY (ARRAY(SELECT ctid FROM victims)) RETURNING key, tags, {live} AS lived),
untagged AS (
    DELETE FROM {schema}.fpcache_tags WHERE ctid = ANY (ARRAY(
        SELECT i.ctid FROM gone CROSS JOIN LATERAL unnest(gone.tags) AS t (tag) CROSS JOIN LATERAL (
            SELECT ctid FROM {schema}.fpcache_tags WHERE {mine} AND tag = t.tag AND key = gone.key LIMIT 1) AS i))){tellGone}
SELECT key FROM gone WHERE lived]], "tY" },

  -- The same, but the rows stay, expired: what fetch may give as stale.
  expire_tags = { [[
WITH victims AS (
    SELECT c.ctid FROM (
        SELECT DISTINCT i.key FROM unnest($2) AS t (tag) CROSS JOIN LATERAL (
            SELECT key FROM {schema}.fpcache_tags WHERE {mine} AND tag = t.tag OFFSET 0) AS i ORDER BY 1) AS k
    CROSS JOIN LATERAL (
        SELECT ctid FROM {cache} WHERE {mine} AND key = k.key AND tags && $2
           AND ({live} OR greatest(lease_until, CASE format WHEN 'a' THEN stale_until END) > statement_timestamp())
        LIMIT 1 FOR UPDATE) AS c),
gone AS (
    UPDATE {cache}
    SET expires_at = least(expires_at, statement_timestamp()), lease_holder = NULL, lease_until = NULL,
        stale_until = CASE WHEN format <> 'a' THEN stale_until END -- of a mark of absence nothing may be given
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM victims)) RETURNING key){tellGone}
SELECT key FROM gone]], "tY" },

  tags_of = { "SELECT unnest(coalesce(tags, ARRAY[NULL::bytea])) FROM {cache} WHERE {own} AND {live}", "ty", true },

  -- As those of scan.lua, of the tag $2: keys from $3 (included) to $4 (excluded), at most $5.
  scan_tag_keys = { ([[
SELECT k.key, c.long_key FROM (%s AND key >= $3 AND key < $4 ORDER BY key) AS k
CROSS JOIN LATERAL (
    SELECT long_key FROM {cache} WHERE {mine} AND key = k.key AND $2 = ANY (tags) AND {live} LIMIT 1) AS c
ORDER BY k.key LIMIT $5]]):format(TAGGED), "tyyyi", true },
  scan_tag_values = { ([[
SELECT k.key, c.long_key, c.value, c.format FROM (%s AND key >= $3 AND key < $4 ORDER BY key) AS k
CROSS JOIN LATERAL (
    SELECT long_key, value, format FROM {cache}
    WHERE {mine} AND key = k.key AND $2 = ANY (tags) AND {live} LIMIT 1) AS c
ORDER BY k.key LIMIT $5]]):format(TAGGED), "tyyyi", true },
  count_tag = { ([[
SELECT count(*) FROM (%s AND key >= $3 AND key < $4) AS k
CROSS JOIN LATERAL (
    SELECT 1 FROM {cache} WHERE {mine} AND key = k.key AND $2 = ANY (tags) AND {live} LIMIT 1) AS c]]):format(TAGGED),
    "tyyy", true },
}

local WRITES = { "set", "set_keep_ttl", "add", "replace", "replace_keep_ttl", "cas", "cas_keep_ttl",
  "fetch_store" }

--- Adds them to all the others; a write NAME gets its twin NAME_tagged.
---@param templates table<string, table>
function tags.add(templates)
  for name, template in pairs(TEMPLATES) do templates[name] = template end
  for _, name in ipairs(WRITES) do templates[name .. "_tagged"] = tagged(templates[name]) end
end

return tags

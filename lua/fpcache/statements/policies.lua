--- The statements of fetch and of the other policies.  Places as in statements.lua; the columns are explained in
-- schema/m004_leases.lua.  Each is one round trip and needs no session state, so all work behind a transaction pooler.
local lifetimes = require("fpcache.policy.lifetimes")
local tags = require("fpcache.statements.tags")

local PARTS = {
  noted = "c.noted_version = c.version{cKnown}",
  fresh = "{cLive}",
  -- In force: a lease, or the pause after a failure.
  leased = "({noted} AND c.lease_until > statement_timestamp())",
  absent = "(c.format = 'a' AND {noted} AND c.stale_until > statement_timestamp())",
  left = "date_part('epoch', c.expires_at - statement_timestamp())", -- extract() is exact, and slower
  age = "(date_part('epoch', statement_timestamp()) - c.version / 1000000.0::float8)",
  fence = "(SELECT 1 + (random() * 9e15)::bigint)", -- computed once in a statement
}

-- Whether a living entry is to be loaded before it expires: {share} of its whole life is left, or less, or so little that
-- {times} its cost of loading would not fit (XFetch).  NULL parameters: never.
local EARLY = [[
CASE WHEN c.expires_at = 'infinity' OR ({share} IS NULL AND {times} IS NULL) THEN false
                      ELSE coalesce({left} <= {share} * ({left} + {age}), false)
                           OR coalesce({noted} AND {left} <= {times} * c.load_seconds, false) END]]

-- Of many keys: a hit; or a miss with the lease granted; or a miss while somebody loads.  Only a miss calls the function, which
-- writes.  With {lease} NULL nobody is granted any.
-- value, format, seconds it lives (-1: no end, NULL: it does not), seconds it may still be given as stale or absent, its age,
-- cost of loading, validator, granted? (NULL: a hit), the lease's fence, whether there are watches.
local ASK = [[
c.value, c.format, CASE WHEN c.expires_at = 'infinity' THEN -1 WHEN {fresh} THEN {left} END,
       CASE WHEN {noted} AND c.stale_until > statement_timestamp()
            THEN date_part('epoch', c.stale_until - statement_timestamp()) END,
       CASE WHEN c.key IS NOT NULL THEN {age} END, CASE WHEN {noted} THEN c.load_seconds END,
       CASE WHEN {noted} THEN c.validator END,
       CASE WHEN {fresh} AND NOT {early} THEN NULL
            WHEN {absent} THEN NULL
            WHEN {leased} OR {lease} IS NULL THEN false
            ELSE {schema}.fpcache_claim($1, {key}, {longKey}, fence.holder, {lease},
                                        CASE WHEN {fresh} THEN c.version END, {tags}) END, fence.holder, fence.is_watched]]

-- What a holder may change: the lease is still his, and nobody has written or deleted the entry since.
local MINE = "c.lease_holder = %s AND {noted}"
local NEXT = "greatest(c.version + 1, {version})"
-- When it ends, by $5 seconds (NULL: never; negative: it is a mark of absence); until when it may be stale, by $6.
local ENDS = [[expires_at = CASE WHEN $5 < 0 THEN '-infinity'
                       ELSE coalesce(statement_timestamp() + $5 * interval '1 second', 'infinity') END,
    stale_until = statement_timestamp() + $6 * interval '1 second',
    load_seconds = $7, validator = $8, lease_holder = NULL, lease_until = NULL]]

local MANY = { key = "k.key", longKey = "k.long_key", lease = "$7", share = "$8", times = "$9", tags = "$10" }

-- One key.  A hit is the plain read of a living entry, as get does it; only where there is none is the second part begun, which
-- is all that a hit must not cost.  Its answer (see schema/m010_namespaces.lua) stands in the place of a value, without
-- a format.
-- $3 seconds of the lease that is wanted; NULL: none.
local function one(columns, nulls, living, words)
  return ([[
SELECT %s FROM {cache} AS c WHERE {own} AND {fresh}%s
UNION ALL SELECT {schema}.fpcache_missed($1, $2, %s), NULL%s LIMIT 1]]):format(columns, living, words, nulls)
end
local USUAL = ("NULL, %d, NULL, NULL, NULL"):format(lifetimes.USUAL_LEASE)
local NOT_EARLY = " AND NOT {early}"
local LIFE = "CASE WHEN c.expires_at = 'infinity' THEN -1 ELSE {left} END"

-- Rows by key and lease, one look into the primary key for each; $2 and $3 as in set_many.
local HELD = [[
SELECT c.ctid FROM (SELECT unnest($2) AS key ORDER BY key) AS k CROSS JOIN LATERAL (
    SELECT c.ctid FROM {cache} AS c WHERE {mine} AND c.key = k.key AND %s LIMIT 1 FOR UPDATE) AS c]]

-- $2 to $6 the batch, $7 seconds to be given as stale after its end, $8 cost, $9 fence, $10 keys that have validators, $11 these;
-- answers how many.
local STORE_MANY = [[
{tellKeys}WITH targets AS (
    SELECT c.ctid AS place, r.key, r.value, r.format, r.ttl
    FROM (SELECT * FROM (SELECT unnest($2) AS key, unnest($3) AS long_key, unnest($4) AS value, unnest($5) AS format,
                 unnest($6) AS ttl) AS r ORDER BY key) AS r
    CROSS JOIN LATERAL (
        SELECT c.ctid FROM {cache} AS c WHERE {mine} AND c.key = r.key AND ]] .. MINE:format("$9") .. [[

        LIMIT 1 FOR UPDATE) AS c),
stored AS (UPDATE {cache} AS c
SET %s version = ]] .. NEXT .. ", noted_version = " .. NEXT .. [[,
    expires_at = coalesce(statement_timestamp() + t.ttl * interval '1 second', 'infinity'),
    stale_until = statement_timestamp() + (t.ttl + $7) * interval '1 second',
    load_seconds = $8, validator = v.validator, lease_holder = NULL, lease_until = NULL
FROM targets AS t LEFT JOIN (SELECT unnest($10) AS key, unnest($11) AS validator) AS v ON v.key = t.key
WHERE c.ctid = t.place RETURNING c.key]]
local ANEW = "value = t.value, format = t.format,"
local COUNTED = ")\nSELECT count(*) FROM stored"

-- $2 keys of which loading said that they do not exist, $3 seconds to remember it (NULL: not), $4 fence, $5 for those who wait.
local ABSENT_MANY = [[
{tellKeys}WITH stored AS (UPDATE {cache} AS c
SET value = '', format = 'a', version = ]] .. NEXT .. ", noted_version = " .. NEXT .. [[, expires_at = '-infinity',
    stale_until = statement_timestamp() + $3 * interval '1 second', load_seconds = NULL, validator = $5, tags = %s,
    lease_holder = NULL, lease_until = NULL
WHERE c.ctid = ANY (ARRAY(]] .. HELD:format(MINE:format("$4")) .. ")) RETURNING c.key"

-- Tags $%d of what was stored; answers how many.
local TAGGED_MANY = [[),
tagged AS (INSERT INTO {schema}.fpcache_tags (namespace, tag, key)
    SELECT $1, t.tag, s.key FROM stored AS s CROSS JOIN unnest($%d) AS t (tag) ]] .. tags.ENTER .. [[)
SELECT count(*) FROM stored]]

--- Stores many; what `set` says beside the ends.
local function store_many(set) return { STORE_MANY:format(set) .. COUNTED, "tBffiYY" } end
local function store_many_tagged(set)
  return { STORE_MANY:format(set .. " tags = $12,") .. TAGGED_MANY:format(12), "tBffiYYY" }
end

-- What $5 says to those who wait (policy/outcomes.lua; NULL: nothing new), in a place that only an older value needs.
local TOLD = [[
CASE WHEN greatest(c.expires_at, c.stale_until) > statement_timestamp() THEN c.validator
                     ELSE coalesce($5, c.validator) END]]
local PAUSE = [[greatest(statement_timestamp(),
    least(statement_timestamp() + $3 * interval '1 second', coalesce(c.stale_until, c.expires_at)))]]

local TEMPLATES = {
  -- A usual lease is named by the statement: each parameter less makes a hit cheaper.  A policy with tags says them at a miss:
  -- $4.  What else is to be said makes the last statement: $4 the long key, $5 and $6 when it is early to load, $7 tags.
  fetch = { one("c.value, c.format", "", "", "NULL, $3, NULL, NULL, NULL"), "tyf" },
  fetch_usual = { one("c.value, c.format", "", "", USUAL), "ty" },
  fetch_tagged = { one("c.value, c.format", "", "", "NULL, $3, NULL, NULL, $4"), "tyfY" },
  fetch_with_ttl = { one("c.value, c.format, " .. LIFE, ", NULL", "", "NULL, $3, NULL, NULL, NULL"), "tyf" },
  fetch_with_ttl_usual = { one("c.value, c.format, " .. LIFE, ", NULL", "", USUAL), "ty" },
  fetch_with_ttl_tagged = { one("c.value, c.format, " .. LIFE, ", NULL", "", "NULL, $3, NULL, NULL, $4"), "tyfY" },
  fetch_early = { one("c.value, c.format, " .. LIFE .. ", {age}, CASE WHEN {noted} THEN c.load_seconds END", ", NULL, NULL, NULL",
    NOT_EARLY, "$4, $3, $5, $6, $7"), "tyfyffY", places = { share = "$5", times = "$6" } },

  -- In the order of keys, as bulk writes go.
  fetch_many = { [[
SELECT coalesce(k.long_key, k.key), ]] .. ASK .. [[

FROM (SELECT {fence} AS holder, {schema}.fpcache_has_watches() AS is_watched OFFSET 0) AS fence
CROSS JOIN (SELECT * FROM (SELECT unnest($2) AS key, unnest($3) AS long_key, unnest($4) AS value, unnest($5) AS format,
             unnest($6) AS ttl) AS r ORDER BY key) AS k
LEFT JOIN LATERAL (SELECT * FROM {cache} WHERE {mine} AND key = k.key LIMIT 1) AS c ON true]], "tBfffY",
    places = MANY },

  -- Of keys that leases were granted for, those that a transaction of a watched table is changing; $3 their tags.  A statement of
  -- its own, since until the leases are committed such a transaction may have begun without seeing them.
  fetch_marked = { "SELECT k.key FROM unnest($2) AS k (key) WHERE {schema}.fpcache_is_marked($1, k.key, $3)", "tYY" },

  -- $3 value, $4 format (NULL: as they were), $5 and $6 see ENDS, $7 cost, $8 validator, $9 fence.
  -- No row: the lease was overtaken.
  fetch_store = { [[
{tellKey}UPDATE {cache} AS c
SET value = coalesce($3, c.value), format = coalesce($4, c.format),
    tags = CASE WHEN $3 IS NULL THEN c.tags END, version = ]] .. NEXT .. ", noted_version = " .. NEXT .. ", " .. ENDS .. [[

WHERE {own} AND ]] .. MINE:format("$9") .. " RETURNING version", "tyycfffyi" },
  -- Loading failed: the lease ends; $3 seconds nobody shall try again, but no longer than there is an older value to be given.
  fetch_release = { [[
UPDATE {cache} AS c SET lease_holder = 0, lease_until = ]] .. PAUSE .. ", validator = " .. TOLD .. [[

WHERE {own} AND ]] .. MINE:format("$4"), "tyfiy" },
  -- $3 seconds to live from now, $4 to be given as stale.  What it says is no news to copies, which end sooner.
  fetch_slide = { [[
UPDATE {cache} AS c SET expires_at = greatest(expires_at, statement_timestamp() + $3 * interval '1 second'),
    stale_until = statement_timestamp() + $4 * interval '1 second'
WHERE {own} AND {fresh} AND {noted}]], "tyff" },

  fetch_store_many = store_many(ANEW .. " tags = NULL,"),
  fetch_store_many_tagged = store_many_tagged(ANEW),
  -- The older values stay, and live anew; so do their tags unless there are others.
  fetch_renew_many = store_many(""),
  fetch_renew_many_tagged = store_many_tagged(""),
  fetch_absent_many = { ABSENT_MANY:format("NULL") .. COUNTED, "tYfiy" },
  fetch_absent_many_tagged = { ABSENT_MANY:format("$6") .. TAGGED_MANY:format(6), "tYfiyY" },
  fetch_release_many = { [[
UPDATE {cache} AS c SET lease_holder = 0, lease_until = ]] .. PAUSE .. ", validator = " .. TOLD .. [[

WHERE c.ctid = ANY (ARRAY(]] .. HELD:format(MINE:format("$4")) .. "))", "tYfiy" },

  -- As fetch_slide, of the keys $2.
  fetch_slide_many = { [[
UPDATE {cache} AS c SET expires_at = greatest(expires_at, statement_timestamp() + $3 * interval '1 second'),
    stale_until = statement_timestamp() + $4 * interval '1 second'
WHERE c.ctid = ANY (ARRAY(]] .. HELD:format("{fresh} AND {noted}") .. "))", "tYff" },

  -- A lock of cache:lock(): a row that only carries a lease.  $3 long key, $4 seconds.
  lock_take = { [[
SELECT {schema}.fpcache_claim($1, $2, $3, fence.holder, $4, NULL, NULL), fence.holder FROM (SELECT {fence} AS holder) AS fence]],
    "tyyf" },
  lock_free = { "DELETE FROM {cache} AS c WHERE {own} AND " .. MINE:format("$3"), "tyi" },
}

local policies = {}

--- Adds them to all the others.
---@param templates table<string, table>
function policies.add(templates)
  for name, template in pairs(TEMPLATES) do
    local text = template[1]:gsub("{early}", EARLY)
    for _ = 1, 2 do -- parts hold parts, and places of statements.lua
      for _, places in ipairs { template.places or {}, PARTS } do
        text = text:gsub("{(%w+)}", places)
      end
    end
    templates[name] = { text, template[2], false }
  end
end

return policies

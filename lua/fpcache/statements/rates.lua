--- The statements of rate limiters.  Places as in statements.lua.  One round trip each; who is refused writes nothing.
--
-- $1 namespace, $2 key, $3 long key, $4 microseconds that the request costs, $5 microseconds of the window.
local NOW = "{version}" -- in microseconds
local OLD = "convert_from(c.value, 'UTF8')::bigint"

-- Sliding: the entry is the time at which all that was let through is used up (the "theoretical arrival time" of GCRA).
local FULL = "CASE WHEN {cLive} THEN greatest(" .. OLD .. ", " .. NOW .. ") ELSE " .. NOW .. " END"

local TEMPLATES = {
  -- allowed?, seconds that are used up
  rate_sliding = { [[
WITH tried AS (
    INSERT INTO {cache} AS c (namespace, key, long_key, value, format, version, expires_at)
    VALUES ($1, $2, $3, convert_to((]] .. NOW .. [[ + $4)::text, 'UTF8'), 'i', {version},
            statement_timestamp() + $4 * interval '1 microsecond')
    ON CONFLICT (user_id, namespace, key) DO UPDATE
    SET value = convert_to((]] .. FULL .. [[ + $4)::text, 'UTF8'), format = 'i', version = {nextVersion},
        expires_at = statement_timestamp() + (]] .. FULL .. " + $4 - " .. NOW .. [[) * interval '1 microsecond'
    WHERE NOT {cLive} OR (c.format = 'i' AND ]] .. FULL .. " + $4 - " .. NOW .. [[ <= $5)
    RETURNING ]] .. OLD .. [[ AS full_at){tellTried}
SELECT true, (full_at - ]] .. NOW .. [[) / 1000000.0::float8, true FROM tried
UNION ALL
SELECT false, CASE WHEN c.format = 'i' THEN (]] .. OLD .. " - " .. NOW .. [[) / 1000000.0::float8 END, c.format = 'i'
FROM {cache} AS c WHERE {own} AND NOT EXISTS (SELECT FROM tried)]], "tyyii" },

  -- Fixed: a count that begins anew when its window is over.  $4 the request's count, $5 microseconds of the window, $6 the
  -- limit.  allowed?, count, seconds until the window is over
  rate_fixed = { [[
WITH tried AS (
    INSERT INTO {cache} AS c (namespace, key, long_key, value, format, version, expires_at)
    VALUES ($1, $2, $3, convert_to($4::text, 'UTF8'), 'i', {version},
            statement_timestamp() + $5 * interval '1 microsecond')
    ON CONFLICT (user_id, namespace, key) DO UPDATE
    SET value = CASE WHEN {cLive} THEN convert_to((]] .. OLD .. [[ + $4)::text, 'UTF8') ELSE excluded.value END,
        format = 'i', version = {nextVersion},
        expires_at = CASE WHEN {cLive} THEN c.expires_at ELSE excluded.expires_at END
    WHERE NOT {cLive} OR (c.format = 'i' AND ]] .. OLD .. [[ + $4 <= $6)
    RETURNING ]] .. OLD .. [[ AS count, expires_at){tellTried}
SELECT true, count, extract(epoch FROM expires_at - statement_timestamp())::float8, true FROM tried
UNION ALL
SELECT false, CASE WHEN c.format = 'i' THEN ]] .. OLD .. [[ END,
       extract(epoch FROM c.expires_at)::float8 - extract(epoch FROM statement_timestamp())::float8, c.format = 'i'
FROM {cache} AS c WHERE {own} AND NOT EXISTS (SELECT FROM tried)]], "tyyiii" },
}

local rates = {}

--- Adds them to all the others.
---@param templates table<string, table>
function rates.add(templates)
  for name, template in pairs(TEMPLATES) do
    templates[name] = { template[1], template[2], false }
  end
end

return rates

--- What a warm-up on the server sends (warm/on_server.lua): the query is read once, into a table of the session's own with an
-- entry in each row; from there batches go into the cache by `warm_copy` (statements.lua).
--
-- The session's own tables are fpcache_warm and fpcache_warm_source; a row's number `n` is its place in the query's result.
local codec = require("fpcache.codec")
local sql = require("fpcache.sql")

local warm = {
  -- $ none; the caller's query follows
  source = "CREATE TEMP VIEW fpcache_warm_source AS ",
  columns = [[
SELECT attname AS name, atttypid::int8 AS type FROM pg_attribute
WHERE attrelid = 'pg_temp.fpcache_warm_source'::regclass AND attnum > 0 ORDER BY attnum]],
  clean = "DROP VIEW IF EXISTS pg_temp.fpcache_warm_source; DROP TABLE IF EXISTS pg_temp.fpcache_warm",
  target = [[
CREATE TEMP TABLE fpcache_warm (n bigint, key bytea, long_key bytea, value bytea, format "char", bad text)]],
  -- The query may change nothing; tables of the session's own may be written all the same.  One query may take an hour.
  begin = "BEGIN READ ONLY; SET LOCAL statement_timeout = 3600000",
  commit = "COMMIT",
  index = "CREATE INDEX ON pg_temp.fpcache_warm (n)",
  count = "SELECT count(*) AS n FROM pg_temp.fpcache_warm",
  -- $1 after, $2 up to
  bad = "SELECT n, bad FROM pg_temp.fpcache_warm WHERE n > $1::bigint AND n <= $2::bigint AND bad IS NOT NULL ORDER BY n",
}

-- {keyText} {valueText} {format} {problem}; $1 most bytes of a key, $2 of a value.  Long keys as in include/fpcache/key.h.
local FILL = [[
INSERT INTO pg_temp.fpcache_warm (n, key, long_key, value, format, bad)
SELECT n, CASE WHEN length(k) > 1024 THEN substr(k, 1, 1024) || sha256(k) ELSE k END,
       CASE WHEN length(k) > 1024 THEN k END, v, {format},
       CASE WHEN problem IS NOT NULL THEN problem
            WHEN length(k) = 0 THEN 'a key must not be empty'
            WHEN length(k) > $1::int8 THEN format('a key of %s bytes exceeds max_key_bytes (%s)', length(k), $1)
            WHEN length(v) > $2::int8 THEN format('a value of %s bytes exceeds max_value_bytes (%s)', length(v), $2) END
FROM (SELECT row_number() OVER () AS n, convert_to({keyText}, 'UTF8') AS k, convert_to({valueText}, 'UTF8') AS v,
             {problem} AS problem
      FROM pg_temp.fpcache_warm_source AS q) AS r]]

local INTEGERS = { [20] = true, [21] = true, [23] = true, [26] = true } -- int8, int2, int4, oid
local FLOATS = { [700] = true, [701] = true }
local BOOL = 16
local INFINITE = "('NaN', 'Infinity', '-Infinity')"

local function column(name)
  return "q." .. assert(sql.quote_identifier(name))
end

--- A float that is told from an integer, as the cache writes them.
local function float_text(c)
  return ("CASE WHEN %s::text ~ '^-?[0-9]+$' THEN %s::text || '.0' ELSE %s::text END"):format(c, c, c)
end

--- "exact" for what text and JSON write alike, "float", "text"
local function kind_of(type)
  type = tonumber(type)
  return (INTEGERS[type] or type == BOOL) and "exact" or FLOATS[type] and "float" or "text", type
end

local function no_field(c, path)
  return ("CASE WHEN %s IS NULL THEN %s END"):format(c, sql.quote_literal("no field " .. path))
end

--- The text of a template; nil, why where the server cannot make it as the client would.
local function template_text(parts, types)
  local pieces, problems = { "''" }, {}
  for _, part in ipairs(parts) do
    if type(part) == "string" then
      pieces[#pieces + 1] = sql.quote_literal(part)
    else
      if #part.names ~= 1 or not types[part.path] then return nil, "the query has no column " .. part.path end
      if kind_of(types[part.path]) == "float" then return nil, ("column %s is a float"):format(part.path) end
      local c = column(part.path)
      pieces[#pieces + 1] = c .. "::text"
      problems[#problems + 1] = no_field(c, part.path)
    end
  end
  return table.concat(pieces, " || "), problems
end

--- The whole row as JSON: NULL left out, what is no number and no boolean as text.
local function record_json(columns)
  local members, problems = {}, {}
  for i, one in ipairs(columns) do
    local c, kind = column(one.name), kind_of(one.type)
    local text = kind == "exact" and c .. "::text" or kind == "float" and float_text(c) or ("to_json(%s::text)::text"):format(c)
    members[i] = ("%s || (%s)"):format(sql.quote_literal(codec.json.encode(one.name) .. ":"), text) -- NULL when it is
    if kind == "float" then
      problems[#problems + 1] = ("CASE WHEN %s::text IN %s THEN %s END"):format(c, INFINITE,
        sql.quote_literal(("column %s is NaN or infinite, which JSON cannot hold"):format(one.name)))
    end
  end
  return ("'{' || array_to_string(ARRAY[%s]::text[], ',') || '}'"):format(table.concat(members, ",\n")), problems
end

local function single_value(part, types)
  if #part.names ~= 1 or not types[part.path] then return nil, "the query has no column " .. part.path end
  local c, kind, oid = column(part.path), kind_of(types[part.path])
  local format = kind == "float" and "f" or kind == "text" and "s" or oid == BOOL and "b" or "i"
  return kind == "float" and float_text(c) or c .. "::text", { no_field(c, part.path) }, format
end

--- The statement that makes entries of the query's rows.
---@param columns table[] { name, type } of the query
---@param key table parts of a template
---@param value table? parts; nil: the whole row
---@return string? sql $1 most bytes of a key, $2 of a value
---@return string? why not: what the client would make of it differs
function warm.fill(columns, key, value)
  local types = {}
  for _, one in ipairs(columns) do types[one.name] = one.type end
  local key_text, problems = template_text(key, types)
  if not key_text then return nil, problems end
  local value_text, more, format
  if not value then
    value_text, more = record_json(columns)
    format = "j"
  elseif #value == 1 and type(value[1]) == "table" then
    value_text, more, format = single_value(value[1], types)
  else
    value_text, more = template_text(value, types)
    format = "s"
  end
  if not value_text then return nil, more end
  for _, problem in ipairs(more) do problems[#problems + 1] = problem end
  problems[#problems + 1] = "NULL::text"
  return sql.fill(FILL, { keyText = key_text, valueText = value_text, format = sql.quote_literal(format) .. '::"char"',
    problem = "coalesce(" .. table.concat(problems, ",\n") .. ")" })
end

return warm

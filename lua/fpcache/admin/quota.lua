--- Quotas: how many entries and bytes the cache, or one user's part of it, may have.
local options = require("fpcache.options")
local session = require("fpcache.admin.session")
local core = require("fpcache.core")

local quota = {}

local NEEDS = "the owner of the cache"

local MOST = 2 ^ 49 -- 512 TB, more than a table of PostgreSQL takes

local function limit(value)
  if value > MOST then return ("must be at most %.0f, got %s"):format(MOST, tostring(value)) end
  return options.not_negative(value)
end

local OPTIONS = session.options {
  cache_of = { type = "string", default = "" }, -- whose; none: the whole table
  max_entries = { type = "integer", check = limit },
  max_bytes = { type = "integer", check = limit },
  remove = { type = "boolean" },
}

local function list(conn, quoted, o)
  local there, err = session.one(conn, o, "SELECT to_regclass($1 || '.fpcache_quotas') IS NOT NULL AS yes", quoted)
  if not there then return nil, err end
  if not there.yes then return nil, "schema: no cache is set up in this schema, or an older one; run `fpcache admin setup`" end
  local rows
  rows, err = conn:query(([[
SELECT user_id AS cache_of, max_entries, max_bytes, entries, bytes, excess FROM %s.fpcache_usage() ORDER BY user_id]]):format(
    quoted), o.bulk_timeout)
  if not rows then return nil, err end
  for _, row in ipairs(rows) do
    for name, value in pairs(row) do
      if value == core.null then row[name] = nil end
    end
  end
  return rows
end

--- Sets a quota of the whole table or of one user (with `remove` takes it away), and tells all of them.
---@param opts table connection options and { cache_of, max_entries, max_bytes, remove }
---@return table[]? quotas { cache_of ("": all users together), max_entries, max_bytes, entries, bytes, excess } as estimated
---@return string? err
function quota.quota(opts)
  local quotas, err = session.run(OPTIONS, opts, 2, NEEDS, function(conn, quoted, o)
    local there, reason = list(conn, quoted, o)
    if not there then return nil, reason end
    local ok = true
    if o.remove then
      if o.max_entries or o.max_bytes then return nil, "invalid: remove excludes max_entries and max_bytes" end
      ok, reason = conn:query(("DELETE FROM %s.fpcache_quotas WHERE user_id = $1"):format(quoted), o.timeout, o.cache_of)
    elseif o.max_entries or o.max_bytes then
      ok, reason = conn:query(([[
INSERT INTO %s.fpcache_quotas (user_id, max_entries, max_bytes) VALUES ($1, $2, $3)
ON CONFLICT (user_id) DO UPDATE SET max_entries = excluded.max_entries, max_bytes = excluded.max_bytes]]):format(quoted),
        o.timeout, o.cache_of, o.max_entries, o.max_bytes)
    elseif o.cache_of ~= "" then
      return nil, "invalid: a quota needs max_entries, max_bytes or both (or remove)"
    end
    if not ok then return nil, reason end
    return list(conn, quoted, o)
  end)
  return quotas, err
end

return quota

--- What is wrong with a cache, or soon will be, and what to do about it.
--
-- Each check is a function of what was asked of the server; it answers a level, what it saw, and a cure.
local connection = require("fpcache.connection")
local core = require("fpcache.core")
local options = require("fpcache.options")
local schema = require("fpcache.schema")
local sql = require("fpcache.sql")
local statements = require("fpcache.statements.doctor")
local units = require("fpcache.units")

local doctor = {}

local SAMPLE_ROWS = 10000

local bytes, duration = units.bytes, units.duration

-- name, function(facts) -> level, seen, cure; nothing where it does not apply.  In the order in which they are shown.
local CHECKS = {
  { "libpq", function()
    local version = core.versions().libpq
    local major = tonumber(version:match("^%d+"))
    if major < 14 then
      return "bad", ("libpq %s has no pipeline mode"):format(version), "install libpq 14 or later"
    end
    return "good", "libpq " .. version
  end },

  { "server", function(facts)
    local s = facts.server
    if s.is_standby then
      local is_logged = facts.table and not facts.table.unlogged
      return "bad", is_logged and "a standby: nothing can be written, near cache and filter do not answer"
        or "a standby: UNLOGGED tables cannot be read there", "connect to the primary (target_session_attrs=read-write)"
    elseif s.number < 140000 then
      return "advice", ("PostgreSQL %s sweeps expired rows slowly"):format(s.version),
        "PostgreSQL 14 or later has TID range scans"
    end
    return "good", ("PostgreSQL %s, up for %s"):format(s.version, duration(s.up_s))
  end },

  { "restarts", function(facts)
    local s = facts.server
    if s.is_standby or s.up_s > 3600 then return end
    return "advice", ("the server started %s ago; a crash or a compute that scales to zero empties an UNLOGGED table"):format(
      duration(s.up_s)), "where that happens often: `fpcache admin setup --logged`, or switch scaling to zero off"
  end },

  { "clock", function(facts)
    local skew = facts.server.clock - facts.here
    if math.abs(skew) > 1 + facts.asked_s then
      return "advice", ("the server's clock is %.1f s %s of ours; TTLs are the server's, `expires_at` is ours"):format(
        math.abs(skew), skew > 0 and "ahead" or "behind"), "let both follow the same time service"
    end
    return "good", ("within %.1f s of the server's"):format(math.abs(skew) + facts.asked_s)
  end },

  { "pooler", function(facts)
    if not facts.is_pooled then return "good", "each connection has a server process of its own" end
    if facts.prepared then
      return "bad", "a transaction pooler stands in between: prepared statements and settings of a session get lost",
        "fpcache.new{ prepared = false }, or connect to the server itself"
    end
    return "good", "a transaction pooler, and prepared = false"
  end },

  { "connections", function(facts)
    local s = facts.server
    if s.connections > 0.8 * s.connections_max then
      return "advice", ("%d of max_connections = %d are in use"):format(s.connections, s.connections_max),
        "lower maxconn, put a pooler in between, or raise max_connections"
    end
    return "good", ("%d of %d in use"):format(s.connections, s.connections_max)
  end },

  { "schema", function(facts)
    if not facts.server.has_versions then
      return "bad", "nothing is set up here", "fpcache admin setup"
    elseif not facts.version then
      return -- this login may not see it: a matter of rights
    elseif facts.version < schema.VERSION then
      return "bad", ("version %d, this fpcache needs %d"):format(facts.version, schema.VERSION), "fpcache admin upgrade"
    elseif facts.version > schema.VERSION then
      return "bad", ("version %d, this fpcache knows %d"):format(facts.version, schema.VERSION), "install a newer fpcache"
    end
    return "good", ("version %d"):format(facts.version)
  end },

  { "rights", function(facts)
    if not facts.server.has_table then return end
    local grant = ("fpcache admin setup --grant %s, as the owner %s"):format(facts.server.login, facts.table.owner)
    if not facts.uses_schema then return "bad", ("no USAGE on the schema for %s"):format(facts.server.login), grant end
    if facts.missing ~= "" then
      return "bad", ("%s lacks %s"):format(facts.server.login, facts.missing), grant
    elseif not facts.tellers.may_tell then
      return "advice", ("%s has rights on cache and not on fpcache_entries: triggers tell what it writes, slower"):format(
        facts.server.login), grant
    end
    return "good", facts.server.login .. " may do all it needs"
  end },

  { "isolation", function(facts)
    if not facts.table then return end
    if not facts.table.isolated then
      return "bad", "row-level security is off: every user of the table sees everybody's rows",
        "ALTER TABLE … ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
    elseif facts.tellers.forgers then
      return "advice", ("%s may write the change feed in others' names, who then look up in vain"):format(facts.tellers.forgers),
        "REVOKE INSERT ON fpcache_feed FROM …, then fpcache admin setup --grant …: that gives what is needed"
    elseif facts.server.unbound then
      return "advice", ("%s is a superuser or has BYPASSRLS: it is not bound by row-level security"):format(facts.server.login),
        "let applications log in as a plain role"
    end
    return "good", "row-level security, forced"
  end },

  { "unlogged", function(facts)
    if not facts.table then return end
    if not facts.table.unlogged then
      return "advice", "the table is LOGGED: writes go through the write-ahead log as well",
        "a cache rarely needs that: ALTER TABLE … SET UNLOGGED"
    end
    return "good", "the table is UNLOGGED"
  end },

  { "autovacuum", function(facts)
    if not facts.table then return end
    if not facts.server.autovacuum or facts.table.autovacuum_off then
      return "bad", "autovacuum is off: the table grows and its plans get old",
        facts.server.autovacuum and "ALTER TABLE … RESET (autovacuum_enabled)" or "autovacuum = on in postgresql.conf"
    end
    return "good", "on"
  end },

  { "bloat", function(facts)
    local t = facts.table
    if not t then return end
    local share = t.dead / math.max(t.rows + t.dead, 1)
    if t.dead > 10000 and share > 0.4 then
      return "advice", ("%d of %d rows are dead (%.0f %%)"):format(t.dead, t.rows + t.dead, 100 * share),
        "VACUUM now; a long transaction or a replication slot may hold it up (pg_stat_activity.backend_xmin)"
    end
    local hot = t.updates > 0 and (", %.0f %% of the updates heap-only"):format(100 * t.hot_updates / t.updates) or ""
    return "good", ("%s, about %d rows, %.0f %% dead%s"):format(bytes(t.bytes), t.rows, 100 * share, hot)
  end },

  { "expired", function(facts)
    local e = facts.expired
    if not e or e.seen == 0 then return end
    local share = e.expired / e.seen
    if e.expired > 1000 and share > 0.5 then
      return "advice", ("%.0f %% of this login's rows have expired"):format(100 * share),
        "sweep them: cache:cleanup() now and then"
    end
    return "good", ("%.0f %% of this login's rows have expired"):format(100 * share)
  end },

  { "memory", function(facts)
    local t, s = facts.table, facts.server
    if not t then return end
    if t.bytes > s.buffer_bytes then
      return "advice", ("the cache (%s) is larger than shared_buffers (%s)"):format(bytes(t.bytes), bytes(s.buffer_bytes)),
        "raise shared_buffers, or keep less"
    end
    return "good", ("%s fit into shared_buffers (%s)"):format(bytes(t.bytes), bytes(s.buffer_bytes))
  end },

  { "filter", function(facts)
    if not facts.table then return end
    if facts.table.rows > facts.cuckoo_capacity then
      return "advice", ("about %d rows, and cuckoo_capacity is %d: the filter grows while it loads"):format(facts.table.rows,
        facts.cuckoo_capacity), "set cuckoo_capacity to the number of keys of one login"
    end
    return "good", ("room for %d keys"):format(facts.cuckoo_capacity)
  end },

  { "feed", function(facts)
    local f = facts.feed
    if not f then return end
    if f.states ~= 1 then
      return "advice", "the table was emptied, and no process has noticed yet", "a process with feed = true begins anew by itself"
    elseif f.bytes > 256 * 1024 * 1024 or (f.bytes > 1024 * 1024 and (f.rotated_ago or math.huge) > 120) then
      return "advice", bytes(f.bytes) .. (f.rotated_ago and ", last rotated %s ago" or ", never rotated"):format(
        duration(f.rotated_ago or 0)),
        "no process reads it, or a long transaction holds it up: let one run with feed = true"
    end
    return "good", bytes(f.bytes)
  end },
}

local function one(conn, o, text, ...)
  local rows, err = conn:query(text, o.timeout, ...)
  if not rows then return nil, err end
  return rows[1] or {}
end

--- Whether two connections share a server process, which only a transaction pooler makes them.
local function shares_a_backend(pool, conn, o)
  local first, err = one(conn, o, statements.backend)
  if not first then return nil, err end
  local other
  other, err = pool:acquire(o.timeout)
  if not other then return nil, err end
  local ok, second
  ok, err = other:script("BEGIN", o.timeout)
  if ok then second, err = one(other, o, statements.backend) end
  if second then other:script("ROLLBACK", o.timeout) end
  other:close()
  if not second then return nil, err end
  return first.pid == second.pid
end

--- Facts about the cache's tables, where they are there and this login may see them.
local function look_at_tables(conn, o, quoted, facts)
  local row, err = one(conn, o, statements.uses_schema, o.schema)
  if not row then return nil, err end
  facts.uses_schema = row.usage
  row, err = one(conn, o, statements.rights, o.schema)
  if not row then return nil, err end
  facts.missing = row.missing
  facts.tellers, err = one(conn, o, statements.tellers, o.schema)
  if not facts.tellers then return nil, err end
  facts.table, err = one(conn, o, statements.table_, o.schema)
  if not facts.table then return nil, err end
  if not facts.uses_schema or facts.missing:find("fpcache_schema", 1, true) then return true end
  local places = sql.feed_places(quoted)
  row, err = one(conn, o, sql.fill(statements.versions, places))
  if not row then return nil, err end
  facts.version = row.version
  if facts.version ~= schema.VERSION or facts.missing ~= "" then return true end
  if facts.server.is_standby and facts.table.unlogged then return true end -- its rows are the primary's
  facts.feed, err = one(conn, o, sql.fill(statements.feed, places))
  if not facts.feed then return nil, err end
  local share = 100 * math.min(1, SAMPLE_ROWS / math.max(facts.table.rows, 1))
  facts.expired, err = one(conn, o, sql.fill(statements.expired, places), ("%.9g"):format(share))
  return facts.expired and true, err
end

local function gather(pool, o, quoted)
  local conn, err = pool:acquire(o.timeout)
  if not conn then return nil, err end
  local facts = { prepared = o.prepared, cuckoo_capacity = o.cuckoo_capacity }
  local begun = core.system.now()
  facts.server, err = one(conn, o, statements.server, o.schema)
  facts.asked_s = core.system.now() - begun
  facts.here = core.system.wall() - facts.asked_s / 2
  local ok = facts.server ~= nil
  if ok then
    facts.is_pooled, err = shares_a_backend(pool, conn, o)
    ok = facts.is_pooled ~= nil
  end
  if ok and facts.server.has_table and facts.server.has_versions then
    ok, err = look_at_tables(conn, o, quoted, facts)
  end
  conn:close()
  if not ok then return nil, err end
  return facts
end

local OPTIONS = options.join(connection.OPTIONS, {
  cuckoo_capacity = { type = "integer", default = 1000000, check = options.not_negative },
})

---@class fpcache.Finding
---@field name string what was looked at
---@field level "good"|"advice"|"bad"
---@field seen string
---@field cure string? what to do about it

--- Looks at a cache as the login that uses it.
---@param opts table connection options of fpcache.new, schema, cuckoo_capacity
---@return fpcache.Finding[]? findings
---@return string? err when the server could not be asked
function doctor.examine(opts)
  local o = options.read(OPTIONS, opts, 2)
  local pool, quoted = connection.open_few(o, 2, 2)
  if not pool then return nil, quoted end
  local facts, err = gather(pool, o, quoted)
  pool:close()
  if not facts then return nil, err end
  local findings = {}
  for _, check in ipairs(CHECKS) do
    local level, seen, cure = check[2](facts)
    if level then findings[#findings + 1] = { name = check[1], level = level, seen = seen, cure = cure } end
  end
  return findings
end

return doctor

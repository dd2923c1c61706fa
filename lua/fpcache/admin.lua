--- Setting the schema up, upgrading, granting, dropping it.  For administrators; users only connect.
local quota = require("fpcache.admin.quota")
local schema = require("fpcache.schema")
local session = require("fpcache.admin.session")
local sql = require("fpcache.sql")
local watch = require("fpcache.admin.watch")

local admin = { quota = quota.quota, watch = watch.watch, unwatch = watch.unwatch, watches = watch.watches }
local one = session.one

local function roles(value)
  for _, role in ipairs(type(value) == "table" and value or {}) do
    if type(role) ~= "string" then return "a role's name or a list of them is expected" end
  end
end

local OPTIONS = session.options {
  logged = { type = "boolean" }, -- a table that survives a crash, and is slower
  force = { type = "boolean" },  -- drop what is there first: DELETES ALL CACHED DATA
  grant = { type = "string table", check = roles }, -- role or roles that may use the cache; "public" for all
}

local NEEDS = "the owner of the cache, or for a first setup a role that may create tables there"

local function with_connection(opts, level, work)
  local report, err = session.run(OPTIONS, opts, level + 1, NEEDS, work)
  return report, err
end

--- What stands in the database.
local function inspect(conn, quoted, o)
  local found, err = one(conn, o, [[
SELECT to_regnamespace($1) IS NOT NULL AS has_schema, to_regclass($1 || '.cache') IS NOT NULL AS has_table,
       to_regclass($1 || '.fpcache_schema') IS NOT NULL AS has_versions,
       session_user::text AS user, current_database()::text AS database, version() AS server]], quoted)
  if not found then return nil, err end
  local report = {
    schema = o.schema, database = found.database, user = found.user, server = found.server,
    has_schema = found.has_schema, has_table = found.has_table, version = 0, latest = schema.VERSION,
  }
  if found.has_versions then
    local row
    row, err = one(conn, o, ("SELECT coalesce(max(version), 0) AS version FROM %s.fpcache_schema"):format(quoted))
    if not row then return nil, err end
    report.version = row.version
  end
  report.is_foreign = report.has_table and report.version == 0
  if report.has_table then
    local row
    row, err = one(conn, o, sql.fill([[
SELECT c.relpersistence = 'u' AS unlogged, greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0) AS rows,
       pg_total_relation_size(c.oid) AS bytes, pg_get_userbyid(c.relowner) AS owner,
       (SELECT bool_and(t.relrowsecurity AND t.relforcerowsecurity) FROM pg_class AS t
        WHERE t.oid IN (to_regclass({relation}), to_regclass({entries}))) AS isolated,
       (SELECT s.is_on FROM {switch} AS s) AS feed_on
FROM pg_class AS c WHERE c.oid = {rows}]], schema.places(quoted)))
    if not row then return nil, err end
    for name, value in pairs(row) do report[name] = value end
  end
  return report
end

--- Runs the migrations that are missing.
local function migrate(conn, quoted, o, report)
  if not report.has_schema then
    local ok, err = conn:script("CREATE SCHEMA " .. quoted, o.timeout)
    if not ok then return nil, err end
  end
  local ok, err = conn:script(sql.fill(schema.VERSION_TABLE, { schema = quoted }), o.timeout)
  if not ok then return nil, err end
  report.applied = {}
  local is_logged = o.logged or false
  if report.version > 0 then is_logged = not report.unlogged end -- what is added lives and dies with what is there
  for _, migration in ipairs(schema.MIGRATIONS) do
    local version = migration.version
    if version > report.version then
      ok, err = conn:script(schema.migration_sql(migration, quoted, is_logged), o.bulk_timeout)
      if ok then
        ok, err = conn:query(sql.fill(schema.RECORD, { schema = quoted }), o.timeout, version, migration.name)
      end
      if not ok then return nil, ("%s (in migration %d, %s)"):format(err, version, migration.name) end
      report.applied[#report.applied + 1] = migration.name
    end
  end
  return true
end

--- The grants for roles that are named ("public" is everybody) and, after a migration, for those that had them.
local function grant(conn, quoted, o, report)
  report.granted = type(o.grant) == "table" and o.grant or { o.grant }
  local grantees = {}
  for i, role in ipairs(report.granted) do grantees[i] = role end
  if #report.applied > 0 then -- who may use the cache may use what a migration added to it
    local users, err = conn:query([[
SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'public' ELSE pg_get_userbyid(a.grantee) END AS role
FROM pg_class AS c, aclexplode(c.relacl) AS a
WHERE c.oid = to_regclass($1 || '.cache') AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner]],
      o.timeout, quoted)
    if not users then return nil, err end
    for _, user in ipairs(users) do grantees[#grantees + 1] = user.role end
  end
  for _, role in ipairs(grantees) do
    local quoted_role, err = "PUBLIC", nil
    if role:lower() ~= "public" then quoted_role, err = sql.quote_identifier(role) end
    if not quoted_role then return nil, err end
    local ok
    ok, err = conn:script(schema.grants_sql(quoted, quoted_role), o.timeout)
    if not ok then return nil, err end
  end
  return true
end

local function foreign(report)
  return ("schema: there is a table %s.cache that fpcache did not make, perhaps by the Python library; choose another "
    .. "schema, or replace it with --force, which deletes what it holds"):format(report.schema)
end

local function install(conn, quoted, o, may_create)
  local report, err = inspect(conn, quoted, o)
  if not report then return nil, err end
  report.version_before = report.version
  local ok, watched
  if o.force then
    watched, err = watch.list(conn, quoted, o)
    if not watched then return nil, err end
    ok, err = conn:script(schema.drop_sql(quoted), o.bulk_timeout)
    if not ok then return nil, err end
    report.version, report.recreated = 0, report.has_table
  elseif report.is_foreign then
    return nil, foreign(report)
  elseif report.version > schema.VERSION then
    return nil, ("schema: the database has version %d and this fpcache knows %d; install a newer fpcache"):format(
      report.version, schema.VERSION)
  elseif report.version == 0 and not may_create then
    return nil, ("schema: nothing to upgrade in schema %s; run `fpcache admin setup`"):format(o.schema)
  end
  ok, err = migrate(conn, quoted, o, report)
  if not ok then return nil, err end
  ok, err = watch.restore(conn, quoted, o, watched or {}) -- tables go on being watched
  if not ok then return nil, err end
  ok, err = grant(conn, quoted, o, report)
  if not ok then return nil, err end
  local after
  after, err = inspect(conn, quoted, o)
  if not after then return nil, err end
  for name, value in pairs(after) do report[name] = value end
  return report
end

--- Installs or upgrades the schema; keeps the data; safe to repeat.
---@param opts table connection options, schema, logged, grant (role or list), force
---@return table? report { schema, version, applied = {names}, granted = {roles}, unlogged, ... }
---@return string? err
function admin.setup(opts)
  local report, err = with_connection(opts, 2, function(conn, quoted, o) return install(conn, quoted, o, true) end)
  return report, err
end

--- Runs the migrations that are missing; nothing is created where nothing was set up.
---@param opts table? connection options, schema
---@return table? report, string? err
function admin.upgrade(opts)
  local report, err = with_connection(opts, 2, function(conn, quoted, o) return install(conn, quoted, o, false) end)
  return report, err
end

--- What is installed.
---@param opts table? connection options, schema
---@return table? report { version (0: nothing), latest, has_table, unlogged, isolated, rows, bytes, owner, ... }
---@return string? err
function admin.status(opts)
  local report, err = with_connection(opts, 2, inspect)
  return report, err
end

--- Switches the change feed of a schema on or off.  Waits up to `timeout` for statements that have begun, while later ones wait
-- for it, 50 ms at a time.  Off: writes cost less,
-- and neither near cache nor filter of anybody answers.
---@param opts table connection options, schema
---@param is_on boolean
---@return table? report as of status(), string? err
function admin.switch_feed(opts, is_on)
  if type(is_on) ~= "boolean" then error(("bad is_on (boolean expected, got %s)"):format(type(is_on)), 2) end
  local report, err = with_connection(opts, 2, function(conn, quoted, o)
    local report, err = inspect(conn, quoted, o)
    if not report then return nil, err end
    if report.version < schema.VERSION then
      return nil, ("schema: there is no up-to-date cache in schema %s; run `fpcache admin setup`"):format(o.schema)
    end
    if report.feed_on == is_on then return report end
    local ok
    ok, err = conn:script(schema.switch_sql(quoted, is_on), o.timeout)
    if not ok then return nil, err end
    return inspect(conn, quoted, o)
  end)
  return report, err
end

--- Removes the schema's objects and all cached data; the schema itself stays.
---@param opts table? connection options, schema
---@return table? report what was there, string? err
function admin.drop(opts)
  local report, err = with_connection(opts, 2, function(conn, quoted, o)
    local report, err = inspect(conn, quoted, o)
    if not report then return nil, err end
    if report.is_foreign and not o.force then return nil, foreign(report) end
    local ok
    ok, err = conn:script(schema.drop_sql(quoted), o.bulk_timeout)
    if not ok then return nil, err end
    return report
  end)
  return report, err
end

return admin

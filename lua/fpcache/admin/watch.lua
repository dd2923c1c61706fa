--- Watched tables: whatever writes one, the keys of the rows it wrote are deleted in the same transaction.
--
-- A watch is a row in fpcache_watches, a trigger function that is made for it and belongs to the owner of the cache, and
-- four triggers for each statement (with transition tables: one call for any number of rows).  docs/watch.md is for users.
local codec = require("fpcache.codec")
local core = require("fpcache.core")
local key_range = require("fpcache.key_range")
local limits = require("fpcache.limits")
local session = require("fpcache.admin.session")
local sql = require("fpcache.sql")
local template = require("fpcache.admin.template")

local watch = {}

local NEEDS = "the owner of the cache (or a superuser) with the right TRIGGER on the table"

local function strings(what)
  return function(value)
    for _, text in ipairs(type(value) == "table" and value or {}) do
      if type(text) ~= "string" then return ("%s or a list of them is expected"):format(what) end
    end
  end
end

local OPTIONS = session.options {
  table = { type = "string" }, -- as in SQL: shop.products, "Odd Name"
  key = { type = "string table", check = strings("a template") },
  tag = { type = "string table", check = strings("a template") },
  namespace = { type = "string", default = "", check = limits.namespace },
  cache_of = { type = "string table", check = strings("a role's name") }, -- whose; none: everybody's
  id = { type = "integer" },
}

-- {keys}, {tags}: expressions over row r; the settings fix how a column reads as text, whoever writes.
local FUNCTION = [==[
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD' SET timezone = 'UTC' SET intervalstyle = 'postgres' SET bytea_output = 'hex' SET extra_float_digits = 1
AS {body}
DECLARE
    keys bytea[];
    tags bytea[];
BEGIN
    IF TG_OP = 'INSERT' THEN
        keys := {newKeys};
        tags := {newTags};
    ELSIF TG_OP = 'UPDATE' THEN
        keys := {bothKeys};
        tags := {bothTags};
    ELSIF TG_OP = 'DELETE' THEN
        keys := {oldKeys};
        tags := {oldTags};
    ELSE
        PERFORM {schema}.fpcache_forget_ranges({users}, {namespace}, {ranges});
        RETURN NULL;
    END IF;
    IF cardinality(keys) + cardinality(tags) > 0 THEN
        PERFORM {schema}.fpcache_forget({users}, {namespace}, keys, tags);
    END IF;
    RETURN NULL;
END {body};
ALTER FUNCTION {name}() OWNER TO {owner};
REVOKE EXECUTE ON FUNCTION {name}() FROM PUBLIC;
CREATE TRIGGER {trigger}_insert AFTER INSERT ON {relation}
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE PROCEDURE {name}();
CREATE TRIGGER {trigger}_update AFTER UPDATE ON {relation}
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE PROCEDURE {name}();
CREATE TRIGGER {trigger}_delete AFTER DELETE ON {relation}
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE PROCEDURE {name}();
CREATE TRIGGER {trigger}_truncate AFTER TRUNCATE ON {relation} FOR EACH STATEMENT EXECUTE PROCEDURE {name}()]==]

local ROWS = {
  new = "SELECT * FROM new_rows", old = "SELECT * FROM old_rows",
  both = "SELECT * FROM old_rows UNION ALL SELECT * FROM new_rows",
}

local function bytea_literal(bytes)
  return "E'\\\\x" .. bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end) .. "'::bytea"
end

local function array(list, type_name)
  return ("ARRAY[%s]::%s[]"):format(table.concat(list, ", "), type_name)
end

--- The bytes of some texts over the rows of each kind, each once; `wrap` is the SQL around one.
local function collect(places, name, expressions, wrap)
  for kind, rows in pairs(ROWS) do
    local bytes = {}
    for i, expression in ipairs(expressions) do bytes[i] = ("(convert_to(%s, 'UTF8'))"):format(expression) end
    places[kind .. name] = #bytes == 0 and "ARRAY[]::bytea[]" or ([[ARRAY(
            SELECT DISTINCT %s FROM (%s) AS r CROSS JOIN LATERAL (VALUES %s) AS v (bytes) WHERE length(v.bytes) > 0]]
      .. (name == "Tags" and " AND length(v.bytes) < 256" or "") .. ")"):format(wrap, rows, table.concat(bytes, ", "))
  end
end

--- The SQL of one watch.
local function function_sql(quoted, found, id, definition, templates)
  local places = {
    name = ("%s.fpcache_watch_%d"):format(quoted, id), trigger = ("fpcache_watch_%d"):format(id), schema = quoted,
    owner = found.owner, relation = found.relation, namespace = sql.quote_literal(definition.namespace),
    users = "NULL::text[]",
  }
  if definition.users then
    local users = {}
    for i, user in ipairs(definition.users) do users[i] = sql.quote_literal(user) end
    places.users = array(users, "text")
  end
  local ranges = {}
  for _, kind in ipairs { "keys", "tags" } do
    local expressions, low, high = {}, {}, {}
    for i, parts in ipairs(templates[kind]) do
      local err
      expressions[i], err = template.expression(parts, "r")
      if not expressions[i] then return nil, err end
      local first, last = key_range.of_prefix(template.prefix(parts))
      if not first then return nil, last end
      low[i], high[i] = bytea_literal(first), bytea_literal(last)
    end
    ranges[#ranges + 1] = array(low, "bytea")
    ranges[#ranges + 1] = array(high, "bytea")
    collect(places, kind == "keys" and "Keys" or "Tags", expressions,
      kind == "keys" and quoted .. ".fpcache_stored_key(v.bytes)" or "v.bytes")
  end
  places.ranges = table.concat(ranges, ", ")
  local all = {}
  for _, place in pairs(places) do all[#all + 1] = place end
  places.body = sql.dollar_quote(table.concat(all, "\n"))
  return sql.fill(FUNCTION, places)
end

--- The table by its name in SQL.
local function find_table(conn, quoted, o, name)
  local found, err = session.one(conn, o, [[
SELECT c.oid::bigint AS oid, format('%I.%I', n.nspname, c.relname) AS relation, c.relkind, c.relispartition AS is_partition,
       (SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = to_regclass($2 || '.cache')) AS owner,
       to_regclass($2 || '.fpcache_watches') IS NOT NULL AS is_set_up
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)]], name, quoted)
  if not found then return nil, err end
  if not found.oid then return nil, ("invalid: there is no table %s that this role can see"):format(name) end
  if not found.is_set_up then
    return nil, "schema: no cache is set up in this schema, or an older one; run `fpcache admin setup`" end
  if found.relkind ~= "r" and found.relkind ~= "p" then
    return nil, ("invalid: %s is no table that can be watched (only ordinary and partitioned ones can)"):format(name)
  end
  if found.is_partition then
    return nil, ("invalid: %s is a partition; watch the table it belongs to, since writes that go through that one do not "
      .. "call the partition's triggers"):format(name)
  end
  return found
end

--- The templates of a definition, taken apart; every column must be one of the table's.
local function read_templates(conn, o, found, definition)
  local rows, err = conn:query(
    "SELECT attname AS name FROM pg_attribute WHERE attrelid = $1::oid AND attnum > 0 AND NOT attisdropped", o.timeout,
    found.oid)
  if not rows then return nil, err end
  local is_column = {}
  for _, row in ipairs(rows) do is_column[row.name] = true end
  local templates = {}
  for _, kind in ipairs { "keys", "tags" } do
    templates[kind] = {}
    for i, text in ipairs(definition[kind]) do
      local parts, reason = template.parse(text)
      if not parts then return nil, reason end
      for _, part in ipairs(parts) do
        if type(part) == "table" and not is_column[part.column] then
          return nil, ("invalid: %s has no column %s (in the template %q)"):format(found.relation, part.column, text)
        end
      end
      templates[kind][i] = parts
    end
  end
  return templates
end

local function create(conn, quoted, o, found, definition)
  local templates, err = read_templates(conn, o, found, definition)
  if not templates then return nil, err end
  local row
  row, err = session.one(conn, o, ("INSERT INTO %s.fpcache_watches (relation, definition) VALUES ($1::oid::regclass, $2) "
    .. "RETURNING id"):format(quoted), found.oid, assert(codec.json.encode(definition)))
  if not row then return nil, err end
  local text
  text, err = function_sql(quoted, found, row.id, definition, templates)
  if not text then return nil, err end
  local ok
  ok, err = conn:script(text, o.bulk_timeout)
  if not ok then return nil, err end
  return row.id
end

--- The first column of a definition that the table does not have (any more).
local function missing_column(definition, columns)
  local is_column = {}
  for _, name in ipairs(columns) do is_column[name] = true end
  for _, kind in ipairs { "keys", "tags" } do
    for _, text in ipairs(definition[kind]) do
      for _, part in ipairs(template.parse(text) or {}) do
        if type(part) == "table" and not is_column[part.column] then return part.column end
      end
    end
  end
end

--- All watches there are; none where the table of watches is not.
---@return table[]? list { id, table, keys, tags, namespace, users, state, made_by }
---@return string? err
function watch.list(conn, quoted, o)
  local there, err = session.one(conn, o, "SELECT to_regclass($1 || '.fpcache_watches') IS NOT NULL AS yes", quoted)
  if not there then return nil, err end
  if not there.yes then return {} end
  local rows
  rows, err = conn:query(([[
SELECT w.id, w.relation::oid::bigint AS oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS relation, w.definition,
       w.made_by,
       (SELECT count(*) FROM pg_trigger AS t WHERE t.tgrelid = w.relation AND t.tgenabled <> 'D'
          AND t.tgfoid = to_regprocedure($1 || '.fpcache_watch_' || w.id || '()')) AS triggers,
       (SELECT coalesce(json_agg(a.attname), '[]')::text FROM pg_attribute AS a
        WHERE a.attrelid = w.relation AND a.attnum > 0 AND NOT a.attisdropped) AS columns
FROM %s.fpcache_watches AS w LEFT JOIN pg_class AS c ON c.oid = w.relation LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY w.id]]):format(quoted), o.timeout, quoted)
  if not rows then return nil, err end
  local list = {}
  for i, row in ipairs(rows) do
    local entry = assert(codec.json.decode(row.definition))
    entry.id, entry.oid, entry.made_by = row.id, row.oid, row.made_by
    local is_gone = row.relation == nil or row.relation == core.null
    entry.table = not is_gone and row.relation or nil
    local missing = not is_gone and missing_column(entry, assert(codec.json.decode(row.columns)))
    entry.state = is_gone and "the table is gone" or missing and ("writes fail: there is no column %s any more"):format(missing)
      or row.triggers == 4 and "watching" or "triggers are missing or disabled"
    list[i] = entry
  end
  return list
end

--- A text that is the same for the same definition.
local function fingerprint(definition)
  local parts = { definition.namespace }
  for _, kind in ipairs { "keys", "tags", "users" } do
    for _, text in ipairs(definition[kind] or {}) do parts[#parts + 1] = kind .. "=" .. text end
  end
  return table.concat(parts, "\0")
end

--- Makes watches again after the schema was made anew.
---@param list table[] as watch.list() gave it
function watch.restore(conn, quoted, o, list)
  for _, entry in ipairs(list) do
    if entry.table then
      local found, err = find_table(conn, quoted, o, entry.table)
      if not found then return nil, err end
      local id
      id, err = create(conn, quoted, o, found,
        { keys = entry.keys, tags = entry.tags, namespace = entry.namespace, users = entry.users })
      if not id then return nil, err end
    end
  end
  return true
end

local function list_of(value)
  local list = setmetatable({}, codec.array_mt)
  for i, text in ipairs(type(value) == "table" and value or { value }) do list[i] = text end
  return list
end

--- Watches a table.  The same again changes nothing.
---@param opts table connection options and { table, key, tag, namespace, cache_of }; key, tag, cache_of: one or a list
---@return table? report { id, table, keys, tags, namespace, users, is_new }
---@return string? err
function watch.watch(opts)
  local report, err = session.run(OPTIONS, opts, 2, NEEDS, function(conn, quoted, o)
    if not o.table then return nil, "invalid: which table is to be watched? (table)" end
    local definition = { keys = list_of(o.key), tags = list_of(o.tag), namespace = o.namespace,
      users = o.cache_of and list_of(o.cache_of) or nil }
    if #definition.keys + #definition.tags == 0 then
      return nil, "invalid: a watch needs a key or a tag to invalidate (key, tag)"
    end
    local found, reason = find_table(conn, quoted, o, o.table)
    if not found then return nil, reason end
    local list
    list, reason = watch.list(conn, quoted, o)
    if not list then return nil, reason end
    local same = fingerprint(definition)
    for _, entry in ipairs(list) do
      if entry.oid == found.oid and entry.state == "watching" and fingerprint(entry) == same then
        entry.is_new = false
        return entry
      end
    end
    definition.id, reason = create(conn, quoted, o, found, definition)
    if not definition.id then return nil, reason end
    definition.table, definition.is_new = found.relation, true
    return definition
  end)
  return report, err
end

--- Ends the watch `id`, or all watches of `table`.
---@param opts table connection options and { id } or { table }
---@return table[]? removed as in watches; empty when there were none
---@return string? err
function watch.unwatch(opts)
  local removed, err = session.run(OPTIONS, opts, 2, NEEDS, function(conn, quoted, o)
    if (o.id == nil) == (o.table == nil) then return nil, "invalid: which watch is to end? (either id or table)" end
    local list, reason = watch.list(conn, quoted, o)
    if not list then return nil, reason end
    local found
    if o.table then
      found, reason = find_table(conn, quoted, o, o.table)
      if not found then return nil, reason end
    end
    local gone = {}
    for _, entry in ipairs(list) do
      if entry.id == o.id or found and entry.oid == found.oid then
        local ok
        ok, reason = conn:script(("DROP FUNCTION IF EXISTS %s.fpcache_watch_%d() CASCADE; DELETE FROM %s.fpcache_watches "
          .. "WHERE id = %d"):format(quoted, entry.id, quoted, entry.id), o.bulk_timeout)
        if not ok then return nil, reason end
        gone[#gone + 1] = entry
      end
    end
    return gone
  end)
  return removed, err
end

--- The watches there are.
---@return table[]? list { id, table, keys, tags, namespace, users, state, made_by }; table is nil when it is gone
---@return string? err
function watch.watches(opts)
  local list, err = session.run(OPTIONS, opts, 2, NEEDS, watch.list)
  return list, err
end

return watch

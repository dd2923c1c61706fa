--- Slow calls of many processes, and slow statements of the server.
local connection = require("fpcache.connection")
local options = require("fpcache.options")
local sql = require("fpcache.sql")
local statements = require("fpcache.statements.top")

local slow = {}

--- The slow calls that processes published, the newest first.
---@param processes table[] of published.read
---@return table[] calls each with pid and host
function slow.calls(processes)
  local calls = {}
  for _, one in ipairs(processes) do
    for _, call in ipairs(type(one.slowlog) == "table" and one.slowlog or {}) do
      if type(call) == "table" and type(call.at) == "number" and type(call.seconds) == "number" then
        call.pid, call.host = one.pid, one.host
        calls[#calls + 1] = call
      end
    end
  end
  table.sort(calls, function(a, b) return a.at > b.at end)
  return calls
end

local function ask(conn, o, quoted, is_total)
  local rows, err = conn:query(statements.has_statements, o.timeout)
  if not rows then return nil, err end
  local found = rows[1]
  if not found then
    return nil, "invalid: this database has no pg_stat_statements (CREATE EXTENSION, and shared_preload_libraries); "
      .. "or read what applications publish, with --from DIR"
  end
  local is_new = found.number >= 130000 -- before that its columns had other names
  rows, err = conn:query(sql.fill(is_total and statements.statements_total or statements.statements, {
    statements = found.schema, total = is_new and "s.total_exec_time" or "s.total_time",
    mean = is_new and "s.mean_exec_time" or "s.mean_time", max = is_new and "s.max_exec_time" or "s.max_time",
  }), o.timeout, quoted .. ".")
  return rows, err
end

local function connect_and_ask(opts, is_total)
  local o = options.read(connection.OPTIONS, opts, 3)
  local pool, quoted = connection.open_few(o, 1, 3)
  if not pool then return nil, quoted end
  local rows
  local conn, err = pool:acquire(o.timeout)
  if conn then
    rows, err = ask(conn, o, quoted, is_total)
    conn:close()
  end
  pool:close()
  return rows, err
end

--- The statements on this cache that took longest, by pg_stat_statements.
---@param opts table connection options of fpcache.new
---@return table[]? list { text, calls, mean_s, max_s, rows, login }
---@return string? err
function slow.statements(opts)
  local list, err = connect_and_ask(opts, false)
  return list, err
end

--- What all statements of this login on this cache took so far, by pg_stat_statements.
---@param opts table connection options of fpcache.new
---@return table? total { calls, seconds }
---@return string? err
function slow.total(opts)
  local rows, err = connect_and_ask(opts, true)
  return rows and rows[1], err
end

return slow

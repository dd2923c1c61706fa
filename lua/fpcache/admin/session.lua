--- What all of `fpcache.admin` does the same way: one connection, one transaction, one administrator at a time.
local connection = require("fpcache.connection")
local options = require("fpcache.options")

local session = {}

-- Serialises two setups of one database; any number will do, as long as it is always this one.
local ADVISORY_LOCK = 7305808869229538304

--- A description of options: those of the connection and more.
---@param more table
---@return table
function session.options(more) return options.join(connection.OPTIONS, more) end

--- A refusal of the server in words that help an administrator.
local function explain(err, needs)
  if type(err) ~= "string" or not err:find("(SQLSTATE 42501)", 1, true) then return err end
  return err:gsub("^%a+", "denied", 1) .. "; this needs " .. needs
end

--- Calls work(conn, quoted_schema, o) on a connection of its own, in one transaction under the advisory lock.
---@param description table of the options, see session.options
---@param opts table the caller's
---@param level integer
---@param needs string what a refused caller has to be
---@param work fun(conn: userdata, quoted: string, o: table): any, string?
function session.run(description, opts, level, needs, work)
  local o = options.read(description, opts, level + 1)
  local pool, quoted = connection.open_few(o, 1, level + 1)
  if not pool then return nil, quoted end
  local conn, err = pool:acquire(o.timeout)
  if not conn then
    pool:close()
    return nil, err
  end
  local function run()
    -- A cache's server may run with synchronous_commit off: what an administrator was told is done outlives a crash.
    local ok, reason = conn:script(("BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_advisory_xact_lock(%d)"):format(
      ADVISORY_LOCK), o.bulk_timeout)
    if not ok then return nil, reason end
    local report
    report, reason = work(conn, quoted, o)
    if not report then return nil, reason end
    ok, reason = conn:script("COMMIT", o.bulk_timeout)
    if not ok then return nil, reason end
    return report
  end
  local called, report, reason = pcall(run)
  conn:close() -- still in a transaction: the pool closes it and the server rolls back
  pool:close()
  if not called then error(report, 0) end
  return report, explain(reason, needs)
end

--- The one row that a query gives.
---@return table? row, string? err
function session.one(conn, o, text, ...)
  local rows, err = conn:query(text, o.timeout, ...)
  if not rows then return nil, err end
  return rows[1] or {}
end

return session

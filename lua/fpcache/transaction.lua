--- Transactions: cache calls and the caller's own SQL, all or nothing.
--
-- Inside a transaction every answer is the server's: it may see rows that nobody else may see yet.  What it changed is
-- announced after COMMIT (see announce.lua).
local announce = require("fpcache.announce")
local core = require("fpcache.core")
local flights = require("fpcache.policy.flights")
local Cache = require("fpcache.client")

local MAX_PARAMETERS = core.MAX_SQL_PARAMS
local PARAMETER_TYPES = { string = true, number = true, boolean = true, ["nil"] = true }

---@class fpcache.Transaction: fpcache.Cache
local Transaction = setmetatable({ is_transaction = true }, { __index = Cache })
Transaction.__index = Transaction

--- Refuses parameters that SQL cannot take.
---@return string? err
local function check_parameters(level, ...)
  local count = select("#", ...)
  if count > MAX_PARAMETERS then
    error(("too many parameters (%d, at most %d)"):format(count, MAX_PARAMETERS), level + 1)
  end
  for i = 1, count do
    local value = (select(i, ...))
    local kind = type(value)
    if not (PARAMETER_TYPES[kind] or value == core.null or kind == "cdata" and core.int64(value)) then
      error(("bad parameter %d (string, number, boolean, nil or fpcache.null expected, got %s)"):format(i, kind),
        level + 1)
    end
    if kind == "string" and value:find("\0", 1, true) then
      return ("invalid: parameter %d holds a NUL byte, which SQL text cannot "
        .. "(encode it, or store it in the cache)"):format(i)
    end
  end
end

--- Tells this process what was changed.
local function publish(self)
  self.feed:publish()
  flights.publish(self.flow.flights, self.outer_flow.flights)
end

--- Runs the caller's own SQL, one statement.  COMMIT and ROLLBACK are not for it: the function's end decides.
---@param sql string with $1, $2, ... for the parameters
---@param ... any strings, numbers, booleans, nil or fpcache.null
---@return table|integer|nil rows a list of { column = value }; without columns the number of rows written
---@return string? err
function Transaction:query(sql, ...)
  if type(sql) ~= "string" then error(("bad sql (string expected, got %s)"):format(type(sql)), 2) end
  if sql:find("\0", 1, true) then return nil, "invalid: the SQL holds a NUL byte" end
  local problem = check_parameters(2, ...)
  if problem then return nil, problem end
  local rows, err = self.db:query(sql, self.bulk_timeout, ...)
  if rows and not self.db:in_transaction() then
    self.db:close() -- whatever follows would be no part of a transaction
    publish(self) -- it may have been a COMMIT
    return nil, "invalid: this SQL ended the transaction, which ends when its function returns"
  end
  return rows, err
end

--- Refused: a transaction ends by itself.
function Transaction.close()
  error("a transaction ends when its function returns", 2)
end

local function begin(db, is_nested, timeout)
  return db:script(is_nested and "SAVEPOINT fpcache" or "BEGIN", timeout)
end

local function roll_back(self, db, is_nested)
  if db:is_broken() then return end -- the server has done it
  db:script(is_nested and "ROLLBACK TO SAVEPOINT fpcache; RELEASE SAVEPOINT fpcache" or "ROLLBACK", self.timeout)
end

local function commit(db, is_nested, timeout)
  local command, err = db:script(is_nested and "RELEASE SAVEPOINT fpcache" or "COMMIT", timeout)
  if not command then return nil, err end
  if command == "ROLLBACK" then -- what PostgreSQL answers to COMMIT after a failed statement
    return nil, "conflict: the transaction was rolled back, because a statement in it had failed"
  end
  return true
end

--- Ends a transaction by what its function did.
local function finish(self, db, is_nested, called, first, err, ...)
  if not called then
    roll_back(self, db, is_nested)
    return "raised", first
  end
  if not first and err ~= nil then -- the function says nil, err: it failed
    roll_back(self, db, is_nested)
    return "failed", first, err, ...
  end
  local ok, reason = commit(db, is_nested, self.bulk_timeout)
  if not is_nested then publish(self) end -- whatever came of it: it may be done
  if not ok then
    if is_nested then roll_back(self, db, true) end
    return "failed", nil, reason
  end
  return "done", first, err, ...
end

local function conclude(outcome, ...)
  if outcome == "raised" then error((...), 0) end
  return ...
end

local function close_and_conclude(conn, ...)
  conn:close()
  return conclude(...)
end

--- Calls fn(tx, ...) in a transaction.  `tx` has every method of a cache and tx:query(sql, ...).  It is committed
-- when fn returns, and rolled back when fn raises (the error goes on) or returns nil (or false) and an error.
-- A transaction inside a transaction is a savepoint.  After it ended, tx cannot be used any more.
---@param fn fun(tx: fpcache.Transaction, ...): any
---@return any ... what fn returned; nil, err when it could not begin or commit
function Cache:transaction(fn, ...)
  if type(fn) ~= "function" then error(("bad fn (function expected, got %s)"):format(type(fn)), 2) end
  if self.is_transaction then
    local ok, err = begin(self.db, true, self.timeout)
    if not ok then return nil, err end
    return conclude(finish(self, self.db, true, pcall(fn, self, ...)))
  end
  local conn, err = self.db:acquire(self.timeout)
  if not conn then return nil, err end
  local ok
  ok, err = begin(conn, false, self.timeout)
  if not ok then
    conn:close()
    return nil, err
  end
  local tx = {}
  for name, value in pairs(self) do tx[name] = value end
  tx.look = announce.unknown
  tx.db, tx.near, tx.shared, tx.touches, tx.feed = conn, nil, nil, nil, announce.pending(self.feed)
  tx.outer_flow, tx.flow = self.flow, setmetatable({ flights = flights.pending() }, { __index = self.flow })
  setmetatable(tx, Transaction)
  return close_and_conclude(conn, finish(tx, conn, false, pcall(fn, tx, ...)))
end

return Cache

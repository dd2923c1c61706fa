--- A connection that a transaction has for itself, and whose statements yield: the methods of a lent connection
-- (src/lua/conn.c) over a pin (src/lua/pin.c).
--
-- How one waits for an answer is the host's: fpcache.transport has it for tasks, fpcache.nginx.transport for nginx.
local core = require("fpcache.core")

---@class fpcache.Pinned
---@field pin userdata
---@field ask fun(pin: userdata, method: string, a: any, b: any, c: any, d: any, what: any, timeout: number, ...): ... orders,
--- waits, and converts by the completion queue's method; a to d are its arguments
---@field released fun()? called once, when the connection was given back
local Pinned = {}
Pinned.__index = Pinned

local pinned = {}

--- Takes a connection of the pool.  The password of a function may have been refused: then it is called once more.
---@param pool userdata
---@param ask function see above
---@param idle number seconds without a statement, after which it is rolled back; 0: for ever
---@param timeout number seconds
---@return fpcache.Pinned? conn
---@return string? err "busy: ..." at once when as many as connections are out
function pinned.new(pool, ask, idle, timeout)
  local err
  for _ = 1, 2 do
    local pin
    pin, err = core.pin(pool, idle)
    if not pin then return nil, err end
    local ok
    ok, err = ask(pin, "done", nil, nil, nil, nil, nil, timeout)
    if ok then return setmetatable({ pin = pin, ask = ask }, Pinned) end
    pin:close()
    if not err:find("^auth:") then break end
  end
  return nil, err
end

for _, method in ipairs { "run", "row", "rows" } do
  Pinned[method] = function(self, statement, timeout, ...)
    return self.ask(self.pin, method, nil, nil, nil, nil, statement, timeout, ...)
  end
end

for _, method in ipairs { "value", "map" } do
  Pinned[method] = function(self, statement, timeout, codec, parse_json, space, stored, ...)
    return self.ask(self.pin, method, codec, parse_json, space, stored, statement, timeout, space, stored, ...)
  end
end

--- A caller's own SQL.
function Pinned:query(sql, timeout, ...)
  return self.ask(self.pin, "query", nil, nil, nil, nil, sql, timeout, "query", ...)
end

--- Statements without parameters.
function Pinned:script(sql, timeout)
  return self.ask(self.pin, "script", nil, nil, nil, nil, sql, timeout, "script")
end

--- Runs a statement; receive() gives what came of it.
---@return true
function Pinned:send(statement, timeout, ...)
  self.affected, self.err = self:run(statement, timeout, ...)
  return true
end

---@return integer? affected, string? err
function Pinned:receive()
  return self.affected, self.err
end

function Pinned:in_transaction() return self.pin:in_transaction() end

function Pinned:is_broken() return self.pin:is_broken() end

--- Gives the connection back; one in a transaction is closed, and the server rolls back.
function Pinned:close()
  if not self.pin then return end
  self.pin:close()
  local released = self.released
  self.released = nil
  if released then released() end
end

return pinned

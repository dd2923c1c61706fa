--- How a cache reaches its server inside nginx: as the pool's methods do, but they yield, and where nothing can wait they
-- answer with an error that names the phase.
local engine = require("fpcache.nginx.engine")
local phases = require("fpcache.nginx.phases")
local pinned = require("fpcache.pinned")
local semaphore = require("ngx.semaphore")
local system = require("fpcache.core").system

local call, now = engine.call, system.now

-- Seconds in which a transaction asks nothing, after which it is rolled back: nginx may have taken its coroutine away.
local IDLE = 10
local SLICE = 0.1 -- seconds; who waits for room looks again so often: the one that was woken for it may have vanished

---@class fpcache.nginx.Transport
local Transport = {}
Transport.__index = Transport

local transport = {}

---@param pool userdata
---@return fpcache.nginx.Transport
function transport.new(pool)
  return setmetatable({ pool = pool, room = false }, Transport)
end

for _, method in ipairs { "run", "row", "rows" } do
  Transport[method] = function(self, statement, timeout, ...)
    return call(self.pool, method, nil, nil, nil, nil, statement, timeout, ...)
  end
end

for _, method in ipairs { "value", "map" } do
  Transport[method] = function(self, statement, timeout, codec, parse_json, space, stored, ...)
    return call(self.pool, method, codec, parse_json, space, stored, statement, timeout, space, stored, ...)
  end
end

--- Waits until a transaction may have ended; in turn.
---@return boolean in_time
local function await_room(self, deadline)
  local left = deadline - now()
  if left <= 0 then return false end
  if not self.room then self.room = semaphore.new(0) end
  self.room:wait(math.min(left, SLICE))
  return true
end

local function has_waiters(self)
  return self.room and self.room:count() < 0
end

--- A connection for a transaction; at most `maxconn` of a worker are out.
---@param timeout number seconds
---@return fpcache.Pinned? conn, string? err
function Transport:acquire(timeout)
  local refused = phases.refusal()
  if refused then return nil, refused end
  local deadline = now() + timeout
  if has_waiters(self) then await_room(self, deadline) end
  while true do
    local conn, err = pinned.new(self.pool, engine.call_for_one, IDLE, math.max(deadline - now(), 0))
    if conn then
      conn.released = function()
        if has_waiters(self) then self.room:post(1) end
      end
      return conn
    end
    if not err:find("^busy:") or not await_room(self, deadline) then return nil, err end
  end
end

return transport

--- How a cache reaches its server: the pool's methods, which block outside a task and yield inside one (see
-- scheduler.lua).  Everything above is the same code for both, and inside nginx, whose transport is nginx/transport.lua.
--
-- A transaction has a connection of the pool for itself, and blocks.
local loop = require("fpcache.loop")
local scheduler = require("fpcache.scheduler")

local current, request = scheduler.current, scheduler.request
local now = require("fpcache.core").system.now

local ROOM_PAUSE = 0.002 -- seconds between two looks for a free connection

---@class fpcache.Transport
local Transport = {}
Transport.__index = Transport

local transport = {}

---@param pool userdata
---@param max_connections integer
---@return fpcache.Transport
function transport.new(pool, max_connections)
  if loop.is_nginx then return require("fpcache.nginx.transport").new(pool) end
  return setmetatable({ pool = pool, max_connections = max_connections }, Transport)
end

for _, method in ipairs { "run", "row", "rows" } do
  Transport[method] = function(self, statement, timeout, ...)
    local task, pool = current(), self.pool
    if not task then return pool[method](pool, statement, timeout, ...) end
    local answers, err = request(task, pool, statement, timeout, ...)
    if not answers then return nil, err end
    return answers[method](answers)
  end
end

for _, method in ipairs { "value", "map" } do
  Transport[method] = function(self, statement, timeout, codec, parse_json, ...)
    local task, pool = current(), self.pool
    if not task then return pool[method](pool, statement, timeout, codec, parse_json, ...) end
    local answers, err = request(task, pool, statement, timeout, ...)
    if not answers then return nil, err end
    return answers[method](answers, codec, parse_json, ...) -- the stored key is what a sealed value is bound to
  end
end

--- A connection for a transaction.  Inside a task others run while all are lent: one of them may have to give one back.
---@param timeout number seconds
---@return userdata? conn
---@return string? err
function Transport:acquire(timeout)
  local deadline = now() + timeout
  while current() do
    local stats = self.pool:stats()
    if stats.lent + stats.opening < self.max_connections or now() >= deadline then break end
    local ok, err = scheduler.sleep(ROOM_PAUSE)
    if not ok then return nil, err end
  end
  return self.pool:acquire(math.max(deadline - now(), 0))
end

return transport

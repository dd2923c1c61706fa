--- How a cache reaches its server inside nginx: as the pool's methods do, but they yield, and where nothing can wait they
-- answer with an error that names the phase.
local engine = require("fpcache.nginx.engine")

local call = engine.call

---@class fpcache.nginx.Transport
local Transport = {}
Transport.__index = Transport

local transport = {}

---@param pool userdata
---@return fpcache.nginx.Transport
function transport.new(pool)
  return setmetatable({ pool = pool }, Transport)
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

--- Refused: the statements of a transaction block, and so would this worker with all its clients.
---@return nil, string err
function Transport.acquire()
  return nil, "invalid: a transaction would block this worker of nginx with all its clients; use set with if_version, "
    .. "set_many within one batch, or another program"
end

return transport

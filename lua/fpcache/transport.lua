--- How a cache reaches its server: the pool's methods, which block outside a task and yield inside one (see
-- scheduler.lua).  Everything above is the same code for both, and inside nginx, whose transport is nginx/transport.lua.
--
-- A transaction has a connection of the pool for itself.
local core = require("fpcache.core")
local loop = require("fpcache.loop")
local pinned = require("fpcache.pinned")
local scheduler = require("fpcache.scheduler")

local current, request = scheduler.current, scheduler.request
local now = core.system.now

local ROOM_PAUSE, LONGEST_ROOM_PAUSE = 0.002, 0.05 -- seconds between two looks for a free connection

---@class fpcache.Transport
local Transport = {}
Transport.__index = Transport

local transport = {}

---@param pool userdata
---@param max_connections integer
---@return fpcache.Transport
function transport.new(pool, max_connections)
  if loop.is_nginx then return require("fpcache.nginx.transport").new(pool) end
  return setmetatable({ pool = pool, max_connections = max_connections, queue = {} }, Transport)
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

-- --- transactions of tasks ---

local PATIENCE = 1 -- seconds beyond the deadline, by which the pin answers itself

--- Orders and blocks: where a transaction of a task is used where Lua cannot yield.
local function request_blocking(pin, what, timeout, ...)
  local queue = assert(core.completions(1))
  local id, err = pin:submit(queue, what, timeout, ...)
  if not id then return nil, err end
  local deadline = now() + timeout + PATIENCE
  while true do
    local ok
    ok, err = queue:wait(math.max(deadline - now(), 0))
    if ok and queue:next() then return queue end
    if not ok then
      queue:abandon(id)
      return nil, err
    end
  end
end

local function ask(pin, method, a, b, c, d, what, timeout, ...)
  local task = current()
  local answers, err
  if task then
    answers, err = request(task, pin, what, timeout, ...)
  else
    answers, err = request_blocking(pin, what, timeout, ...)
  end
  if not answers then return nil, err end
  return answers[method](answers, a, b, c, d)
end

--- Waits in turn: the first in the queue looks often, those behind him the less the farther they are.
---@return boolean? true, string? err
local function await_room(queue, me, left)
  local place = 1
  while queue[place] ~= me do place = place + 1 end
  return scheduler.sleep(math.min(ROOM_PAUSE * place, LONGEST_ROOM_PAUSE, left))
end

local function leave(queue, me)
  for place = 1, #queue do
    if queue[place] == me then
      table.remove(queue, place)
      return
    end
  end
end

--- A connection for a transaction.  Inside a task it yields, and others run while all are lent: one of them may have to give one
--- back.
---@param timeout number seconds
---@return userdata|fpcache.Pinned|nil conn
---@return string? err
function Transport:acquire(timeout)
  local me = current()
  if not me then return self.pool:acquire(timeout) end
  local queue, deadline = self.queue, now() + timeout
  queue[#queue + 1] = me
  while true do
    local left = math.max(deadline - now(), 0)
    local stats = queue[1] == me and self.pool:stats()
    local conn, err
    if left == 0 or stats and stats.lent + stats.opening < self.max_connections then
      conn, err = pinned.new(self.pool, ask, 0, left)
    end
    local goes_on = not conn and left > 0 and (not err or err:find("^busy:"))
    if goes_on then goes_on, err = await_room(queue, me, left) end
    if not goes_on then
      leave(queue, me)
      return conn, err
    end
  end
end

return transport

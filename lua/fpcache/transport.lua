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

local LOOK_EVERY = 0.05 -- seconds between two looks for a free place that nobody told of

---@class fpcache.Transport
local Transport = {}
Transport.__index = Transport

local transport = {}

---@param pool userdata
---@return fpcache.Transport
function transport.new(pool)
  if loop.is_nginx then return require("fpcache.nginx.transport").new(pool) end
  return setmetatable({ pool = pool, queue = {} }, Transport)
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
  local queue, id, err
  queue, err = core.completions(1)
  if not queue then return nil, err end
  id, err = pin:submit(queue, what, timeout, ...)
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

-- The queue of those who wait for a place: only the first one tries.  A place that becomes free in this Lua state rouses
-- him; one that another cache of the same pool gave back he finds by looking.

--- The first in the queue is to look now.
local function rouse_first(queue)
  if queue[1] then scheduler.rouse(queue[1]) end
end

--- Goes out of the queue; who is first then may look.
local function leave(queue, me)
  for place = 1, #queue do
    if queue[place] == me then
      table.remove(queue, place)
      if place == 1 then rouse_first(queue) end
      return
    end
  end
end

--- Waits until there may be a place.
---@return boolean? true, string? err
local function await_place(queue, me, left)
  return scheduler.sleep(queue[1] == me and math.min(LOOK_EVERY, left) or left)
end

--- A connection for a transaction.  Inside a task it yields while all places are taken, in turn: others run meanwhile, and
-- one of them may have to give one back.
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
    local conn, err
    if queue[1] == me or left == 0 then
      leave(queue, me) -- the next one need not wait for this one's login
      conn, err = pinned.new(self.pool, ask, 0, left)
      if conn then
        conn.released = function() rouse_first(queue) end
        return conn
      end
      if left == 0 or not err:find("^busy:") then return nil, err end
      table.insert(queue, 1, me)
    end
    local goes_on
    goes_on, err = await_place(queue, me, left)
    if not goes_on then
      leave(queue, me)
      return nil, err
    end
  end
end

return transport

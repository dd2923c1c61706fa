--- Whether a server that failed answers again: a question that nobody waits for.
--
-- It goes the way of calls in tasks, through the pipeline, whose thread waits for the answer; so the caller goes on at once also
-- in a program without tasks, and however long the server takes.  Inside nginx, where the event loop has to hear of the
-- answer, a timer asks.
local core = require("fpcache.core")
local loop = require("fpcache.loop")
local now = core.system.now

local KEY = "fpcache:probe" -- that nobody has; it is only read, and so asks for what a hit would
local PATIENCE = 1          -- seconds beyond the deadline, by which the pipeline answers itself; a fork never hears

---@class fpcache.Probe
---@field answer fun(): boolean?, string? true: the server answered; false and the error; nil: not yet
---@field stop fun() nobody wants to know any more; repeatable

local probe = {}

local function from_timer(cache)
  local ok, err
  local function ask()
    local called, found, reason = pcall(cache.db.row, cache.db, cache.statements.get, cache.timeout, cache.space, KEY)
    ok = called and found ~= nil
    err = not ok and (called and reason or tostring(found)) or nil
  end
  if not loop.background(ask) then return nil end
  return { answer = function() return ok, err end, stop = function() end }
end

--- Asks.
---@param cache fpcache.Cache
---@return fpcache.Probe? probe nil: it cannot be asked so; the caller may ask himself
function probe.start(cache)
  if loop.is_nginx then return from_timer(cache) end
  local queue = core.completions(1)
  if not queue then return nil end
  local function stop()
    if queue then queue:close() end
    queue = nil
  end
  local deadline = now() + cache.timeout + PATIENCE
  if not cache.pool:submit(queue, cache.statements.get, cache.timeout, cache.space, KEY) then
    stop()
    return nil
  end
  cache.pool:kick()
  local function answer()
    local ok, err
    if not queue then
      ok, err = false, "closed: the probe was stopped"
    elseif queue:next() then
      ok, err = queue:row()
      ok = ok ~= nil -- false: there is no such key, which is an answer
    elseif now() >= deadline then
      ok, err = false, "timeout: no answer from the server in time"
    end
    if ok ~= nil then stop() end
    return ok, ok == false and err or nil
  end
  return { answer = answer, stop = stop }
end

return probe

--- What lets others run while one waits: nginx's event loop inside nginx, elsewhere the scheduler of tasks.
local host = rawget(_G, "ngx")

--- Whether this Lua state is nginx's.  (The table `ngx` alone is not enough: test tools have one.)
local is_nginx = type(host) == "table" and type(host.get_phase) == "function" and type(host.worker) == "table"

local loop = { is_nginx = is_nginx }

if is_nginx then
  local tasks = require("fpcache.nginx.tasks")
  loop.tasks, loop.can_wait, loop.background, loop.refusal = tasks, tasks.can_wait, tasks.background, tasks.refusal
  loop.ends = tasks.ends
  return loop
end

local scheduler = require("fpcache.scheduler")
loop.tasks = scheduler

--- Whether others run while the caller waits.
---@return boolean
function loop.can_wait() return scheduler.current() ~= nil end

--- Starts `fn` beside the caller, where it outlives him.
---@param fn function
---@return boolean started false where no task runs, so that nobody may ever drive it
function loop.background(fn)
  if not scheduler.current() then return false end
  scheduler.spawn(fn)
  return true
end

--- Why the caller must not wait, not even by blocking; nil when he may.
---@return string? err
function loop.refusal() return nil end

--- Whether the program ends so that nothing can be started any more.
---@return boolean
function loop.ends() return false end

return loop

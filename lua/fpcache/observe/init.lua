--- What a cache's calls came to, told to whoever wants to know: a hook of the application, the slow log, the recorder.
--
-- A cache that nobody watches is left as it is.  One that is watched gets another class, whose methods time the unwatched
-- ones of `raw`, the same cache as it would have been; calls that those make among themselves are not told.
local core = require("fpcache.core")
local latency = require("fpcache.observe.latency")
local layers = require("fpcache.observe.layers")
local opening = require("fpcache.opening")
local outcomes = require("fpcache.observe.outcomes")
local publisher = require("fpcache.observe.publisher")
local recorder = require("fpcache.observe.recorder")
local slow_log = require("fpcache.observe.slow_log")
local Cache = require("fpcache.client")

local now, wall, running = core.system.now, core.system.wall, coroutine.running
local KEYED, OTHERS = outcomes.KEYED, outcomes.OTHERS
local LOOK_S = 0.1 -- the layers are looked at so often, at most

local observe = {
  OPTIONS = {
    on_event = { type = "function" }, -- called with a table for each call and each change of a layer; see docs/events.md
    slow_log = { type = "number table", check = slow_log.check }, -- seconds, or { seconds =, entries = }: calls to be kept
    record = { type = "string table", check = recorder.check },   -- a file, or { file =, keys =, sample =, max_bytes = }
    publish = { type = "string table", check = publisher.check }, -- a folder, or { dir =, every = }: for fpcache top
  },
}

---@class fpcache.Watch what is shared by a watched cache and its views
---@field calls integer
---@field errors integer calls that failed
---@field hook_errors integer
local Watch = {}
Watch.__index = Watch

--- Hands an event to those who want it.  Whatever they do, the call goes on.
local function tell(watch, event)
  if watch.slow and event.seconds and event.seconds >= watch.slow.seconds then watch.slow:note(event) end
  local hook = watch.hook
  if not hook then return end
  watch.busy = running() or true
  local ok, err = pcall(hook, event)
  watch.busy = nil
  if not ok then
    watch.hook_errors, watch.last_hook_error = watch.hook_errors + 1, tostring(err)
  end
end

--- Looks at the layers, unless that was a moment ago.
local function look(watch, time)
  if time < watch.look_at then return end
  watch.look_at = time + LOOK_S
  watch.wall_offset = wall() - time
  for _, change in ipairs(watch.layers:changes()) do
    change.kind, change.at = "layer", time + watch.wall_offset
    tell(watch, change)
  end
  if watch.publisher then watch.publisher:turn(time) end
end

local function pass(...) return ... end
local function call(method, raw, ...) return pass(method(raw, ...)) end -- no tail call: mistakes blame this line

-- What a mistake of our caller's begins with.
local LINE = "^" .. debug.getinfo(call, "S").short_src:gsub("%p", "%%%0") .. ":%d+: (.*)$"

--- Raises what a method raised; a mistake of the caller's at his line.  To be called last, so that level 2 is he.
local function raise(err)
  local mistake = type(err) == "string" and err:match(LINE)
  if mistake then error(mistake, 2) end
  error(err, 0)
end

--- Makes the event of a call and tells it; answers the call's results, or raises what it raised at its caller's line.
local function conclude(self, name, about, began, first, second, third, called, a, b, ...)
  local watch, ended = self.watch, now()
  local event = { kind = "call", name = name, namespace = self.space, seconds = ended - began,
    at = began + watch.wall_offset, transaction = self.is_transaction }
  if KEYED[name] then event.key = first end
  watch.calls = watch.calls + 1
  if not called then
    event.outcome, event.error = "raised", tostring(a)
  elseif a == nil and type(b) == "string" then
    event.outcome, event.error, event.code = "error", b, b:match("^(%l+):")
    watch.errors = watch.errors + 1
  else
    about(event, first, a, b, ...)
    if event.error then watch.errors = watch.errors + 1 end
    if event.key then event.bytes = outcomes.bytes(self.raw, name, first, second, a) end
  end
  if watch.recorder then watch.recorder:note(event, first, second, third, a) end
  watch.latency:add(event.seconds)
  tell(watch, event)
  look(watch, ended)
  if called then return a, b, ... end
  return raise(a)
end

--- The watched form of a method.
local function watched(class, name, about)
  local method = class[name]
  return function(self, ...)
    local watch, raw = self.watch, self.raw
    if watch.busy and watch.busy == (running() or true) then return method(raw, ...) end -- called by the hook
    local first, second, third = ...
    return conclude(self, name, about, now(), first, second, third, pcall(call, method, raw, ...))
  end
end

local classes = {} -- the watched class of each class, made at the first use, when all methods are there

--- One page of a walk, as an event.
local function tell_page(self, began, rows, count)
  local watch, ended = self.watch, now()
  local event = { kind = "call", name = "scan", namespace = self.space, seconds = ended - began,
    at = began + watch.wall_offset, transaction = self.is_transaction }
  watch.calls = watch.calls + 1
  if rows then
    event.outcome, event.count, event.bytes = "done", count, outcomes.bytes_of(rows)
  else
    event.outcome, event.error, event.code = "error", count, count:match("^(%l+):")
    watch.errors = watch.errors + 1
  end
  if watch.recorder then watch.recorder:note(event) end
  watch.latency:add(event.seconds)
  tell(watch, event)
  look(watch, ended)
end

--- A walk tells each page that it asks for.
local function scan_of(class)
  local method = class.scan
  return function(self, opts)
    local watch, raw = self.watch, self.raw
    if watch.busy and watch.busy == (running() or true) then return method(raw, opts) end
    local called, scan, err = pcall(call, method, raw, opts)
    if not called then return raise(scan) end
    if scan then scan.on_page = function(...) tell_page(self, ...) end end
    return scan, err
  end
end

--- What an iterator gives set_many is heard by the recorder on its way.
local function set_many_of(set_many)
  return function(self, items, opts)
    local record, meta = self.watch.recorder, getmetatable(items)
    local is_busy = self.watch.busy and self.watch.busy == (running() or true)
    if record and not is_busy and (type(items) == "function" or type(meta) == "table" and meta.__call) then
      items = record:listen(items, opts, self.space)
    end
    return set_many(self, items, opts)
  end
end

--- A watched cache, or transaction, around `raw`.
local function around(raw, watch)
  local self = {}
  for field, value in pairs(raw) do self[field] = value end
  self.raw, self.watch = raw, watch
  opening.add_view(raw, self)
  return setmetatable(self, classes.of(getmetatable(raw)))
end

--- A view of the same cache is watched too.
local function namespace(self, name)
  local called, view = pcall(call, getmetatable(self.raw).namespace, self.raw, name)
  if not called then return raise(view) end
  return around(view, self.watch)
end

local function close(self)
  self.watch:close()
  self.raw:close()
end

--- The watched form of a class.
function classes.of(class)
  if classes[class] then return classes[class] end
  local made = setmetatable({ namespace = namespace }, { __index = class })
  for _, set in ipairs { KEYED, OTHERS } do
    for name, about in pairs(set) do made[name] = watched(class, name, about) end
  end
  made.scan, made.set_many = scan_of(class), set_many_of(made.set_many)
  local transaction = made.transaction
  function made:transaction(fn, ...)
    local watch, inside = self.watch, fn
    if type(fn) == "function" then
      inside = function(tx, ...) return fn(around(tx, watch), ...) end
    end
    return transaction(self, inside, ...)
  end
  if class == Cache or class == opening.Unopened then made.close, made.__close = close, close end
  made.__index, classes[class] = made, made
  return made
end

--- Ends what was begun; repeatable.
function Watch:close()
  if self.recorder then self.recorder:close() end
  if self.publisher then self.publisher:close() end
end

---@return table counts calls, errors, latency (counts by class, see latency.lua), hook_errors, last_hook_error, slow, record,
-- publish_error
function Watch:stats()
  return {
    calls = self.calls, errors = self.errors, latency = self.latency:counts(),
    hook_errors = self.hook_errors, last_hook_error = self.last_hook_error,
    slow = self.slow and self.slow.count, record = self.recorder and self.recorder:stats(),
    publish_error = self.publisher and self.publisher.last_error,
  }
end

--- The cache that the caller of fpcache.new gets: `cache` itself when nobody wants to watch it.
---@param cache fpcache.Cache
---@param o table as options.read() gives it
---@return fpcache.Cache? cache
---@return string? err when the trace or the folder cannot be written
function observe.cache(cache, o)
  local record = o.record or recorder.from_environment()
  if not (o.on_event or o.slow_log or record or o.publish) then return cache end
  local watch = setmetatable({ hook = o.on_event, slow = slow_log.new(o.slow_log), calls = 0, errors = 0, hook_errors = 0,
    look_at = 0, wall_offset = wall() - now(), layers = layers.new(cache),
    latency = latency.new() }, Watch)
  local err
  if record then
    watch.recorder, err = recorder.open(record, cache)
    if not watch.recorder then return nil, err end
  end
  local made = around(cache, watch)
  if o.publish then
    watch.publisher, err = publisher.new(o.publish, made)
    if not watch.publisher then
      watch:close()
      return nil, err
    end
  end
  return made
end

--- The slow calls that are kept, the newest first.
---@return table[]? list { name, namespace, key, seconds, at (since 1970), outcome, source, error }
---@return string? err when the option slow_log is not set
function Cache:slowlog()
  local slow = self.watch and self.watch.slow
  if not slow then return nil, "invalid: this cache keeps no slow log; give fpcache.new the option slow_log" end
  return slow:list()
end

return observe

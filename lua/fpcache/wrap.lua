--- wrap and lock: a function that is remembered, and one that only one process runs at a time.
local cancelled = require("fpcache.policy.cancelled")
local core = require("fpcache.core")
local fetch = require("fpcache.fetch")
local limits = require("fpcache.limits")
local options = require("fpcache.options")
local policies = require("fpcache.policy")
local waiting = require("fpcache.waiting")
local Cache = require("fpcache.client")

local unpack = table.unpack or unpack -- luacheck: ignore 143
local LOCK_PREFIX = "fpcache:lock:" -- the rows of locks carry no value: no other call sees them

--- Calls fn without the context, which it does not expect.
local function without_context(fn)
  return function(...)
    local count = select("#", ...)
    if count == 2 then return fn((...)) end
    return fn(unpack({ ... }, 1, count - 1))
  end
end

--- An argument as JSON, with the fields of its tables in the order of their names: a table has another order in each process.
---@return string? text, string? err
local function canonical(value)
  local text, err = core.json_encode(value)
  if not text or type(value) ~= "table" then return text, err end
  local parts = {}
  if text:sub(1, 1) == "[" then
    for i = 1, #value do parts[i] = canonical(value[i]) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for name, field in pairs(value) do parts[#parts + 1] = core.json_encode(tostring(name)) .. ":" .. canonical(field) end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

--- A key from the name and the arguments.
local function default_key(name)
  return function(...)
    local count = select("#", ...)
    local arguments = setmetatable({ ... }, core.array_mt)
    for i = 1, count do
      if arguments[i] == nil then arguments[i] = core.null end
    end
    local text, err = canonical(arguments)
    if not text then error(("bad arguments (%s; give wrap a function `key`)"):format(err), 3) end
    return name .. ":" .. text
  end
end

--- A function that remembers what `fn` returned, for all processes: its first result, by its arguments.
---@param fn fun(...): any, string? nil and an error are not remembered
---@param opts table { name = begins the keys, or key = function(...) -> key; policy = a policy, or instead its fields }
---@return fun(...): any, string?, string?, string? as fetch
function Cache:wrap(fn, opts)
  fetch.check_loader(fn, 2)
  if type(opts) ~= "table" then error(("bad opts (table with a name expected, got %s)"):format(type(opts)), 2) end
  local fields, name, key, policy = {}, opts.name, opts.key, opts.policy
  for field, value in pairs(opts) do fields[field] = value end
  fields.name, fields.key, fields.policy = nil, nil, nil
  if key == nil then
    if type(name) ~= "string" or name == "" then
      error("options.name: a text is expected, which begins the keys and is the same in all processes", 2)
    end
    key = default_key(name)
  else
    fetch.check_loader(key, 2)
    if name ~= nil then error("options.name: excluded by key, which makes the whole key", 2) end
  end
  if policy ~= nil and next(fields) then
    error(("options.%s: excluded by policy, which has all of it"):format(tostring((next(fields)))), 2)
  end
  policy = policies.of(policy or fields, 2)
  local loader = without_context(fn)
  return function(...)
    local made = key(...)
    if type(made) ~= "string" then
      error(("bad key (options.key is to return a string, and returned a %s)"):format(type(made)), 2)
    end
    return self:fetch(made, policy, loader, ...)
  end
end

local LOCK_OPTIONS = { wait = { type = "duration", check = options.not_negative } } -- to wait for it; none: not at all

--- Tries to take a lock.
---@return boolean? taken, string|number|nil err_or_fence
local function take(self, stored, long, ttl)
  local circuit = self.flow.breaker
  if not circuit:lets_through() then return nil, circuit:refusal() end
  local found, granted, fence = self.db:row(self.statements.lock_take, self.timeout, self.space, stored, long, ttl)
  if not found then
    circuit:failed(granted)
    return nil, granted
  end
  if circuit.failures > 0 then circuit:succeeded() end
  return granted, fence
end

local function release_and_return(self, stored, fence, called, ...)
  if not self.flow.breaker:is_open() then -- else it ends by its ttl
    cancelled.surely(function() return self.db:run(self.statements.lock_free, self.timeout, self.space, stored, fence) end)
  end
  if not called then error((...), 0) end
  return ...
end

--- Runs fn() unless another process runs under the same name.  For efficiency, not for correctness: when fn takes longer
-- than ttl, or the table is emptied by a crash, another may run at the same time.
---@param name string
---@param ttl number|string seconds after which the lock ends by itself
---@param fn fun(): any
---@param opts table? { wait = seconds } to wait for it
---@return any ... what fn returned; nil, "busy: ..." when another has the lock
function Cache:lock(name, ttl, fn, opts)
  if type(name) ~= "string" then error(("bad name (string expected, got %s)"):format(type(name)), 2) end
  fetch.check_loader(fn, 2)
  local wait = options.read(LOCK_OPTIONS, opts, 2).wait
  local ok, seconds = limits.ttl(ttl, 2)
  if not ok then return nil, seconds end
  if not seconds then return nil, "invalid: a lock needs a ttl, after which it ends when its holder is gone" end
  if self.is_transaction then return nil, "invalid: a lock is not for transactions, in which others would wait for COMMIT" end
  local stored, long = limits.stored_key(LOCK_PREFIX .. name, self.max_key_bytes, 2)
  if not stored then return nil, long end
  local taken, fence = take(self, stored, long, seconds)
  if taken == false and wait and wait > 0 then
    local answered = waiting.poll(wait, function()
      taken, fence = take(self, stored, long, seconds)
      return taken ~= false
    end)
    if not answered then taken = false end
  end
  if taken == nil then return nil, fence end
  if not taken then return nil, ("busy: another has the lock %q"):format(name) end
  return release_and_return(self, stored, fence, pcall(fn))
end

return Cache

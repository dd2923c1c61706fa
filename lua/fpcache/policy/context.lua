--- What a loader gets, as its last argument, and what it can say by it; and the call of the loader.
local duration = require("fpcache.duration")
local limits = require("fpcache.limits")
local options = require("fpcache.options")
local waiting = require("fpcache.waiting")

local unpack = table.unpack or unpack -- luacheck: ignore 143
local NO_TAGS = {}      -- what a loader said by an empty list of tags
local NOT_MODIFIED = {} -- what a loader returns by context:not_modified()

---@class fpcache.Context
---@field key string? of fetch
---@field old any the value that is to be replaced, stale or about to be; nil: there is none.  Of fetch_many: such values by key
---@field validator string? of fetch: the loader's own note on the old value (an ETag, a date); set it for the new one
---@field validators table<string, string>? of fetch_many: the same by key
---@field ttls table<string, number|string>? of fetch_many: ttls of single values
---@field ttl number|string|nil set it to give this value another ttl than the policy's
---@field stale_ttl number|string|nil likewise
---@field negative_ttl number|string|nil likewise, when nil is returned
---@field tags string|string[]|nil likewise; {}: none
---@field store boolean? set it to false, and the value is returned and not stored
---@field timeout number seconds that loading may take
local Context = {}
Context.__index = Context

--- To be returned by a loader: the old value is still right, and lives anew.  A loader of many returns it for all keys, or gives
-- it as the value of one.
function Context:not_modified() -- luacheck: no self
  return NOT_MODIFIED
end

local context = {
  NOT_MODIFIED = NOT_MODIFIED, NOTHING_OLD = "invalid: the loader says not modified, but there is no old value",
}

local POLICY = {} -- under this name a context has its policy

---@param key string
---@param policy fpcache.Policy
---@param old any the value that is to be replaced
---@param validator string?
---@return fpcache.Context
function context.new(key, policy, old, validator)
  return setmetatable({
    key = key, old = old, validator = validator,
    timeout = old ~= nil and policy.soft_timeout or policy.hard_timeout, [POLICY] = policy,
  }, Context)
end

--- For a loader of many keys.
---@param old table<string, any> older values by key
---@param validators table<string, string> of theirs
---@param has_all boolean whether each key has an older value
---@return fpcache.Context
function context.new_for_many(policy, old, validators, has_all)
  return setmetatable({
    old = old, validators = validators, ttls = {},
    timeout = has_all and policy.soft_timeout or policy.hard_timeout, [POLICY] = policy,
  }, Context)
end

local GIVEN = { key = true, old = true, timeout = true, [POLICY] = true } -- what is there for the loader to read
local KNOWN = { ttl = true, stale_ttl = true, negative_ttl = true, tags = true, store = true, validator = true }
local KNOWN_OF_MANY = { ttl = true, stale_ttl = true, negative_ttl = true, tags = true, store = true, ttls = true,
  validators = true }

local function list_of(known)
  local names = {}
  for name in pairs(known) do names[#names + 1] = name end
  table.sort(names)
  return table.concat(names, ", ")
end

--- What a loader sets under a name that nobody knows would be lost without a word.
---@return string? err
local function check_names(given)
  local known = given.key == nil and KNOWN_OF_MANY or KNOWN
  for name in pairs(given) do
    if not known[name] and not GIVEN[name] then
      return ("invalid: context.%s: unknown field%s; a loader may set %s (set by the loader)"):format(tostring(name),
        options.suggestion(tostring(name), known), list_of(known))
    end
  end
end

local MAX_SECONDS = 1e10

local OF_A_KEY = "ttls of a key" -- whose name is nobody's business
local WITHOUT_END = { ttl = true, [OF_A_KEY] = true } -- of these it means no expiry

--- Turns what a loader set in `list` under `name` into seconds.
---@param what string how errors call it
---@return string? err
local function check_seconds(list, name, what)
  local value = rawget(list, name)
  if value == nil then return end
  local seconds, reason = duration.seconds(value)
  if not reason and (type(seconds) ~= "number" or not (seconds > 0 and (seconds <= MAX_SECONDS or seconds == math.huge))) then
    reason = "must be more than 0 seconds, got " .. tostring(value)
  end
  if reason then return ("invalid: context.%s: %s (set by the loader)"):format(what, reason) end
  if seconds == math.huge and not WITHOUT_END[what] then seconds = MAX_SECONDS end -- 317 years
  list[name] = seconds
end

--- The ttls of single keys, which a loader of many may set.
local function check_ttls(ttls)
  if type(ttls) ~= "table" then
    return ("invalid: context.ttls: a table by key is expected, got %s (set by the loader)"):format(type(ttls))
  end
  for key in pairs(ttls) do
    local err = check_seconds(ttls, key, OF_A_KEY)
    if err then return err end
  end
end

--- What a loader of many notes on single values.
local function check_validators(validators)
  if type(validators) ~= "table" then
    return ("invalid: context.validators: a table by key is expected, got %s (set by the loader)"):format(type(validators))
  end
  for _, validator in pairs(validators) do
    if type(validator) ~= "string" then
      return ("invalid: context.validators of a key: text expected, got %s (set by the loader)"):format(type(validator))
    end
  end
end

--- Turns what a loader set into what is stored.
---@return string? err
local function check(given)
  local unknown = check_names(given)
  if unknown then return unknown end
  for _, name in ipairs { "ttl", "stale_ttl", "negative_ttl" } do
    local err = check_seconds(given, name, name)
    if err then return err end
  end
  if given.stale_ttl and not given[POLICY].stale_ttl then
    return "invalid: context.stale_ttl: the policy has no stale_ttl, so its callers get no older values; give it one "
      .. "(set by the loader)"
  end
  if given.key == nil then
    given.ttls, given.validators = given.ttls or {}, given.validators or {}
    local err = check_ttls(given.ttls) or check_validators(given.validators)
    if err then return err end
  end
  if given.store ~= nil and type(given.store) ~= "boolean" then
    return ("invalid: context.store: boolean expected, got %s (set by the loader)"):format(type(given.store))
  end
  local validator = given.validator
  if validator ~= nil and type(validator) ~= "string" then
    return ("invalid: context.validator: text expected, got %s (set by the loader)"):format(type(validator))
  end
  local tags = given.tags
  if tags == nil then return end
  if type(tags) ~= "table" and type(tags) ~= "string" then
    return ("invalid: context.tags: text or list expected, got %s (set by the loader)"):format(type(tags))
  end
  local called, list, err = pcall(limits.tags, tags, 1)
  if not called then return "invalid: context.tags: " .. tostring(list) end
  if not list then return err end
  given.tags = #list > 0 and list or NO_TAGS
end

--- The tags of what was loaded: those that the loader named, or else the policy's.
---@param given fpcache.Context
---@param policy fpcache.Policy
---@return string[]? tags
function context.tags(given, policy)
  local tags = given.tags or policy.tags
  return tags ~= NO_TAGS and tags or nil
end

local function failure(err)
  if type(err) == "string" then return err end
  return "loader: " .. tostring(err)
end

local function raised(reason)
  return { reason = tostring(reason):gsub("%c+", " "), traceback = debug.traceback(tostring(reason), 2) }
end

--- Calls a loader.  What it raises is a failure like the error that it returns: "loader: words".
---@param given fpcache.Context
---@return boolean ok
---@return any value_or_err nil: there is none
---@return number seconds it took
---@return string? traceback of what it raised
function context.load(loader, given, ...)
  local started = waiting.now()
  local count, arguments = select("#", ...), { ... }
  arguments[count + 1] = given
  local called, value, err = xpcall(loader, raised, unpack(arguments, 1, count + 1))
  local took = waiting.now() - started
  if not called then return false, "loader: " .. value.reason, took, value.traceback end
  if value == nil and err ~= nil then return false, failure(err), took end
  local reason = check(given)
  if reason then return false, reason, took end
  if value == NOT_MODIFIED and given.old == nil then return false, context.NOTHING_OLD, took end
  return true, value, took
end

return context

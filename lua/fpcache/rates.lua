--- Rate limiters and counters: numbers that all processes share, changed atomically at the server in one round trip.
local announce = require("fpcache.announce")
local limits = require("fpcache.limits")
local options = require("fpcache.options")
local Cache = require("fpcache.client")

local MICROSECONDS = 1000000
local MAX_WINDOW = 366 * 86400 -- seconds

local function window_check(value)
  if not (value >= 0.001 and value <= MAX_WINDOW) then
    return ("must be from 1 ms to a year, got %s"):format(tostring(value))
  end
end

local function kind_check(value)
  if value ~= "sliding" and value ~= "fixed" then return ('must be "sliding" or "fixed", got %q'):format(value) end
end

local OPTIONS = {
  limit = { type = "integer", check = options.between(1, 1000000000, "") }, -- requests in a window
  window = { type = "duration", check = window_check },
  kind = { type = "string", default = "sliding", check = kind_check },
  prefix = { type = "string", default = "rate:" }, -- of its keys
}

---@class fpcache.RateLimiter
local RateLimiter = {}
RateLimiter.__index = RateLimiter

--- Limits how often something may happen, over all processes that share the cache.
--
-- "sliding" lets `limit` requests through at once when nothing came before, and then one each window / limit seconds: never more
-- than `limit` in a window of any beginning, plus what was used up meanwhile.  "fixed" counts in windows that begin
-- with the first request.
---@param opts table { limit = requests, window = seconds or "1m", kind = "sliding" | "fixed", prefix = "rate:" }
---@return fpcache.RateLimiter
function Cache:rate_limiter(opts)
  local read = options.read(OPTIONS, opts, 2)
  for _, name in ipairs { "limit", "window" } do
    if read[name] == nil then error(("options.%s: it has to be given"):format(name), 2) end
  end
  local window = read.window
  return setmetatable({
    cache = self, limit = read.limit, window = window, prefix = read.prefix, kind = read.kind,
    interval = window / read.limit,
  }, RateLimiter)
end

--- One statement under the circuit breaker.
local function ask(cache, statement, stored, ...)
  local circuit = cache.flow.breaker
  if not circuit:lets_through() then return nil, circuit:refusal() end
  local found, allowed, used, left, is_number = cache.db:row(cache.statements[statement], cache.timeout, cache.space,
    stored, ...)
  if found == nil then
    circuit:failed(allowed)
    if not announce.is_surely_undone(allowed) then cache.feed:wrote(cache.seed, stored) end
    return nil, allowed
  end
  circuit:succeeded()
  if allowed then cache.feed:wrote(cache.seed, stored) end
  return true, allowed, used, left, is_number
end

local NO_NUMBER = "invalid: what is stored under this key is no count of a rate limiter"

local function allow_sliding(self, stored, long, cost)
  local spacing = self.interval
  local needed, window = math.max(math.floor(spacing * cost * MICROSECONDS + 0.5), 1), self.window * MICROSECONDS
  local ok, allowed, used, is_number = ask(self.cache, "rate_sliding", stored, long, needed, math.floor(window + 0.5))
  if not ok then return nil, allowed end
  if allowed == nil then return false, nil, 0, spacing end -- the entry came into being meanwhile
  if not is_number then return nil, NO_NUMBER end
  if used < 0 then used = 0 end
  local remaining = math.max(math.floor((self.window - used) / spacing + 1e-6), 0)
  if allowed then return true, nil, remaining, 0 end
  return false, nil, remaining, math.max(used + spacing * cost - self.window, 0.000001)
end

local function allow_fixed(self, stored, long, cost)
  local ok, allowed, count, left, is_number = ask(self.cache, "rate_fixed", stored, long, cost,
    math.floor(self.window * MICROSECONDS + 0.5), self.limit)
  if not ok then return nil, allowed end
  if allowed == nil then return false, nil, 0, self.window end
  if not is_number then return nil, NO_NUMBER end
  local remaining = math.max(self.limit - tonumber(count), 0)
  if allowed then return true, nil, remaining, 0 end
  return false, nil, remaining, math.max(left, 0.000001)
end

--- Whether a request may go ahead; if so it has been counted.
---@param key string whom the limit is for
---@param cost integer? how many requests it counts as, default 1
---@return boolean? allowed nil when the server could not say
---@return string? err
---@return integer? remaining how many more would go ahead now
---@return number? retry_after seconds until this one would; 0 when it may
function RateLimiter:allow(key, cost)
  cost = cost or 1
  if type(key) ~= "string" then error(("bad key (string expected, got %s)"):format(type(key)), 2) end
  if type(cost) ~= "number" or cost % 1 ~= 0 then error("bad cost (integer expected)", 2) end
  if cost < 1 or cost > self.limit then
    return nil, ("invalid: a cost must be from 1 to the limit (%d), got %s"):format(self.limit, tostring(cost))
  end
  local stored, long = limits.stored_key(self.prefix .. key, self.cache.max_key_bytes, 2)
  if not stored then return nil, long end
  if self.kind == "fixed" then return allow_fixed(self, stored, long, cost) end
  return allow_sliding(self, stored, long, cost)
end

--- Forgets what was counted for a key.
---@param key string
---@return boolean? existed, string? err
function RateLimiter:reset(key)
  if type(key) ~= "string" then error(("bad key (string expected, got %s)"):format(type(key)), 2) end
  return self.cache:delete(self.prefix .. key)
end

local COUNTER_OPTIONS = {
  ttl = { type = "duration", check = window_check }, -- from its first count on
  initial = { type = "integer", default = 0 },
}

---@class fpcache.Counter
local Counter = {}
Counter.__index = Counter

--- A number that all processes add to.
---@param key string
---@param opts table? { ttl = seconds after which it begins anew, initial = 0 }
---@return fpcache.Counter
function Cache:counter(key, opts)
  if type(key) ~= "string" then error(("bad key (string expected, got %s)"):format(type(key)), 2) end
  local read = options.read(COUNTER_OPTIONS, opts, 2)
  return setmetatable({ cache = self, key = key, initial = read.initial, ttl = read.ttl }, Counter)
end

--- Adds to it.
---@param by integer? default 1; may be negative
---@return integer? value the new one
---@return string? err also when it would leave 64 bits
function Counter:add(by)
  if by ~= nil then
    local exact, reason = limits.integer(by, "delta", 2)
    if not exact then return nil, reason end
  end
  local value, err = self.cache:incr(self.key, by or 1, { ttl = self.ttl, initial = self.initial })
  return value, err
end

--- Whether it is an integer of this Lua; LuaJIT has those beyond 2^53 as C data.
local function is_integer(value)
  if math.type then return math.type(value) == "integer" end
  return type(value) == "cdata" or type(value) == "number" and value % 1 == 0
end

--- What it is now, from the server.
---@return integer? value, string? err
function Counter:value()
  local value, err = self.cache:get(self.key, { near = false })
  if value == nil and not err then return self.initial end
  if value ~= nil and not is_integer(value) then return nil, "invalid: the stored value is no integer" end
  return value, err
end

--- Begins anew.
---@return boolean? existed, string? err
function Counter:reset()
  return self.cache:delete(self.key)
end

return Cache

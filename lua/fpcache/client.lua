--- The cache as a Lua object: calls on one key.
--
-- A Cache runs its statements on `db`, which is the pool, or one connection inside a transaction; everything
-- else is the same for both.  Here are the calls that change one key, and tell `feed` so (see announce.lua).  Those that
-- read one are in reading.lua, calls on many keys in bulk.lua, walks in scan.lua, transactions in transaction.lua; they
-- add their methods to the class below.
--
-- Every call returns its value, or nil and "code: message" (see docs/errors.md).  A wrong argument type raises.
local announce = require("fpcache.announce")
local core = require("fpcache.core")
local flights = require("fpcache.policy.flights")
local limits = require("fpcache.limits")
local options = require("fpcache.options")

local stored_key, check_ttl, check_time, check_integer = limits.stored_key, limits.ttl, limits.time, limits.integer
local value_encode, value_decode = core.value_encode, core.value_decode

---@class fpcache.Cache
---@field db userdata
---@field statements table<string, userdata>
---@field space string the namespace
---@field seed any of the namespace, for the feed
---@field near fpcache.Near? nil when it is off, and in a transaction
---@field shared table? the tier that the workers of an nginx share
---@field look function see fast_feed.bind_look()
---@field feed table the feed of this process, or what stands in its place (see announce.lua)
local Cache = {}
Cache.__index = Cache

local SET_OPTIONS = {
  ttl = { type = "number string", expected = "seconds or duration" }, -- fractions allowed, or "5m"; none: no expiry
  expires_at = { type = "number" }, -- seconds since 1970
  keep_ttl = { type = "boolean" },  -- the old expiry stays
  if_absent = { type = "boolean" }, -- only when there is no such key
  if_present = { type = "boolean" },
  if_version = { type = "number cdata", expected = "integer" }, -- only when the version (see entry) is still this one
  tags = { type = "string table" }, -- see limits.tags; a write without them takes the old ones off
}

--- The expiry that options ask for.
---@return boolean ok, number? ttl_or_err, number? expires_at
local function read_expiry(opts, level)
  local ok, ttl = check_ttl(opts.ttl, level + 1)
  if not ok then return false, ttl end
  if opts.expires_at == nil then return true, ttl end
  local at
  ok, at = check_time(opts.expires_at, level + 1)
  if not ok then return false, at end
  return true, nil, at
end

local CONDITIONS = { if_absent = "add", if_present = "replace", if_version = "cas" }

--- The name of the statement that options ask for, refusing those that contradict each other.
local function choose_statement(opts, level)
  local name, condition = "set", nil
  for option, statement in pairs(CONDITIONS) do
    if opts[option] then
      if condition then error(("options: %s and %s exclude each other"):format(condition, option), level + 1) end
      name, condition = statement, option
    end
  end
  if opts.ttl and opts.expires_at then error("options: ttl and expires_at exclude each other", level + 1) end
  if opts.keep_ttl then
    if opts.ttl or opts.expires_at then
      error("options: keep_ttl excludes ttl and expires_at", level + 1)
    end
    if name ~= "add" then name = name .. "_keep_ttl" end -- a new key has no ttl to keep
  end
  return name
end

--- Bytes and format of a value, within the limit.
local function encode(self, value, stored)
  local bytes, format = value_encode(value, self.codec, stored)
  if not bytes then return nil, format end
  if #bytes > self.max_value_bytes then
    return nil, ("invalid: a value of %d bytes exceeds max_value_bytes (%d)"):format(#bytes, self.max_value_bytes)
  end
  return bytes, format
end

--- Announces a change of one key, by the answer to its statement.
local function told(self, stored, first, err, ...)
  if first ~= nil or not announce.is_surely_undone(err) then
    self.feed:wrote(self.seed, stored)
    flights.forget(self.flow.flights, self.space, stored)
  end
  return first, err, ...
end

--- Runs one of the statements that write one row.  `level` counts from the method that calls this.
---@return boolean? written, integer|string|nil version_or_err, string? old_format
local function write(self, statement, key, value, ttl, expires_at, level, ...)
  if value == nil then error("bad value (nil cannot be stored; use fpcache.null, or delete the key)", level + 1) end
  local stored, long = stored_key(key, self.max_key_bytes, level + 1)
  if not stored then return nil, long end
  local bytes, format = encode(self, value, stored)
  if not bytes then return nil, format end
  local written, answer, old_format = told(self, stored, self.db:row(self.statements[statement], self.timeout, self.space, stored,
    long, bytes, format, ttl, expires_at, ...))
  if written then
    local counts = self.counts
    counts.sets = counts.sets + 1
  end
  return written, answer, old_format
end

--- Runs one of the statements that change a live row, and answers whether there was one.
local function change(self, statement, stored, ...)
  local rows, err = told(self, stored, self.db:run(self.statements[statement], self.timeout, self.space, stored, ...))
  if not rows then return nil, err end
  return rows > 0
end

--- A method that changes the life of one row; a ttl that is absent or infinite means no expiry.
local function ttl_changer(statement)
  return function(self, key, ttl)
    local ok, seconds = check_ttl(ttl, 2)
    if not ok then return nil, seconds end
    local stored, err = stored_key(key, self.max_key_bytes, 2)
    if not stored then return nil, err end
    local changed
    if seconds then
      changed, err = change(self, statement, stored, seconds)
    else
      changed, err = change(self, "persist", stored)
    end
    return changed, err
  end
end

--- Stores a value.  Strings, numbers, booleans, fpcache.null and tables that JSON can hold come back as they are.
---@param key string 1 to max_key_bytes bytes, any content
---@param value any not nil
---@param opts number|string|table|nil ttl in seconds or as "5m", or { ttl, expires_at, keep_ttl, if_absent, if_present,
--- if_version, tags }
---@return boolean? stored false when a condition did not hold
---@return string? err
---@return integer? version of what was stored, for cas
function Cache:set(key, value, opts)
  local statement, version, tags = "set", nil, nil
  local ok, ttl, expires_at
  if type(opts) == "table" then
    local read = options.read(SET_OPTIONS, opts, 2)
    statement = choose_statement(read, 2)
    if read.if_version ~= nil then
      local problem
      version, problem = check_integer(read.if_version, "if_version", 2)
      if not version then return nil, problem end
    end
    if read.tags ~= nil then
      local problem
      tags, problem = limits.tags(read.tags, 2)
      if not tags then return nil, problem end
      if #tags == 0 then tags = nil end
      if tags then statement = statement .. "_tagged" end
    end
    ok, ttl, expires_at = read_expiry(read, 2)
  else
    ok, ttl = check_ttl(opts, 2)
  end
  if not ok then return nil, ttl end
  local first, second = version, tags -- the parameters after the expiry
  if version == nil then first, second = tags, nil end
  local written, answer = write(self, statement, key, value, ttl, expires_at, 2, first, second)
  if written == nil then return nil, answer end
  return written, nil, answer
end

local DELETE_OPTIONS = { near = { type = "boolean", default = false } } -- true: spares the round trip where it can

--- Deletes a key, what is stale of it included, and overtakes who is loading it (see docs/policies.md).
---@param key string
---@param opts table? { near = true }: a key that the filter knows to be absent costs no round trip, and whoever loads it just
--- now is not overtaken
---@return boolean? deleted false when there was none
---@return string? err
function Cache:delete(key, opts)
  local stored, err = stored_key(key, self.max_key_bytes, 2)
  if not stored then return nil, err end
  if opts ~= nil and options.read(DELETE_OPTIONS, opts, 2).near and self.feed:look(self.seed, stored) then return false end
  local found, lived = told(self, stored, self.db:row(self.statements.delete, self.timeout, self.space, stored))
  if found == nil then return nil, lived end
  return found and lived
end

--- Gives a key a new time to live in seconds, or as "5m": (key, ttl) -> true, false when there is none, or nil, err.
---@type fun(self: fpcache.Cache, key: string, ttl: number|string|nil): boolean?, string?
Cache.expire = ttl_changer("expire")

--- Makes a key live for at least `ttl` more seconds; never shortens its life.
---@type fun(self: fpcache.Cache, key: string, ttl: number|string|nil): boolean?, string?
Cache.touch = ttl_changer("touch")

--- Takes the expiry off a key.
---@param key string
---@return boolean? changed false when there was none
---@return string? err
function Cache:persist(key)
  local stored, err = stored_key(key, self.max_key_bytes, 2)
  if not stored then return nil, err end
  local changed
  changed, err = change(self, "persist", stored)
  return changed, err
end

--- A method (key, value, ttl) that stores under a condition.
local function conditional(statement)
  return function(self, key, value, ttl)
    local ok, seconds = check_ttl(ttl, 2)
    if not ok then return nil, seconds end
    local written, err = write(self, statement, key, value, seconds, nil, 2)
    if written == nil then return nil, err end
    return written
  end
end

--- Stores a value only when there is no such key: (key, value, ttl) -> true, false when there was one, or nil, err.
---@type fun(self: fpcache.Cache, key: string, value: any, ttl: number|string|nil): boolean?, string?
Cache.add = conditional("add")

--- Stores a value only when there is such a key; without a ttl it then never expires.
---@type fun(self: fpcache.Cache, key: string, value: any, ttl: number|string|nil): boolean?, string?
Cache.replace = conditional("replace")

--- Compare and set: stores a value only when nobody wrote the key since `version` was read.
---@param key string
---@param version integer from entry() or an earlier cas()
---@param value any nil and functions cannot be stored
---@param ttl number|string|nil seconds, or "5m"; none: no expiry
---@return integer|false|nil version the new one; false when it was another
---@return string? err
function Cache:cas(key, version, value, ttl)
  local ok, seconds = check_ttl(ttl, 2)
  if not ok then return nil, seconds end
  local exact, err = check_integer(version, "version", 2)
  if not exact then return nil, err end
  local found, new_version = write(self, "cas", key, value, seconds, nil, 2, exact)
  if found == nil then return nil, new_version end
  return found and new_version
end

local INCR_OPTIONS = {
  ttl = { type = "number string", expected = "seconds or duration" }, -- for a new key; an old one keeps its expiry
  initial = { type = "number cdata", expected = "integer", default = 0 }, -- what a new key starts from
}

--- incr and decr, whose errors blame the caller of `level`.
local function add_to(self, key, delta, opts, is_negative, level)
  if delta == nil then delta = 1 end
  local by, err = check_integer(delta, "delta", level + 1)
  if not by then return nil, err end
  if is_negative then
    by = core.int64_negate(by)
    if not by then return nil, "invalid: delta has no opposite within 64 bits" end
  end
  local read = options.read(INCR_OPTIONS, opts, level + 1)
  local initial
  initial, err = check_integer(read.initial, "initial", level + 1)
  if not initial then return nil, err end
  local ok, ttl = check_ttl(read.ttl, level + 1)
  if not ok then return nil, ttl end
  local stored, long = stored_key(key, self.max_key_bytes, level + 1)
  if not stored then return nil, long end
  -- Beyond 64 bits only a new key fails; the answer is the same for all, since nobody knows which it is.
  local first = core.int64_add(initial, by)
  if not first then return nil, "invalid: initial and delta together are beyond 64 bits" end
  local found, value = told(self, stored, self.db:row(self.statements.incr, self.timeout, self.space, stored, long,
    first, by, ttl, nil))
  if found == nil then return nil, value end
  if not found then return nil, "invalid: the stored value is no integer" end
  return value
end

--- Adds to an integer, atomically; a missing key starts from `initial`.
---@param key string
---@param delta integer? default 1
---@param opts table? { ttl, initial }
---@return integer? value the new one
---@return string? err
function Cache:incr(key, delta, opts)
  local value, err = add_to(self, key, delta, opts, false, 2)
  return value, err
end

--- Subtracts from an integer; see incr.
---@param key string
---@param delta integer? default 1
---@param opts table? as for incr
function Cache:decr(key, delta, opts)
  local value, err = add_to(self, key, delta, opts, true, 2)
  return value, err
end

--- Stores a value and returns the one that it replaced.
---@param key string
---@param value any nil and functions cannot be stored
---@param ttl number|string|nil seconds, or "5m"; none: no expiry
---@return any old nil when there was none
---@return string? err
function Cache:get_set(key, value, ttl)
  local ok, seconds = check_ttl(ttl, 2)
  if not ok then return nil, seconds end
  -- Replacing and adding are two statements; between them the key may come and go.
  for _ = 1, 10 do
    local found, bytes, format = write(self, "get_set", key, value, seconds, nil, 2)
    if found == nil then return nil, bytes end
    if found then
      local stored = stored_key(key, self.max_key_bytes, 2)
      return value_decode(bytes, format, self.codec, self.parse_json, stored)
    end
    local added, err = write(self, "add", key, value, seconds, nil, 2)
    if added == nil then return nil, err end
    if added then return nil end
  end
  return nil, "conflict: the key was deleted and added again too often meanwhile"
end

--- Deletes a key and returns what it held.
---@param key string
---@return any old nil when there was none
---@return string? err
function Cache:get_delete(key)
  local stored, err = stored_key(key, self.max_key_bytes, 2)
  if not stored then return nil, err end
  local found, value = told(self, stored, self.db:value(self.statements.get_delete, self.timeout, self.codec,
    self.parse_json, self.space, stored))
  if found then return value end
  return nil, value -- an error, or nothing
end

--- One round trip to the server.
---@return boolean? true
---@return string? err
function Cache:ping()
  local found, err = self.db:row(self.statements.ping, self.timeout)
  if not found then return nil, err end
  return true
end

return Cache

--- Calls that read one key.  They ask what is nearest first: the near cache, then the filter of keys that may exist,
-- then the server.
local core = require("fpcache.core")
local layers = require("fpcache.layers")
local limits = require("fpcache.limits")
local near_cache = require("fpcache.near")
local options = require("fpcache.options")
local Cache = require("fpcache.client")

local stored_key, value_decode, now = limits.stored_key, core.value_decode, core.system.now
local ABSENT, near_get = near_cache.ABSENT, near_cache.get

local NEAR = { type = "boolean", default = true } -- false: asks the server in any case
local GET_OPTIONS = { parse_json = { type = "boolean" }, near = NEAR }
local READ_OPTIONS = { near = NEAR }

--- What the workers of this nginx have of a key, if that is current.
---@return boolean found
---@return any value nil: it is known that there is none
local function look_shared(self, key, stored, spot, stamp)
  local value, bytes, asked_at, ttl = self.shared:find(self, stored, spot)
  if value == nil then return false end
  local counts, near = self.counts, self.near
  if value == ABSENT then
    counts.misses = counts.misses + 1
    if near then near:put_absent(self.space, key, asked_at, spot, stamp) end
    return true
  end
  counts.hits = counts.hits + 1
  if near then near:put(self.space, key, value, bytes, asked_at, ttl, spot, stamp) end
  return true, value
end

--- Asks the server, and keeps the answer in the near cache and what is shared when there is a stamp for it.
local function load(self, key, stored, parse_json, spot, stamp)
  local counts, near, shared = self.counts, stamp and self.near, stamp and self.shared
  if shared then
    local known, answer = look_shared(self, key, stored, spot, stamp)
    if known then return answer, nil, "shared" end
  end
  local keeps = near or shared
  local asked_at = keeps and now()
  local found, value, ttl, bytes = self.db:value(keeps and self.statements.get_with_ttl or self.statements.get,
    self.timeout, self.codec, parse_json, self.space, stored)
  if found then
    counts.hits = counts.hits + 1
    if self.touches then self.touches:hit(self.space, stored) end
    if near then near:put(self.space, key, value, bytes, asked_at, ttl, spot, stamp) end
    if shared then shared:keep(self, stored, value, asked_at, ttl) end
    return value, nil, "db"
  end
  if found == nil then return nil, value end
  counts.misses = counts.misses + 1
  if stamp then layers.asked_in_vain(self, 1) end
  if near then near:put_absent(self.space, key, asked_at, spot, stamp) end
  if shared then shared:keep_absent(self, stored, asked_at) end
  return nil, nil, "db"
end

--- get with options: those that ask for other values than the near cache holds pass it by.
local function get_with_options(self, key, opts, level)
  local read = options.read(GET_OPTIONS, opts, level + 1)
  local parse_json = read.parse_json
  if parse_json == nil then parse_json = self.parse_json end
  local stored, err = stored_key(key, self.max_key_bytes, level + 1)
  if not stored then return nil, err end
  if read.near and parse_json == self.parse_json then return self:get(key) end
  if read.near and self.feed:look(self.seed, stored) then
    self.counts.absent = self.counts.absent + 1
    return nil, nil, "filter"
  end
  return load(self, key, stored, parse_json)
end

--- The value of a key.
---@param key string
---@param opts table? { parse_json = false } gives the text of JSON values; { near = false } asks the server in any case
---@return any value nil when there is none (or it has expired); a table may be shared, see docs/near.md
---@return string? err
---@return string? source where the answer came from: "near", "filter", "db", and in nginx "shared"
function Cache:get(key, opts)
  local value, err, source
  if opts ~= nil then
    value, err, source = get_with_options(self, key, opts, 2)
    return value, err, source
  end
  local near = self.near
  if near then
    value = near_get(near, self.space, key)
    if value ~= nil then
      if value == ABSENT then value = nil end
      return value, nil, "near"
    end
  end
  local stored, seed = key, self.seed
  local absent, spot, stamp = self.look(seed, key) -- the stamp comes before the value
  if absent then
    local counts = self.counts
    counts.absent = counts.absent + 1
    return nil, nil, "filter"
  end
  if absent == nil then -- no usual key, or no feed
    stored, err = stored_key(key, self.max_key_bytes, 2)
    if not stored then return nil, err end
    absent, spot, stamp = self.feed:look(seed, stored)
    if absent then
      self.counts.absent = self.counts.absent + 1
      return nil, nil, "filter"
    end
  end
  value, err, source = load(self, key, stored, self.parse_json, spot, stamp)
  return value, err, source
end

--- Whether the filter knows that there is no such key.
---@return boolean? absent nil when the key cannot be used
---@return string stored_or_err
---@return number? stamp when it could have known
local function look(self, key, opts, level)
  local stored, err = stored_key(key, self.max_key_bytes, level + 1)
  if not stored then return nil, err end
  if opts ~= nil and not options.read(READ_OPTIONS, opts, level + 1).near then return false, stored end
  local absent, _, stamp = self.feed:look(self.seed, stored)
  if absent then self.counts.absent = self.counts.absent + 1 end
  return absent, stored, stamp
end

--- A value with what is known about it; from the server.
---@param key string
---@param opts table? { near = false } asks the server although the filter knows that there is no such key
---@return table? entry { value, version, ttl (seconds; -1: no expiry), bytes, format }
---@return string? err
function Cache:entry(key, opts)
  local absent, stored, stamp = look(self, key, opts, 2)
  if absent == nil then return nil, stored end
  if absent then return nil end
  local found, bytes, format, version, ttl, size = self.db:row(self.statements.entry, self.timeout, self.space, stored)
  if not found then
    if found == false and stamp then layers.asked_in_vain(self, 1) end
    return nil, bytes
  end
  local value, err = value_decode(bytes, format, self.codec, self.parse_json, stored)
  if value == nil then return nil, err end
  return { value = value, version = version, ttl = ttl < 0 and -1 or ttl, bytes = size, format = format }
end

local function ttl_of(self, key, opts, level)
  local absent, stored, stamp = look(self, key, opts, level + 1)
  if absent == nil then return nil, stored end
  if absent then return -2 end
  local found, ttl = self.db:row(self.statements.ttl, self.timeout, self.space, stored)
  if found == nil then return nil, ttl end
  if not found then
    if stamp then layers.asked_in_vain(self, 1) end
    return -2
  end
  return ttl < 0 and -1 or ttl
end

---@param key string
---@param opts table? { near = false } asks the server in any case
---@return boolean? exists
---@return string? err
function Cache:exists(key, opts)
  if self.near and (opts == nil or options.read(READ_OPTIONS, opts, 2).near) then
    local value = self.near:get(self.space, key)
    if value ~= nil then return value ~= ABSENT end
  end
  local ttl, err = ttl_of(self, key, opts, 2)
  if not ttl then return nil, err end
  return ttl ~= -2
end

--- Seconds until a key expires.
---@param key string
---@param opts table? { near = false } asks the server although the filter knows that there is no such key
---@return number? seconds with fractions; -1: no expiry; -2: no such key
---@return string? err
function Cache:ttl(key, opts)
  local ttl, err = ttl_of(self, key, opts, 2)
  return ttl, err
end

return Cache

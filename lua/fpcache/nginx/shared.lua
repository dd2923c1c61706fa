--- The tier between the near cache and the server: an `lua_shared_dict`, one for all workers of an nginx.
--
-- Each entry says when the server was asked for it, on the clock that all processes of the machine share.  A worker gives it out
-- only if all that its own feed ever told about the key was known before that, and the feed is fresh: then the answer was
-- read after every such change was committed (docs/nginx.md has the argument).  So no worker has to tell another one
-- anything, and an entry that a slower worker stored is refused by whoever knows better.  Values are kept as a cache
-- stores them in the table: what is encrypted there is encrypted here.
local core = require("fpcache.core")
local near_cache = require("fpcache.near")

local now = core.system.now

local LARGEST_PART = 16 -- no value takes more than this part of the dictionary
local HEADER = "^([^;]*);([^;]*);([^;]*);()"
local ABSENT, ABSENT_FORMAT = near_cache.ABSENT, "-" -- a format that no value has

---@class fpcache.nginx.Shared
---@field hits integer
---@field misses integer
---@field refused integer found, but not known to be current
---@field stored integer
local Shared = {}
Shared.__index = Shared

local shared = {}

-- What decides where a cache leads to: entries of another place must not be found.
local PLACE = { "connection_string", "host", "port", "database", "user", "schema", "auth", "instance_name", "endpoint",
  "profile" }

--- The name of a place, by options.
local function prefix_of(o)
  local parts = {}
  for i, name in ipairs(PLACE) do parts[i] = name .. "=" .. tostring(o[name]) end
  local more = {}
  for keyword, value in pairs(o.libpq or {}) do more[#more + 1] = keyword .. "=" .. tostring(value) end
  table.sort(more)
  more[#more + 1] = tostring(o.parse_json) -- what is read depends on it
  return ngx.md5(table.concat(parts, "\0") .. "\0" .. table.concat(more, "\0"))
end

---@param o table options of fpcache.new, as read
---@param feed table the feed of this worker
---@return fpcache.nginx.Shared? tier, string? err
function shared.open(o, feed)
  local dict = ngx.shared[o.shared_dict]
  if not dict then
    return nil, ("invalid: there is no lua_shared_dict %s; add `lua_shared_dict %s 64m;` to the http block"):format(
      o.shared_dict, o.shared_dict)
  end
  return setmetatable({
    dict = dict, feed = feed, prefix = prefix_of(o), ttl = o.near_ttl, negative_ttl = o.near_negative_ttl,
    largest = dict:capacity() / LARGEST_PART, hits = 0, misses = 0, refused = 0, stored = 0,
  }, Shared)
end

local function name_of(self, space, stored) return self.prefix .. #space .. ":" .. space .. stored end

--- What is kept of a key.
---@param cache fpcache.Cache
---@param stored string the stored key
---@param spot number of the feed
---@return any value shared.ABSENT: the server had none; nil: only the server knows
---@return integer? bytes encoded
---@return number? asked_at, number? ttl seconds from then on
function Shared:find(cache, stored, spot)
  local packed = self.dict:get(name_of(self, cache.space, stored))
  if not packed then
    self.misses = self.misses + 1
    return nil
  end
  local asked_at, ends, format, at = packed:match(HEADER)
  asked_at, ends = tonumber(asked_at), tonumber(ends)
  if not self.feed:is_unchanged_since(spot, asked_at, ends) then
    self.refused = self.refused + 1
    return nil
  end
  local value = ABSENT
  if format ~= ABSENT_FORMAT then value = core.value_decode(packed:sub(at), format, cache.codec, cache.parse_json, stored) end
  if value ~= nil then self.hits = self.hits + 1 end
  return value, #packed - at + 1, asked_at, ends - asked_at
end

local function put(self, cache, stored, format, bytes, asked_at, ttl)
  local left = asked_at + ttl - now()
  if left <= 0 or #bytes > self.largest then return end
  local packed = ("%.6f;%.6f;%s;"):format(asked_at - 0.000001, asked_at + ttl, format) .. bytes -- never later than it was
  if self.dict:set(name_of(self, cache.space, stored), packed, left) then self.stored = self.stored + 1 end
end

--- Keeps what the server answered.
---@param value any
---@param asked_at number before the server was asked
---@param ttl number seconds it had to live then; negative: no expiry
function Shared:keep(cache, stored, value, asked_at, ttl)
  local bytes, format = core.value_encode(value, cache.codec, stored)
  if not bytes then return end
  if ttl < 0 or ttl > self.ttl then ttl = self.ttl end
  put(self, cache, stored, format, bytes, asked_at, ttl)
end

--- Keeps that the server had no such key.
function Shared:keep_absent(cache, stored, asked_at)
  put(self, cache, stored, ABSENT_FORMAT, "", asked_at, self.negative_ttl)
end

--- Counts of this worker, and what the dictionary has: hits, misses, refused, stored, capacity and free (bytes).
---@return table
function Shared:stats()
  return { hits = self.hits, misses = self.misses, refused = self.refused, stored = self.stored,
    capacity = self.dict:capacity(), free = self.dict:free_space() }
end

return shared

--- What a key, a time to live and a point of time may be.
--
-- A wrong type is the programmer's error and raises; a value out of range comes from data and is answered
-- with nil, "invalid: ...".
local core = require("fpcache.core")
local duration = require("fpcache.duration")

local KEY_INLINE = core.KEY_INLINE
local shorten_key, int64 = core.shorten_key, core.int64
local MAX_TTL = 1e10 -- seconds, 317 years: far within PostgreSQL's range of times
local MAX_TIME = 1e11

local limits = {}

--- Why a key cannot be used, or nil.
---@param key string 1 to max_bytes bytes, any content
---@param max_bytes integer
---@param level integer whose line a wrong type blames
---@return string? err
function limits.key_error(key, max_bytes, level)
  if type(key) ~= "string" then error(("bad key (string expected, got %s)"):format(type(key)), level + 1) end
  if key == "" then return "invalid: a key must not be empty" end
  if #key > max_bytes then
    return ("invalid: a key of %d bytes exceeds max_key_bytes (%d)"):format(#key, max_bytes)
  end
end

--- The stored form of a key (see include/fpcache/key.h), and the whole key where that is longer.
---@return string? stored, string? long_key_or_err
function limits.stored_key(key, max_bytes, level)
  if type(key) == "string" and key ~= "" and #key <= KEY_INLINE and #key <= max_bytes then return key end -- nearly all
  local err = limits.key_error(key, max_bytes, level + 1)
  if err then return nil, err end
  local stored
  stored, err = shorten_key(key)
  return stored, stored and key or err
end

--- Seconds to live, or nil for no expiry (nil and math.huge).
---@param ttl number|string|nil fractions allowed; a text is a duration such as "5m"
---@param level integer
---@return boolean ok, number? seconds_or_err
function limits.ttl(ttl, level)
  if ttl == nil or ttl == math.huge then return true, nil end
  if type(ttl) == "string" then
    local seconds, reason = duration.parse(ttl)
    if not seconds then return false, "invalid: a ttl: " .. reason end
    ttl = seconds
  elseif type(ttl) ~= "number" then
    error(("bad ttl (number of seconds or duration expected, got %s)"):format(type(ttl)), level + 1)
  end
  if ttl > 0 and ttl <= MAX_TTL then return true, ttl end
  return false, ("invalid: a ttl must be more than 0 and at most %g seconds, got %s (leave it out for no expiry)")
    :format(MAX_TTL, tostring(ttl))
end

--- A point of time in seconds since 1970.
---@param time number
---@param level integer
---@return boolean ok, number? seconds_or_err
function limits.time(time, level)
  if type(time) ~= "number" then
    error(("bad expires_at (number of seconds since 1970 expected, got %s)"):format(type(time)), level + 1)
  end
  if time > 0 and time <= MAX_TIME then return true, time end
  return false, ("invalid: expires_at must be between 0 and %g seconds since 1970, got %s"):format(
    MAX_TIME, tostring(time))
end

--- An integer of 64 bits, as this Lua holds it.
---@param value number|ffi.cdata* a float without a fraction counts
---@param what string how errors call it
---@param level integer
---@return integer? exact, string? err
function limits.integer(value, what, level)
  local exact = int64(value)
  if exact then return exact end
  local kind = type(value)
  local is_whole = kind == "number" and (value ~= value or math.abs(value) == math.huge or value % 1 == 0)
    or kind == "cdata" and tostring(value):match("^%-?%d+U?LL$")
  if is_whole then return nil, ("invalid: %s must be an integer of 64 bits, got %s"):format(what, tostring(value)) end
  error(("bad %s (integer expected, got %s)"):format(what, kind == "number" and tostring(value) or kind), level + 1)
end

--- A namespace: up to 255 bytes of UTF-8.
---@param name string
---@return string? reason why it cannot be used
function limits.namespace(name)
  if #name > 255 then return ("a namespace has at most 255 bytes, got %d"):format(#name) end
  if name:find("\0", 1, true) then return "a namespace must not hold a NUL byte" end
  if not core.json_encode(name) then return "a namespace must be UTF-8" end -- as JSON must
end

local MAX_TAGS, MAX_TAG_BYTES = 100, 255

--- The tags of an entry: a new list in order, each once.
---@param tags string|string[] one, or a list; 1 to 255 bytes each, any content, at most 100
---@param level integer whose line a wrong type blames
---@return string[]? list, string? err
function limits.tags(tags, level)
  if type(tags) == "string" then tags = { tags } end
  if type(tags) ~= "table" then error(("bad tags (string or list expected, got %s)"):format(type(tags)), level + 1) end
  local list, seen = {}, {}
  for i = 1, #tags do
    local tag = tags[i]
    if type(tag) ~= "string" then error(("bad tag %d (string expected, got %s)"):format(i, type(tag)), level + 1) end
    if tag == "" or #tag > MAX_TAG_BYTES then
      return nil, ("invalid: a tag has 1 to %d bytes, tag %d has %d"):format(MAX_TAG_BYTES, i, #tag)
    end
    if not seen[tag] then
      seen[tag] = true
      list[#list + 1] = tag
    end
  end
  if #list > MAX_TAGS then return nil, ("invalid: at most %d tags, got %d"):format(MAX_TAGS, #list) end
  table.sort(list)
  return list
end

return limits

--- The feed as this Lua asks it fastest.
--
-- LuaJIT leaves its compiled code for a userdata's method, and does not for a call by its FFI.  So there the two questions of
-- every lookup go that way, and all others to the userdata.  For a single key even finding the method counts: bind() gives
-- plain functions that have the feed with them, in plain Lua C functions.
local core = require("fpcache.core")

local fast_feed = {}

local has_ffi, ffi = pcall(require, "ffi")
if not has_ffi or not rawget(_G, "jit") then
  --- The feed itself.
  function fast_feed.of(feed) return feed end
  --- As below.
  fast_feed.bind = core.feed_bound
  return fast_feed
end

local Fast = {}
Fast.__index = Fast

for _, name in ipairs { "is_unchanged_since", "stamp", "wrote", "wrote_keys", "wrote_batch", "wrote_hashes", "wrote_all",
  "missed", "wait_fresh", "stats", "close" } do
  Fast[name] = function(self, ...)
    local feed = self.feed
    return feed[name](feed, ...)
  end
end

local look, is_current = core.feed_functions()
look = ffi.cast("bool (*)(void *, double, const char *, double, double *)", look)
is_current = ffi.cast("double (*)(void *, double, double, double, double)", is_current)
local out = ffi.new("double[2]")

function Fast:look(seed, stored)
  local absent, stamp = look(self.pointer, seed, stored, #stored, out), out[1]
  if stamp == 0 then return absent, out[0], nil end
  return absent, out[0], stamp
end

function Fast:is_current(spot, stamp, ends)
  return is_current(self.pointer, spot, stamp, ends or math.huge, 0) ~= 0
end

--- The same feed, with look() and is_current() compiled in.
---@param feed userdata of core.feed(); kept alive
---@return table
function fast_feed.of(feed)
  return setmetatable({ feed = feed, pointer = ffi.cast("void *", feed) }, Fast)
end

--- feed:look and feed:is_current as plain functions, for as long as the caller keeps the feed.
---@param feed table of fast_feed.of()
---@param most integer bytes
---@return fun(seed: number, key: any): boolean?, number?, number? look absent, spot, stamp (nil when stale); nothing for a key
--- that is no string of 1 to `most` bytes
---@return fun(spot: number, stamp: number, ends: number, seen: number): number is_current 0 when it is not; another number
--- is to be kept and given as `seen` the next time (0 the first time), which then is answered quicker
function fast_feed.bind(feed, most)
  local pointer, two = feed.pointer, ffi.new("double[2]")
  local function bound_look(seed, key)
    if type(key) ~= "string" then return nil end
    local length = #key
    if length == 0 or length > most then return nil end
    local absent, stamp = look(pointer, seed, key, length, two), two[1]
    if stamp == 0 then return absent, two[0], nil end
    return absent, two[0], stamp
  end
  local function bound_is_current(spot, stamp, ends, seen) return is_current(pointer, spot, stamp, ends, seen) end
  return bound_look, bound_is_current
end

return fast_feed

--- The feed as this Lua asks it fastest.
--
-- LuaJIT leaves its compiled code for a userdata's method, and does not for a call by its FFI.  So there the two questions of
-- every lookup go that way, and all others to the userdata.  For a single key even finding the method counts: bind_look()
-- and terms() give plain functions that have with them what they ask; in plain Lua C functions.
local core = require("fpcache.core")

local fast_feed = {}

local has_ffi, ffi = pcall(require, "ffi")
if not has_ffi or not rawget(_G, "jit") then
  --- The feed itself.
  function fast_feed.of(feed) return feed end
  --- As below.
  fast_feed.bind_look, fast_feed.terms = core.feed_bound, core.terms
  return fast_feed
end

local Fast = {}
Fast.__index = Fast

for _, name in ipairs { "is_current", "is_unchanged_since", "stamp", "wrote", "wrote_keys", "wrote_batch", "wrote_hashes",
  "wrote_all", "missed", "wait_fresh", "stats", "close" } do
  Fast[name] = function(self, ...)
    local feed = self.feed
    return feed[name](feed, ...)
  end
end

local look = ffi.cast("bool (*)(void *, double, const char *, double, double *)", core.feed_function())
local is_current = ffi.cast("bool (*)(void *, int32_t)", core.terms_function())
local out = ffi.new("double[2]")

function Fast:look(seed, stored)
  local absent, stamp = look(self.pointer, seed, stored, #stored, out), out[1]
  if stamp == 0 then return absent, out[0], nil end
  return absent, out[0], stamp
end

--- The same feed, with look() compiled in.
---@param feed userdata of core.feed(); kept alive
---@return table
function fast_feed.of(feed)
  return setmetatable({ feed = feed, pointer = ffi.cast("void *", feed) }, Fast)
end

--- feed:look as a plain function, for as long as the caller keeps the feed.
---@param feed table of fast_feed.of()
---@param most integer bytes
---@return fun(seed: number, key: any): boolean?, number?, number? look absent, spot, stamp (nil when stale); nothing for a key
--- that is no string of 1 to `most` bytes
function fast_feed.bind_look(feed, most)
  local pointer, two = feed.pointer, ffi.new("double[2]")
  return function(seed, key)
    if type(key) ~= "string" then return nil end
    local length = #key
    if length == 0 or length > most then return nil end
    local absent, stamp = look(pointer, seed, key, length, two), two[1]
    if stamp == 0 then return absent, two[0], nil end
    return absent, two[0], stamp
  end
end

--- Keeps the terms of copies (see include/fpcache/terms.h), for as long as the caller keeps both the terms and the feed.
---@param feed table of fast_feed.of()
---@return userdata terms put(slot, spot, stamp, ends) -> boolean (false: no memory); get(slot) -> spot, stamp, ends;
--- held() -> how often is_current was true
---@return fun(slot: integer): boolean is_current whether what was put there may still be given out
function fast_feed.terms(feed)
  local terms = core.terms(feed.feed)
  local pointer = ffi.cast("void *", terms)
  return terms, function(slot) return is_current(pointer, slot) end
end

return fast_feed

--- The feed as LuaJIT asks it fastest.
--
-- Plain Lua calls a userdata's method; there is nothing faster.  LuaJIT leaves its compiled code for such a call, and
-- does not for one by its FFI.  So the two questions of every lookup go that way, and all others to the userdata.
local core = require("fpcache.core")

local fast_feed = {}

local has_ffi, ffi = pcall(require, "ffi")
if not has_ffi or not rawget(_G, "jit") then
  --- The feed itself.
  function fast_feed.of(feed) return feed end
  return fast_feed
end

local Fast = {}
Fast.__index = Fast

for _, name in ipairs { "is_unchanged_since", "stamp", "wrote", "wrote_keys", "wrote_batch", "wrote_hashes", "wrote_all", "missed", "wait_fresh",
  "stats", "close" } do
  Fast[name] = function(self, ...)
    local feed = self.feed
    return feed[name](feed, ...)
  end
end

local look, is_current = core.feed_functions()
look = ffi.cast("bool (*)(void *, double, const char *, double, double *)", look)
is_current = ffi.cast("bool (*)(void *, double, double, double)", is_current)
local out = ffi.new("double[2]")

function Fast:look(seed, stored)
  local absent, stamp = look(self.pointer, seed, stored, #stored, out), out[1]
  if stamp == 0 then return absent, out[0], nil end
  return absent, out[0], stamp
end

function Fast:is_current(spot, stamp, ends)
  return is_current(self.pointer, spot, stamp, ends)
end

--- The same feed, with look() and is_current() compiled in.
---@param feed userdata of core.feed(); kept alive
---@return table
function fast_feed.of(feed)
  return setmetatable({ feed = feed, pointer = ffi.cast("void *", feed) }, Fast)
end

return fast_feed

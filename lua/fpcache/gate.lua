--- How the near cache asks the feed whether an entry is current, at each hit: the dearest part of it.
--
-- In plain Lua a method call is the fastest there is.  LuaJIT leaves its compiled code for one; through its FFI
-- it calls the C function directly, which costs a tenth.
local core = require("fpcache.core")

local gate = {}

--- What to call, and its first argument.
---@param feed userdata stays alive as long as the caller keeps it
---@return any first, fun(first, spot: number, stamp: number, ends: number): boolean
function gate.of(feed)
  local has_ffi, ffi = pcall(require, "ffi")
  if not has_ffi or not rawget(_G, "jit") then return feed, feed.is_current end
  return ffi.cast("void *", feed), ffi.cast("bool (*)(void *, double, double, double)", core.feed_gate())
end

return gate

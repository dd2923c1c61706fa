--- load.lua COUNT ROUND -- Question: how long does the filter of COUNT keys take to load, and what memory does it take?
--
-- Memory is that of this process: before the cache was opened, when the filter was ready, and the most it ever was.
local common = require("common")
local fpcache = require("fpcache")
local now = require("fpcache.core").system.now

local COUNT, ROUND = assert(tonumber(arg[1])), assert(tonumber(arg[2]))
local ASKED = 20000 -- absent keys, for the share of false "maybe"s

local function memory(field)
  local status = common.read_file("/proc/self/status")
  return tonumber(status:match(field .. ":%s+(%d+) kB")) * 1024
end

collectgarbage()
local before, start = memory("VmRSS"), now()
local cache = assert(fpcache.new { connection_string = common.url, cuckoo_capacity = COUNT, near_size = 0 })
assert(cache:wait_ready(300))
local wall = now() - start
local after, most = memory("VmRSS"), memory("VmHWM")
for i = 1, ASKED do assert(cache:get(("none:%d"):format(i)) == nil) end
local filter = assert(cache:stats()).filter
-- A key whose fingerprint is there already is not added again.
assert(filter.keys >= COUNT * 0.99 and filter.state == "fresh", "the filter was not loaded")
local result = {
  keys = COUNT, ready_seconds = wall, load_seconds = filter.load_seconds, filter_bytes = filter.bytes,
  rss_before = before, rss_ready = after, rss_most = most, false_positive_share = filter.false_positives / ASKED,
}
common.keep(("load_%d_%d"):format(COUNT, ROUND), result)
print(("%9d keys: ready after %.2f s (the load %.2f s), filter %.1f MB, RSS %.1f -> %.1f MB (most %.1f)"):format(COUNT,
  wall, filter.load_seconds, filter.bytes / 1e6, before / 1e6, after / 1e6, most / 1e6))
print(("%9s       false maybes %.3f %%"):format("", result.false_positive_share * 100))
cache:close()

-- reader.lua FILE KEYS -- reads random ones of the keys live:1 to live:KEYS until FILE is there, and prints how many it read in a
-- second and how long a read took, in microseconds: reads median p99.
local fpcache = require("fpcache")
local core = require("fpcache.core")

local path, keys = arg[1], tonumber(arg[2])
local now = core.system.now
local cache = assert(fpcache.new { feed = false, maxconn = 1 })
local took, count, state = {}, 0, core.system.pid()
local began = now()
repeat
  for _ = 1, 50 do
    state = state * 16807 % 2147483647
    local started = now()
    assert(cache:get("live:" .. state % keys + 1))
    count = count + 1
    took[count] = now() - started
  end
until core.system.lstat(path)
local seconds = now() - began
table.sort(took)
print(("%.0f %.1f %.1f"):format(count / seconds, took[(count + 1) // 2] * 1e6, took[math.ceil(count * 0.99)] * 1e6))
cache:close()

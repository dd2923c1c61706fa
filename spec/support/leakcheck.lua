-- leakcheck.lua -- run by ./dev test under valgrind: touches every part that needs no server.
-- Whatever is opened is closed, some of it by the garbage collector, so what valgrind still
-- finds at the end is a leak of ours.
local core = require "fpcache.core"

for _ = 1, 100 do
  assert(core.version:match("^%d+%.%d+%.%d+$"))
end
collectgarbage()
collectgarbage()

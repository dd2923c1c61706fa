-- cqueues.lua -- fpcache in a program that waits in cqueues (Debian: lua-cqueues).
--
--     FPCACHE_URL=postgresql://me@host/db lua5.4 examples/loops/cqueues.lua
--
-- One thread of cqueues steps fpcache's tasks whenever an answer is there; the others are cqueues' own.
local cqueues = require("cqueues")
local fpcache = require("fpcache")

local cache = assert(fpcache.new({}))
local loop = cqueues.new()

-- fpcache's work: a hundred reads and writes, on their way together.
local sum = 0
for i = 1, 100 do
  fpcache.spawn(function()
    assert(cache:set("cqueues:" .. i, i, 60))
    local value = cache:get("cqueues:" .. i) -- first: `sum = sum + cache:get(...)` would read sum, then wait
    sum = sum + value
  end)
end

loop:wrap(function()
  local answers = { pollfd = fpcache.completions_fd(), events = "r" } -- what cqueues can poll
  while true do
    local pause = fpcache.step()
    if not pause then break end                                       -- no task is left
    cqueues.poll(answers, pause < math.huge and pause or nil)
  end
end)

-- cqueues' own work.
local ticks = 0
loop:wrap(function()
  for _ = 1, 5 do
    cqueues.sleep(0.001)
    ticks = ticks + 1
  end
end)

assert(loop:loop(30))
print(("the sum is %d, %d ticks"):format(sum, ticks))
cache:close()

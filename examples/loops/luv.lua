-- luv.lua -- fpcache in a program that waits in libuv (Debian: lua-luv).
--
--     FPCACHE_URL=postgresql://me@host/db lua5.4 examples/loops/luv.lua
--
-- A poll handle watches fpcache's descriptor, a timer what its tasks sleep for.
local fpcache = require("fpcache")
local uv = require("luv")

local cache = assert(fpcache.new({}))
local answers, alarm = uv.new_poll(fpcache.completions_fd()), uv.new_timer()

local function step()
  local pause = fpcache.step()
  alarm:stop()
  if not pause then -- no task is left: let the loop end
    answers:stop()
  elseif pause < math.huge then
    alarm:start(math.ceil(pause * 1000), 0, step)
  end
end

-- fpcache's work: a hundred reads and writes, on their way together.
local sum = 0
for i = 1, 100 do
  fpcache.spawn(function()
    assert(cache:set("luv:" .. i, i, 60))
    fpcache.sleep(0.001)
    local value = cache:get("luv:" .. i) -- first: `sum = sum + cache:get(...)` would read sum, then wait
    sum = sum + value
  end)
end
answers:start("r", step)

-- libuv's own work.
local ticks, ticker = 0, uv.new_timer()
ticker:start(1, 1, function()
  ticks = ticks + 1
  if ticks == 5 then ticker:stop() end
end)

uv.run()
print(("the sum is %d, %d ticks"):format(sum, ticks))
cache:close()

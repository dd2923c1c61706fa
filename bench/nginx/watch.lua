-- watch.lua -- a script for wrk, one connection for each thread: notes when each request began and ended, and what it got.
--
-- Lines of $BENCH_TMP/watch.N: begin, end (seconds on the clock of core.system.now), status.
-- luacheck: globals wrk number setup init delay request response
local ffi = require("ffi")
ffi.cdef "typedef struct { long seconds, nanoseconds; } fpc_time; int clock_gettime(int clock, fpc_time *time);"

local MONOTONIC, PAUSE = 1, 2 -- ms between two requests
local time = ffi.new("fpc_time")
local count, began, file = 0, 0, nil

local function now()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

function setup(thread)
  count = count + 1
  thread:set("number", count)
end

function init() file = assert(io.open(os.getenv("BENCH_TMP") .. "/watch." .. number, "w")) end

function delay() return PAUSE end

function request()
  began = now()
  return wrk.format()
end

function response(status)
  file:write(("%.6f %.6f %d\n"):format(began, now(), status))
  file:flush()
end

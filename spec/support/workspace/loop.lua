-- loop.lua -- coroutines that wait for sockets and for time: the engine of the stand-in workspace server.
-- Runs under Lua 5.4 with lua-socket and lua-sec, in a process of its own.
local socket = require "socket"

local loop = {}

local TICK = 0.02 -- seconds between two looks at the clock

local waiting = {} -- coroutine -> {sock, "r" or "w"} or {until_time}

local function resume(co)
  local ok, what, how = coroutine.resume(co)
  waiting[co] = nil
  if not ok then
    io.stderr:write("server: ", debug.traceback(co, tostring(what)), "\n")
  elseif coroutine.status(co) ~= "dead" then
    waiting[co] = { what, how }
  end
end

--- Starts a coroutine.
function loop.go(f, ...)
  local args = table.pack(...)
  resume(coroutine.create(function() f(table.unpack(args, 1, args.n)) end))
end

function loop.readable(sock) coroutine.yield(sock, "r") end
function loop.writable(sock) coroutine.yield(sock, "w") end
function loop.sleep(seconds) coroutine.yield(socket.gettime() + seconds) end

--- Resumes whoever waits for a socket that was closed meanwhile.
function loop.wake(sock)
  local woken = {}
  for co, w in pairs(waiting) do
    if w[1] == sock then woken[#woken + 1] = co end
  end
  for _, co in ipairs(woken) do resume(co) end
end

--- Runs for ever; `tick` is called some fifty times a second.
function loop.run(tick)
  while true do
    local read, write, of = {}, {}, {}
    for co, w in pairs(waiting) do
      if w[2] then
        local set = w[2] == "r" and read or write
        set[#set + 1] = w[1]
        of[w[1]] = of[w[1]] or {}
        table.insert(of[w[1]], co)
      end
    end
    local r, s = socket.select(read, write, TICK)
    local ready = {}
    for _, set in ipairs { r, s } do
      for _, sock in ipairs(set) do
        for _, co in ipairs(of[sock]) do ready[#ready + 1] = co end
      end
    end
    local now = socket.gettime()
    for co, w in pairs(waiting) do
      if not w[2] and w[1] <= now then ready[#ready + 1] = co end
    end
    for _, co in ipairs(ready) do
      if waiting[co] then resume(co) end
    end
    tick()
  end
end

return loop

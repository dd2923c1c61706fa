-- tunnel.lua -- what a proxy does: on CONNECT it passes the bytes of both sides on, and keeps a copy.
local loop = require "loop"
local socket = require "socket"

local tunnel = {}

local function pass(from, to, copy)
  while true do
    local bytes, why, part = from:receive(8192)
    bytes = bytes or part
    if bytes and #bytes > 0 then
      copy:write(bytes)
      local at = 1
      while at <= #bytes do
        local last, failed, sent = to:send(bytes, at)
        at = (last or sent or at - 1) + 1
        if not last and failed ~= "timeout" then return end
        if not last then loop.writable(to) end
      end
    elseif why == "timeout" then
      loop.readable(from)
    else
      return
    end
  end
end

--- Takes over a plain socket after its request CONNECT.  Whatever name was asked for, the other end is this machine's.
---@param sock table
---@param port integer
---@param path string of the copy
function tunnel.run(sock, port, path)
  local copy = assert(io.open(path, "ab"))
  local other = assert(socket.connect("127.0.0.1", port))
  other:settimeout(0)
  assert(sock:send("HTTP/1.1 200 Connected\r\n\r\n"))
  loop.go(function()
    pass(other, sock, copy)
    sock:shutdown("send")
  end)
  pass(sock, other, copy)
  copy:close()
  other:shutdown("send")
end

return tunnel

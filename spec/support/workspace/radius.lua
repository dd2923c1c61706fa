-- radius.lua -- tells PostgreSQL which passwords are good (RFC 2865, by PAP), so that many of one role are at once, as on
-- Lakebase: every token until its own end.
local loop = require "loop"
local md5 = require "md5"
local socket = require "socket"

local radius = { SECRET = "between-the-stand-ins" }

local ACCEPT, REJECT = 2, 3
local USER_NAME, USER_PASSWORD = 1, 2

local function xor(a, b)
  local out = {}
  for i = 1, #a do out[i] = string.char(a:byte(i) ~ b:byte(i)) end
  return table.concat(out)
end

local function attributes(packet)
  local found, at = {}, 21
  while at + 1 <= #packet do
    local kind, length = packet:byte(at, at + 1)
    if length < 2 then break end
    found[kind] = packet:sub(at + 2, at + length - 1)
    at = at + length
  end
  return found
end

local function password_of(hidden, authenticator)
  local clear, before = {}, authenticator
  for at = 1, #hidden, 16 do
    local block = hidden:sub(at, at + 15)
    clear[#clear + 1] = xor(block, md5.sum(radius.SECRET .. before))
    before = block
  end
  return (table.concat(clear):gsub("%z+$", ""))
end

local function answer(packet, is_good)
  local id, authenticator = packet:byte(2), packet:sub(5, 20)
  local found = attributes(packet)
  local password = password_of(found[USER_PASSWORD] or "", authenticator)
  local head = string.pack(">BBI2", is_good(found[USER_NAME], password) and ACCEPT or REJECT, id, 20)
  return head .. md5.sum(head .. authenticator .. radius.SECRET)
end

--- Listens; the port.  is_good(user, password) decides.
function radius.start(is_good)
  local udp = assert(socket.udp())
  assert(udp:setsockname("127.0.0.1", 0))
  udp:settimeout(0)
  loop.go(function()
    while true do
      loop.readable(udp)
      local packet, ip, port = udp:receivefrom()
      if packet and #packet >= 20 then udp:sendto(answer(packet, is_good), ip, port) end
    end
  end)
  return (select(2, udp:getsockname()))
end

return radius

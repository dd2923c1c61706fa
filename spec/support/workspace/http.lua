-- http.lua -- HTTP/1.1 on a socket of the loop, with or without TLS.
local loop = require "loop"
local ssl = require "ssl"

local http = {}

local function wait(sock, why)
  if why == "wantwrite" then loop.writable(sock) else loop.readable(sock) end
end

local Stream = {}
Stream.__index = Stream

--- Takes over a connected socket; `tls` is a context of ssl.newcontext() or nil.  Nil when TLS fails.
function http.stream(sock, tls)
  sock:settimeout(0)
  if tls then
    sock = assert(ssl.wrap(sock, tls))
    sock:settimeout(0)
    while true do
      local ok, why = sock:dohandshake()
      if ok then break end
      if why ~= "wantread" and why ~= "wantwrite" and why ~= "timeout" then
        sock:close()
        return nil
      end
      wait(sock, why)
    end
  end
  return setmetatable({ sock = sock, buffer = "" }, Stream)
end

-- More bytes into the buffer; false at the end.
function Stream:more()
  while true do
    local bytes, why, part = self.sock:receive(8192)
    bytes = bytes or part
    if bytes and #bytes > 0 then
      self.buffer = self.buffer .. bytes
      return true
    end
    if why ~= "wantread" and why ~= "wantwrite" and why ~= "timeout" then return false end
    wait(self.sock, why)
  end
end

local function decoded(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

--- The fields of a form or a query.
function http.form(text)
  local fields = {}
  for name, value in text:gmatch("([^&=]+)=([^&]*)") do fields[decoded(name)] = decoded(value) end
  return fields
end

--- The next request {method, path, query, headers, body}; nil at the end.
function Stream:request()
  local head_end
  while true do
    head_end = select(2, self.buffer:find("\r\n\r\n", 1, true))
    if head_end then break end
    if not self:more() then return nil end
  end
  local head = self.buffer:sub(1, head_end)
  self.buffer = self.buffer:sub(head_end + 1)
  local method, target = head:match("^(%u+) (%S+) HTTP/1%.%d\r\n")
  if not method then return nil end
  local headers = {}
  for name, value in head:gmatch("\r\n([^:\r\n]+):%s*([^\r\n]*)") do headers[name:lower()] = value end
  local length = tonumber(headers["content-length"]) or 0
  while #self.buffer < length do
    if not self:more() then return nil end
  end
  local body = self.buffer:sub(1, length)
  self.buffer = self.buffer:sub(length + 1)
  local path, query = target:match("^([^?]*)%??(.*)$")
  return { method = method, path = decoded(path), query = http.form(query), headers = headers, body = body }
end

--- Sends bytes; false when the other side is gone.
function Stream:send(bytes)
  local at = 1
  while at <= #bytes do
    local last, why, part = self.sock:send(bytes, at)
    at = (last or part or at - 1) + 1
    if not last then
      if why ~= "wantread" and why ~= "wantwrite" and why ~= "timeout" then return false end
      if why == "wantread" then loop.readable(self.sock) else loop.writable(self.sock) end
    end
  end
  return true
end

function Stream:close() self.sock:close() end

--- The bytes of an answer {status, headers, body}.
function http.answer(answer, date)
  local body = answer.body or ""
  local lines = { ("HTTP/1.1 %d Status"):format(answer.status), "Content-Length: " .. #body,
    "Date: " .. os.date("!%a, %d %b %Y %H:%M:%S GMT", math.floor(date)) }
  if answer.type then lines[#lines + 1] = "Content-Type: " .. answer.type end
  for name, value in pairs(answer.headers or {}) do lines[#lines + 1] = name .. ": " .. value end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. body
end

return http

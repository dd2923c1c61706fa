--- The smallest client of Redis over a cosocket that keeps its connections: GET and SET.
local redis_client = {}

local POOL = { pool = "redis", pool_size = 512 }

--- Sends a command and reads its answer; nil, err.
function redis_client.call(path, ...)
  local socket = ngx.socket.tcp()
  local ok, err = socket:connect("unix:" .. path, POOL)
  if not ok then return nil, err end
  local count = select("#", ...)
  local parts = { "*", count, "\r\n" }
  for i = 1, count do
    local word = (select(i, ...))
    parts[#parts + 1] = "$" .. #word .. "\r\n"
    parts[#parts + 1] = word
    parts[#parts + 1] = "\r\n"
  end
  ok, err = socket:send(parts)
  if not ok then return nil, err end
  local line
  line, err = socket:receive()
  if not line then return nil, err end
  local kind, rest = line:sub(1, 1), line:sub(2)
  local answer = rest
  if kind == "$" then
    local length = tonumber(rest)
    if length < 0 then
      answer = ngx.null
    else
      answer, err = socket:receive(length + 2)
      if not answer then return nil, err end
      answer = answer:sub(1, length)
    end
  end
  socket:setkeepalive(60000, 512)
  if kind == "-" then return nil, rest end
  return answer
end

return redis_client

-- copas.lua -- fpcache in a program that waits in copas (Debian: lua-copas, for Lua 5.1 and LuaJIT).
--
--     FPCACHE_URL=postgresql://me@host/db luajit examples/loops/copas.lua
--
-- Tasks of fpcache ask the cache while copas serves its own sockets.  copas watches one descriptor for all of them.
local copas = require("copas")
local fpcache = require("fpcache")
local socket = require("socket")

local cache = assert(fpcache.new({}))

-- What copas takes for a socket: readable when answers are there.
local answers = {
  getfd = function() return fpcache.completions_fd() end,
  dirty = function() return false end,
  receive = function(self)
    self.waited = not self.waited
    if self.waited then return nil, "timeout" end -- copas then waits until it is readable
    return true
  end,
}

local is_done = false
copas.addthread(function()
  while not is_done do
    copas.receive(answers)
    fpcache.step()
  end
end)

-- copas' own work: an echo server and a client that talks to it.
local server = assert(socket.bind("127.0.0.1", 0))
local _, port = server:getsockname()
local echoed = 0
copas.addserver(server, function(client)
  client = copas.wrap(client)
  client:send(client:receive() .. "\n")
end)
copas.addthread(function()
  for _ = 1, 3 do
    local connection = assert(socket.tcp())
    connection:settimeout(0)
    copas.connect(connection, "127.0.0.1", port)
    local client = copas.wrap(connection)
    client:send("hello\n")
    if client:receive() == "hello" then echoed = echoed + 1 end
    connection:close()
  end
end)

-- fpcache's work: a hundred reads and writes, on their way together.
local sum = 0
for i = 1, 100 do
  fpcache.spawn(function()
    assert(cache:set("copas:" .. i, i, 60))
    local value = cache:get("copas:" .. i) -- first: `sum = sum + cache:get(...)` would read sum, then wait
    sum = sum + value
  end)
end
local patience = os.time() + 30
repeat
  local pause = fpcache.step() -- nil: no task is left
  is_done = pause == nil and echoed == 3
  if not is_done then copas.step(math.min(pause or 0.1, 0.1)) end
until is_done or os.time() > patience

print(("the sum is %d, %d echoes"):format(sum, echoed))
cache:close()
os.exit(is_done and 0 or 1)

-- main.lua DIR -- the stand-in workspace server, a process of its own (Lua 5.4, lua-socket, lua-sec).
--
-- DIR/config.json   read once: parent (pid), certificate, key, postgres, radius_role
-- DIR/control.json  read before each request: lives of tokens, who is known, faults (see workspace.lua)
-- DIR/tunnelled     what passed when the plain port was used as a proxy
-- DIR/report.json   written before each answer: counts, requests, and every secret that was given out
-- DIR/listening.json  whether it accepts connections: false while it is down
-- DIR/ready.json    written when it listens: the ports, of HTTPS, of plain HTTP and of RADIUS
local dir = ...
local here = arg[0]:match("^(.*)/[^/]*$")
package.path = here .. "/?.lua;" .. here .. "/../../?.lua;" .. package.path

local cjson = require "cjson"
local socket = require "socket"
local ssl = require "ssl"
local api = require "api"
local http = require "http"
local loop = require "loop"
local radius = require "radius"
local secrets = require "support.secrets"
local tunnel = require "tunnel"

local function read_json(name)
  local file = assert(io.open(dir .. "/" .. name, "r"))
  local text = file:read("a")
  file:close()
  return cjson.decode(text)
end

local function write_json(name, value)
  local path = dir .. "/" .. name
  local file = assert(io.open(path .. ".new", "w"))
  file:write(cjson.encode(value))
  file:close()
  assert(os.rename(path .. ".new", path))
end

local config = read_json "config.json"
local tls = assert(ssl.newcontext { mode = "server", protocol = "any", options = { "all", "no_sslv3" },
  certificate = config.certificate, key = config.key })

local report = { counts = {}, requests = {}, issued = {}, minted = 0 }
local server = { control = read_json "control.json", workspace_tokens = {}, now = socket.gettime }

function server.issued(token)
  table.insert(report.issued, token)
  secrets.note(token)
end

-- Faults are used up here; the control file only says how often.
local used = {}

local function fault_of(request)
  for _, fault in ipairs(server.control.faults) do
    if (used[fault.id] or 0) < fault.times and (request.method .. " " .. request.path):find(fault.path) then
      used[fault.id] = (used[fault.id] or 0) + 1
      return fault
    end
  end
end

-- Runs SQL at the real PostgreSQL.  The statement comes by stdin: arguments can be seen by others.
local function sql(text)
  local name = os.tmpname()
  local psql = assert(io.popen(("'%s' -XAtq -v ON_ERROR_STOP=1 -d '%s' >%s 2>&1"):format(
    config.postgres.psql, config.postgres.url, name), "w"))
  psql:write(text)
  local ok = psql:close()
  local file = assert(io.open(name))
  local output = file:read("a")
  file:close()
  os.remove(name)
  return ok, output
end

local refused_last = false
local good_until = {} -- of each password that was minted

--- Makes `token` the password of the real role until `ends`; or, where PostgreSQL asks us, one of them.
function server.rotate(token, ends)
  report.minted = report.minted + 1
  good_until[token] = ends
  if not config.postgres then return true end
  local password = token
  refused_last = server.control.refuse_first and not refused_last or false
  if refused_last then password = "none, the first login is refused" end
  return sql(("ALTER ROLE %s PASSWORD '%s' VALID UNTIL '%s'"):format(config.postgres.role, password,
    os.date("!%Y-%m-%d %H:%M:%S", math.floor(ends)) .. (".%03d+00"):format((ends % 1) * 1000 // 1)))
end

local function log(request)
  local key = request.method .. " " .. request.path
  report.counts[key] = (report.counts[key] or 0) + 1
  if #report.requests < 1000 then
    table.insert(report.requests, { method = request.method, path = request.path, query = request.query,
      headers = request.headers, body = request.body })
  end
  if request.headers.authorization then
    server.seen_authorization = request.headers.authorization
  end
end

local met, gave_up = 0, false

-- Whether so many requests have come together; once they have not, nobody waits any more.
local function have_met(count)
  met = met + 1
  local deadline = socket.gettime() + 20
  while met < count and not gave_up do
    loop.sleep(0.005)
    gave_up = gave_up or socket.gettime() > deadline
  end
  return met >= count and not gave_up
end

-- Answers one request as a fault says; false: the connection is to end.
local function answer_badly(stream, fault, answer)
  if fault.delay then loop.sleep(fault.delay) end
  if fault.meets and not have_met(fault.meets) then answer, fault = {}, { status = 408 } end
  if fault.cut == "before" then return false end
  if fault.status then answer = { status = fault.status, body = fault.body, headers = fault.headers, type = fault.type } end
  if fault.body_size then answer.body = ("x"):rep(fault.body_size) end
  local bytes = http.answer(answer, server.now() + (fault.date_skew or server.control.date_skew))
  if fault.cut == "middle" then
    stream:send(bytes:sub(1, #bytes - 10))
    return false
  end
  return stream:send(bytes)
end

local function serve(sock, context)
  local stream = http.stream(sock, context)
  if not stream then return end
  while true do
    local request = stream:request()
    if not request then break end
    server.control = read_json "control.json"
    if server.is_down() then break end
    log(request)
    write_json("report.json", report)
    if request.method == "CONNECT" then return tunnel.run(sock, server.port, dir .. "/tunnelled") end
    local fault = fault_of(request)
    local answer = fault and fault.status and {} or api.answer(server, request)
    write_json("report.json", report) -- with what was given out
    local goes_on
    if fault then
      goes_on = answer_badly(stream, fault, answer)
    else
      goes_on = stream:send(http.answer(answer, server.now() + server.control.date_skew))
    end
    if not goes_on then break end
  end
  stream:close()
end

local function listen(port)
  local listener = assert(socket.bind("127.0.0.1", port, 64))
  listener:settimeout(0)
  return listener
end

local listener, plain = listen(0), listen(0)
local _, port = listener:getsockname()
local _, plain_port = plain:getsockname()
server.url, server.port = "https://localhost:" .. port, port

function server.is_down()
  return socket.gettime() < server.control.down_until
end

local function accept(get_listener, context)
  while true do
    local from = get_listener()
    if not from then
      loop.sleep(0.02)
    else
      loop.readable(from)
      local sock = from == get_listener() and from:accept()
      if sock then loop.go(serve, sock, context) end
    end
  end
end

loop.go(accept, function() return listener end, tls)
loop.go(accept, function() return plain end)
write_json("report.json", report)
write_json("listening.json", true)
local radius_port = radius.start(function(user, password)
  return user == config.radius_role and server.now() < (good_until[password] or 0)
end)
write_json("ready.json", { port = port, plain_port = plain_port, radius_port = radius_port })

local turns = 0
loop.run(function()
  turns = turns + 1
  server.control = read_json "control.json"
  if server.is_down() and listener then
    local closed = listener
    listener = nil
    closed:close()
    loop.wake(closed)
    write_json("listening.json", false)
  elseif not server.is_down() and not listener then
    listener = listen(port)
    write_json("listening.json", true)
  end
  if turns % 50 == 0 then
    local parent = io.open(("/proc/%d/stat"):format(config.parent))
    if not parent then os.exit(0) end -- nobody is left to end us
    parent:close()
  end
end)

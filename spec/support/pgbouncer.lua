-- pgbouncer.lua -- a private pgbouncer in front of the specs' server, on a unix socket, as the account that the server runs as.
--
--   local bouncer = pgbouncer.start(srv, db.name, { pool_mode = "transaction", default_pool_size = 2 })
--   bouncer:url_for("app")
--   bouncer:stop()
local core = require "fpcache.core"
local files = require "support.files"
local secrets = require "support.secrets"
local system = core.system

local Bouncer = {}
Bouncer.__index = Bouncer

local pgbouncer = { PROGRAM = "/usr/sbin/pgbouncer" }

local function write(path, text, uid, gid)
  files.write(path, text)
  if system.geteuid() == 0 then assert(system.chown(path, uid, gid)) end
end

---@param srv table support.server
---@param database string
---@param roles string[] who may log in
---@param settings table<string, any>
function pgbouncer.start(srv, database, roles, settings)
  local dir = assert(system.mkdtemp("/tmp/fpcache-bouncer-"))
  local owner = assert(system.stat(srv.host))
  local lines = { "[databases]", ("%s = host=%s port=%d"):format(database, srv.host, srv.port), "[pgbouncer]",
    "listen_addr =", "listen_port = 6432", "unix_socket_dir = " .. dir, "auth_type = trust",
    "auth_file = " .. dir .. "/users", "logfile = " .. dir .. "/log", "ignore_startup_parameters = extra_float_digits" }
  for name, value in pairs(settings) do lines[#lines + 1] = name .. " = " .. value end
  local users = {}
  for _, role in ipairs(roles) do users[#users + 1] = ('"%s" ""'):format(role) end
  write(dir .. "/users", table.concat(users, "\n") .. "\n", owner.uid, owner.gid)
  write(dir .. "/ini", table.concat(lines, "\n") .. "\n", owner.uid, owner.gid)
  if system.geteuid() == 0 then assert(system.chown(dir, owner.uid, owner.gid)) end
  assert(system.chmod(dir, tonumber("755", 8)))
  local as_root = system.geteuid() == 0
  local pid = assert(core.spawn { argv = { "timeout", "300", pgbouncer.PROGRAM, dir .. "/ini" }, log = dir .. "/output",
    uid = as_root and owner.uid or nil, gid = as_root and owner.gid or nil })
  local self = setmetatable({ dir = dir, pid = pid, database = database }, Bouncer)
  local deadline = system.now() + 20
  while not system.socket_answers(dir .. "/.s.PGSQL.6432") do
    assert(system.now() < deadline, "pgbouncer does not start")
    system.sleep(0.01)
  end
  return self
end

function Bouncer:url_for(user)
  return ("postgresql:///%s?host=%s&port=6432&user=%s"):format(self.database, self.dir:gsub("/", "%%2F"), user)
end

function Bouncer:stop()
  assert(system.kill(self.pid, 15)) -- of timeout, which passes it on, and ends it too should we be killed
  local deadline = system.now() + 20
  while system.socket_answers(self.dir .. "/.s.PGSQL.6432") do
    assert(system.now() < deadline, "pgbouncer does not end")
    system.sleep(0.01)
  end
  secrets.heard_file(self.dir .. "/log")
  assert(system.remove_tree(self.dir))
end

return pgbouncer

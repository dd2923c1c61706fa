-- lakebase.lua -- a real PostgreSQL that asks for a clear-text password inside TLS, as Lakebase does: the
-- password of the role cache_user, which the stand-in workspace sets, and which ends (VALID UNTIL) at login.
--
--   local lake = lakebase.start()         -- with a workspace beside it
--   lake.ws, lake.host, lake.port         -- host is an address of 127.0.0.0/8 of its own
--   fpcache.new(lake:options { auth = lake.ws:m2m() })
--   lake:rotate("other"); lake:kick()     -- the password changed; every connection has to log in again
--   lake:log()                            -- what PostgreSQL said
--   lake:stop()
local core = require "fpcache.core"
local private_ca = require "support.private_ca"
local server = require "support.server"
local workspace = require "support.workspace"
local system = core.system

local ROLE = "cache_user"
local HBA = [[
local all all trust
hostssl all all 127.0.0.0/8 %s
]]
-- Between the two stand-ins; the secret is the one of workspace/radius.lua.
local RADIUS = 'radius radiusservers="127.0.0.1" radiusports="%d" radiussecrets="between-the-stand-ins"'

local Lake = {}
Lake.__index = Lake

local lakebase = {}

local count = 0

--- Starts both.  The workspace knows the instance "cache" and the endpoint projects/p/branches/b/endpoints/rw.
--- options.shared: each password lives until its own end, whatever is minted meanwhile: for many processes with one role.
---@param options {shared: boolean?}?
---@return table lake with ws, srv, host, port, role, database, ca_file
function lakebase.start(options)
  local shared = options and options.shared
  count = count + 1
  local pid = system.pid()
  local host = ("127.%d.%d.%d"):format(math.floor(pid / 256) % 200 + 1, pid % 256, count % 250 + 1)
  local tls = assert(system.mkdtemp("/tmp/fpcache-lake-"))
  assert(system.chmod(tls, tonumber("755", 8)))
  local certificate, key = private_ca.new(tls):certificate("server", "IP:" .. host)
  local account = system.geteuid() == 0 and assert(system.user("postgres")) or nil -- who runs it as root
  if account then assert(system.chown(key, account.uid, account.gid)) end
  assert(system.chmod(key, tonumber("600", 8)))
  local self = setmetatable({ host = host, port = 5432, role = ROLE, tls = tls, ca_file = tls .. "/ca.pem" }, Lake)
  if shared then self.ws = workspace.start { radius_role = ROLE } end
  self.srv = server.new({ listen_addresses = "'" .. host .. "'", ssl = "on", ssl_cert_file = "'" .. certificate .. "'",
    ssl_key_file = "'" .. key .. "'" }, HBA:format(shared and RADIUS:format(self.ws.radius_port) or "password"))
  self.database = self.srv.database
  self.srv:sql("SET password_encryption = 'scram-sha-256'; CREATE ROLE " .. ROLE .. " LOGIN")
  self.ws = self.ws or workspace.start { postgres = { url = self.srv.url, role = ROLE, psql = self.srv.psql } }
  self:reset()
  return self
end

--- As it was at the start, faults forgotten.
function Lake:reset()
  self.ws:reset()
  local at = { host = self.host }
  self.ws:set { user = ROLE, instances = { cache = at }, endpoints = { ["projects/p/branches/b/endpoints/rw"] = at } }
end

--- Options for a cache at it, as the role; `more` says where the password comes from.
---@param more table?
function Lake:options(more)
  local options = { host = self.host, user = self.role, database = self.database, feed = false,
    libpq = { sslrootcert = self.ca_file } }
  for name, value in pairs(more or {}) do options[name] = value end
  return options
end

--- Makes this the password of the role, without an end.
function Lake:rotate(password)
  self.srv:sql(("ALTER ROLE %s PASSWORD '%s' VALID UNTIL 'infinity'"):format(self.role, (password:gsub("'", "''"))))
end

--- The role's connections, as text: the process of each and when it began.
---@return string
function Lake:backends()
  return self.srv:sql(("SELECT pid, backend_start FROM pg_stat_activity WHERE usename = '%s' ORDER BY pid"):format(self.role))
end

--- Ends every connection of the role: the next call has to log in again.
function Lake:kick()
  self.srv:sql(("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '%s'"):format(self.role))
end

--- All that PostgreSQL has written into its logs.
---@return string
function Lake:log()
  local folder, texts = self.srv.dir .. "/log/", {}
  for _, name in ipairs(assert(system.readdir(folder))) do
    local file = assert(io.open(folder .. name, "rb"))
    texts[#texts + 1] = file:read("*a")
    file:close()
  end
  assert(#texts > 0, "PostgreSQL has no log")
  return table.concat(texts)
end

function Lake:stop()
  self.ws:stop()
  self.srv:stop()
  self.srv:destroy()
  assert(system.remove_tree(self.tls))
end

return lakebase

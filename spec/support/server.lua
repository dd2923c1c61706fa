-- server.lua -- a fresh private PostgreSQL for the specs: one per process, shared by all spec files,
-- in a temporary folder, gone when the process is gone (watchdog.sh), even by kill -9.
--
--   local server = require "support.server"
--   local srv = server.start()          -- the same one in every spec file
--   srv.url                             -- as the superuser fpcache, database fpcache
--   srv:fresh_database()                -- the URL of a new, empty database
--   srv:create_user("ann", "secret")    -- a role; its URL.  With a password it must give it
local core = require "fpcache.core"
local local_server = require "fpcache.local_server"
local programs = require "fpcache.local_server.programs"
local secrets = require "support.secrets"
local system = core.system

local REGISTRY_KEY = "fpcache.spec.server" -- busted reloads modules for each file; the registry stays
local SETTINGS = {
  fsync = "off", full_page_writes = "off", -- a spec's data need not survive a power cut
  shared_buffers = "64MB",
  wal_level = "minimal",
  max_wal_senders = "0",
}
-- Members of need_password are asked for it; all others are trusted.
local HBA = [[
local all +need_password scram-sha-256
local all all trust
]]

local Srv = {}
Srv.__index = Srv

local server = {}

local function encoded(text)
  return (text:gsub("[^%w%-._~]", function(byte) return ("%%%02X"):format(byte:byte()) end))
end

local function quoted_name(name)
  return '"' .. name:gsub('"', '""') .. '"'
end

local function quoted_text(text)
  return "'" .. text:gsub("'", "''") .. "'"
end

-- The watchdog's end of the pipe; kept as long as this process lives.
local function watch(dir)
  local here = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
  local script = assert(system.realpath(here .. "/watchdog.sh"))
  return assert(io.popen(("exec setsid sh '%s' '%s' >/dev/null 2>&1"):format(script:gsub("'", "'\\''"), dir), "w"))
end

local function psql_of(bindir)
  return system.stat(bindir .. "/psql") and bindir .. "/psql" or "psql"
end

--- A private server for this spec alone, with more settings (values as in postgresql.conf), and its own rules
--- of access (as in pg_hba.conf) if it wants.
---@param settings table<string, string>?
---@param hba string?
---@return table srv
function server.new(settings, hba)
  local all = {}
  for name, value in pairs(SETTINGS) do all[name] = value end
  for name, value in pairs(settings or {}) do all[name] = value end
  local dir = assert(system.mkdtemp("/tmp/fpcache-spec-"))
  local self = setmetatable({ dir = dir, watchdog = watch(dir), databases = 0 }, Srv)
  self.server = assert(local_server.new { dir = dir, settings = all, hba = hba or HBA, sync = false })
  self.bindir = assert(programs.find()).bindir
  self.psql = psql_of(self.bindir)
  self.url = assert(self.server:start())
  self.host = dir .. "/run" -- of the socket
  self.port, self.user, self.database = 5432, "fpcache", "fpcache"
  return self
end

--- The server of this process; started if it is not, also when an earlier spec stopped it.
---@return table srv
function server.start()
  local registry = debug.getregistry()
  local self = registry[REGISTRY_KEY]
  if self then
    self:start()
  else
    self = server.new()
    registry[REGISTRY_KEY] = self
  end
  return self
end

--- The URL of another user (and database).
function Srv:url_for(user, password, database)
  return ("postgresql:///%s?host=%s&port=5432&user=%s%s"):format(encoded(database or self.database),
    encoded(self.host), encoded(user), password and "&password=" .. encoded(password) or "")
end

--- Makes a role that may log in (again: sets its password) and returns its URL.
function Srv:create_user(name, password, database)
  local role = quoted_name(name)
  self:sql(([[
    DO $$ BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'need_password') THEN CREATE ROLE need_password; END IF;
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %s) THEN CREATE ROLE %s LOGIN; END IF;
    END $$;]]):format(quoted_text(name), role))
  if password then
    self:sql(("ALTER ROLE %s PASSWORD %s; GRANT need_password TO %s"):format(role, quoted_text(password), role))
  end
  return self:url_for(name, password, database)
end

--- Makes an empty database, and returns its URL and name.
function Srv:fresh_database()
  self.databases = self.databases + 1
  local name = ("spec%d_%d"):format(system.pid(), self.databases)
  self:sql("CREATE DATABASE " .. name)
  return self:url_for(self.user, nil, name), name
end

--- Runs SQL through psql and returns what it printed (rows in lines, columns divided by "|").
--- Raises when a statement fails.
---@param text string
---@param url string? default srv.url
function Srv:sql(text, url)
  local result = assert(core.run {
    argv = { self.psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url or self.url, "-f", "-" },
    input = text, env = { "PGCLIENTENCODING=UTF8", "LC_ALL=C" }, timeout = 60, max_output = 16 * 1024 * 1024,
  })
  local output = result.output:gsub("\n$", "")
  if result.status ~= 0 then error("psql: " .. output, 2) end
  return output
end

function Srv:start()
  assert(self.server:start())
end

--- mode: "fast" (default) or "immediate"
function Srv:stop(mode)
  assert(self.server:stop(mode))
end

--- kill -9 of the postmaster; returns when all its processes are gone.
function Srv:crash()
  assert(system.kill(assert(self.server:status()).pid, 9))
  local deadline = system.now() + 20
  while self.server:status().state == "running" do
    assert(system.now() < deadline, "the crashed server's processes do not end")
    system.sleep(0.01)
  end
end

--- mode: as in stop, or "crash"
function Srv:restart(mode)
  if mode == "crash" then self:crash() else self:stop(mode) end
  self:start()
end

--- Removes it now instead of at the end of the process.
function Srv:destroy()
  for _, name in ipairs(system.readdir(self.dir .. "/log") or {}) do secrets.heard_file(self.dir .. "/log/" .. name) end
  assert(self.server:destroy())
  self.watchdog:close()
end

return server

-- cluster.lua -- runs PostgreSQL's own programs for a private server: makes the cluster, its
-- database and its configuration, and starts the postmaster.
--
-- `self` is the fpcache.LocalServer, `server` what programs.find() gave, `alive` the held lock file
-- that the processes inherit.
local core = require "fpcache.core"
local folder = require "fpcache.local_server.folder"
local settings = require "fpcache.local_server.settings"
local system = core.system

local cluster = { USER = "fpcache", DATABASE = "fpcache" }

-- A program of PostgreSQL: as the server's account, with an environment of its own, so that no
-- PG* variable of ours misleads it and no secret of ours is readable from a long-lived process.
local function command(self, argv, more)
  local env = { "LC_ALL=C", "HOME=/", "PATH=" .. (system.getenv("PATH") or "/usr/bin:/bin") }
  for _, name in ipairs { "LD_LIBRARY_PATH", "TZ" } do
    local value = system.getenv(name)
    if value then env[#env + 1] = name .. "=" .. value end
  end
  local what = { argv = argv, env = env, clear_env = true, dir = "/" }
  if self.account then what.uid, what.gid = self.account.uid, self.account.gid end
  for name, value in pairs(more) do what[name] = value end
  return what
end

-- A closed folder above ours is the usual reason why another account fails.
local function closed_parent(self)
  local path = self.account and self.dir:match("^(.*)/[^/]*$")
  while path and path ~= "" do
    local there = system.stat(path)
    if there and there.mode % 2 == 0 and there.uid ~= self.account.uid then
      return ("; the account %s cannot enter %s: choose another folder with --dir"):format(self.account.name, path)
    end
    path = path:match("^(.*)/[^/]*$")
  end
  return ""
end

local function run_initdb(self, server, into, ctype)
  local argv = { server.bindir .. "/initdb", "-D", into, "-U", cluster.USER, "-E", "UTF8", "--locale=C",
    "--lc-ctype=" .. ctype, "--auth-local=trust", "--auth-host=reject" }
  if not self.sync then argv[#argv + 1] = "--no-sync" end
  -- It inherits our lock: if we are killed, nobody comes between it and the folder before it ends.
  local result, err = core.run(command(self, argv, { timeout = self.timeout, lock = self.lock }))
  if not result then return nil, err end
  if result.status == 0 then return true end
  return nil, "server: initdb failed: " .. result.output:gsub("%s+$", "")
end

--- Makes the cluster aside and renames it: DIR/data is there exactly when it is complete.
---@return boolean? ok, string? err
function cluster.make(self, server)
  local new = self.data .. ".new"
  local ok, err
  for _, ctype in ipairs { "C.UTF-8", "C" } do -- the first one is missing on old systems
    ok, err = system.remove_tree(new)
    if ok then ok, err = folder.make_owned(new, self.account) end
    if not ok then return nil, err end
    ok, err = run_initdb(self, server, new, ctype)
    if ok or not err:find("locale", 1, true) then break end
  end
  if ok then return system.rename(new, self.data) end
  system.remove_tree(new)
  return nil, err .. closed_parent(self)
end

--- Makes the database if it is not there.  The single-user mode of the server needs neither a
--- client program nor a socket.
---@return boolean? ok, string? err
function cluster.make_database(self, server, alive)
  local argv = { server.bindir .. "/postgres", "--single", "-D", self.data }
  if not self.sync then argv[#argv + 1] = "-F" end -- after a crash it would sync every file there is
  argv[#argv + 1] = "postgres"
  local result, err = core.run(command(self, argv,
    { timeout = self.timeout, lock = alive, input = ("CREATE DATABASE %s;\nSELECT datname FROM pg_database WHERE "
      .. "datname = '%s';\n"):format(cluster.DATABASE, cluster.DATABASE) }))
  if not result then return nil, err end
  if result.output:find(('datname = "%s"'):format(cluster.DATABASE), 1, true) then return true end
  return nil, ("server: could not make the database %s: %s"):format(cluster.DATABASE, (result.output:gsub("%s+$", "")))
end

--- Writes the settings and access rules that the next start reads.
---@return boolean? ok, string? err
function cluster.configure(self, server)
  local socket_dir, err = folder.socket_dir(self.dir, self.account, true)
  if not socket_dir then return nil, err end
  local hba = self.dir .. "/pg_hba.conf"
  local ok
  ok, err = folder.write(hba, self.hba or settings.HBA)
  if not ok then return nil, err end
  return folder.write(self.dir .. "/server.conf", settings.text {
    major = server.major, socket_dir = socket_dir, log_dir = self.dir .. "/log", hba = hba, extra = self.settings,
  })
end

--- Starts the postmaster as a daemon; it is not ready yet.
---@return integer? pid, string? err
function cluster.spawn(self, server, alive)
  return core.spawn(command(self,
    { server.bindir .. "/postgres", "-D", self.data, "-c", "config_file=" .. self.dir .. "/server.conf" },
    { log = self.dir .. "/log/startup.log", lock = alive, timeout = self.timeout }))
end

return cluster

-- database.lua -- a database of its own for a spec file, set up for everybody, and what specs ask of it.
--
--   local db = database.new()          -- empty but for the schema; used as the plain role "app"
--   local cache = db:open{ ... }       -- options of fpcache.new beyond the URL
--   after_each(function() db:close_all() end)   -- fails when something stays open
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local fpcache = require "fpcache"
local server = require "support.server"

local Database = {}
Database.__index = Database

local database = {}

local function copy(from, to)
  for name, value in pairs(from or {}) do to[name] = value end
  return to
end

--- A new database.
---@param setup table|false|nil options of the setup beyond the URL; false: none
function database.new(setup)
  local srv = server.start()
  local url, name = srv:fresh_database()
  local self = setmetatable({ srv = srv, url = url, name = name, opened = {}, roles = {} }, Database)
  self:url_of()
  if setup ~= false then
    local options = copy(setup, { connection_string = url })
    if options.grant == nil then options.grant = "public" end
    assert(admin.setup(options))
    self.schema = options.schema
  end
  return self
end

--- The URL of a role, made where it is not there.
function Database:url_of(user, password)
  user = user or "app"
  if password or not self.roles[user] then
    self.roles[user] = self.srv:create_user(user, password, self.name)
  end
  return self.roles[user]
end

--- fpcache.new as the role "app" (or opts.user); fails the spec when it cannot.  Without the near cache and the filter unless
-- asked for: most specs are about the server, and change its rows behind the client's back.
---@param opts table? options of fpcache.new; `as` is the role
function Database:open(opts)
  local options = copy(opts, { schema = self.schema, feed = false })
  options.connection_string, options.as = options.connection_string or self:url_of(options.as), nil
  local cache = assert(fpcache.new(options))
  self.opened[#self.opened + 1] = cache
  return cache
end

--- SQL through psql as the superuser.
function Database:sql(text)
  return self.srv:sql(text, self.url)
end

--- The SQL by which time passes for what is in the cache: moves its times back, the versions included, which are times too.
---@param seconds number
function database.aging(seconds)
  return ([[UPDATE cache SET expires_at = expires_at - i, stale_until = stale_until - i, lease_until = lease_until - i,
    version = version - us, noted_version = noted_version - us
    FROM (SELECT %.6f * interval '1 second' AS i, %.0f::bigint AS us) AS step;
    UPDATE fpcache_namespaces SET cleared = cleared - %.0f]]):format(seconds, seconds * 1e6, seconds * 1e6)
end

--- Lets time pass for what is in the cache.
---@param seconds number
function Database:age(seconds)
  self:sql(database.aging(seconds))
end

--- Closes what open() opened; then nothing may be open any more.
function Database:close_all()
  for _, cache in ipairs(self.opened) do cache:close() end
  self.opened = {}
  database.assert_nothing_open()
end

function database.assert_nothing_open()
  collectgarbage()
  collectgarbage()
  local open = core.open_objects()
  if open ~= 0 then error(open .. " objects of the core are still open", 2) end
end

--- Whether `check` came true within some seconds; for what other processes do.
---@param check fun(): any
---@param seconds number? default 20
function database.eventually(check, seconds)
  local deadline = core.system.now() + (seconds or 20)
  while true do
    local answer = check()
    if answer then return answer end
    if core.system.now() > deadline then return nil end
    core.system.sleep(0.005)
  end
end

--- The SQL that says of each role of users whether it may log in.
local function logins(self, may)
  local lines, users = {}, {}
  for user in pairs(self.roles) do
    lines[#lines + 1] = ("ALTER ROLE %s %s;"):format(user, may and "LOGIN" or "NOLOGIN")
    users[#users + 1] = ("'%s'"):format(user)
  end
  return table.concat(lines, "\n"), table.concat(users, ", ")
end

--- Nobody but the superuser is let in any more: for users the server is gone, and that within a moment.
function Database:cut_off()
  local lines, users = logins(self, false)
  self:sql(([[%s SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
    WHERE datname = '%s' AND usename IN (%s)]]):format(lines, self.name, users))
end

--- They are let in again.
function Database:let_in()
  self:sql((logins(self, true)))
end

--- The role's open connections to this database, as the server sees them.
function Database:connections(user)
  return tonumber(self:sql(("SELECT count(*) FROM pg_stat_activity WHERE datname = '%s' AND usename = '%s'"):format(
    self.name, user or "app")))
end

return database

-- workspace.lua -- a stand-in for a Databricks workspace: HTTPS on 127.0.0.1 with a private CA, in a process of
-- its own (support/workspace/main.lua), steered by files, so a spec needs no sockets.
--
--   local ws = workspace.start()
--   ws.url, ws.ca_file                    -- "https://localhost:PORT", and who vouches for it
--   ws:set { credential_life = 3 }        -- see DEFAULTS
--   ws:fault { path = "credentials$", status = 401 }   -- once; see Workspace:fault
--   ws:down(2)                            -- refuses every connection for two seconds
--   ws:count("POST /oidc/v1/token")
--   ws:stop()
local cjson = require "cjson"
local core = require "fpcache.core"
local files = require "support.files"
local private_ca = require "support.private_ca"
local secrets = require "support.secrets"
local system = core.system

local Workspace = {}
Workspace.__index = Workspace

local workspace = {}

workspace.CLIENT_ID, workspace.CLIENT_SECRET = "6f1d0a52-client", "dose0123456789abcdef0123456789abcdef"
workspace.PAT = "dapi0123456789abcdef0123456789abcdef"
workspace.SUBJECT_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyZXBvOm9jdG8vaGVsbG8ifQ.c2lnbmF0dXJl"
workspace.GITHUB_TOKEN = "ghs_requesttoken0123456789"

-- What the server reads before each request.
local function defaults()
  return {
    token_life = 3600, credential_life = 3600, -- seconds, of the tokens it gives out
    time_style = "fraction", -- of expiry times; also "whole", "offset", "odd", "none"
    date_skew = 0, -- seconds that its Date is ahead of its clock
    down_until = 0, -- seconds since 1970
    refuse_first = false, -- PostgreSQL refuses every other password that was minted
    clients = { [workspace.CLIENT_ID] = workspace.CLIENT_SECRET },
    pats = { [workspace.PAT] = true },
    subject_token = workspace.SUBJECT_TOKEN, github_token = workspace.GITHUB_TOKEN,
    user = "ann@example.com",
    instances = { cache = { host = "instance-1.database.example.com" } },
    endpoints = { ["projects/p/branches/b/endpoints/rw"] = { host = "ep-1.database.example.com" },
      ["projects/p/branches/b/endpoints/ro"] = { host = "ep-2.database.example.com", type = "ENDPOINT_TYPE_READ_ONLY" } },
    clouds = { -- the other clouds, on the plain port
      keys = { id = "ASIAEXAMPLE", secret = "k3y/secret+of+aws0123456789", session = "aws/session+token0123456789==",
        life = 3600 },
      container_secret = "container-secret-0123456789", identity_header = "identity-header-0123456789",
      role = "app-role", flavor = "Google", email = "cache@project.iam.gserviceaccount.com",
    },
    faults = {},
  }
end

-- The secrets that it knows from the start.
local function constants(control)
  local clouds = control.clouds
  return { workspace.CLIENT_SECRET, workspace.PAT, workspace.SUBJECT_TOKEN, workspace.GITHUB_TOKEN, clouds.keys.secret,
    clouds.keys.session, clouds.container_secret, clouds.identity_header }
end

local function write(path, text)
  files.write(path .. ".new", text)
  assert(system.rename(path .. ".new", path))
end

local function here()
  local dir = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
  return assert(system.realpath(dir))
end

--- Starts the server.  options.postgres {url, role, psql}: the issued password is set at that real role.
--- options.radius_role: a PostgreSQL that asks by RADIUS lets this role in with each of the issued passwords until its end.
---@param options {postgres: {url: string, role: string, psql: string}?, radius_role: string?}?
---@return table ws
function workspace.start(options)
  options = options or {}
  local dir = assert(system.mkdtemp("/tmp/fpcache-workspace-"))
  local self = setmetatable({ dir = dir, control = defaults(), faults = 0 }, Workspace)
  local ca = private_ca.new(dir)
  self.ca, self.ca_file = ca, ca.file
  local certificate, key = ca:certificate("workspace")
  write(dir .. "/config.json", cjson.encode { parent = system.pid(), certificate = certificate, key = key,
    postgres = options.postgres, radius_role = options.radius_role })
  self:apply()
  for _, secret in ipairs(constants(self.control)) do secrets.note(secret) end
  local log = dir .. "/log"
  self.pid = assert(core.spawn { argv = { "lua5.4", here() .. "/workspace/main.lua", dir }, log = log,
    env = { "LUA_PATH=;;", "LUA_CPATH=;;", "LUA_INIT=" } })
  local deadline = system.now() + 20
  while not system.stat(dir .. "/ready.json") do
    if system.now() > deadline then error("the stand-in workspace does not start: " .. self:read("log")) end
    system.sleep(0.01)
  end
  local ready = cjson.decode(self:read("ready.json"))
  self.port, self.plain_port = math.floor(ready.port), math.floor(ready.plain_port)
  self.radius_port = math.floor(ready.radius_port)
  self.url = "https://localhost:" .. self.port
  self.plain_url = "http://127.0.0.1:" .. self.plain_port
  return self
end

function Workspace:read(name)
  local file = assert(io.open(self.dir .. "/" .. name, "r"))
  local text = file:read("*a")
  file:close()
  return text
end

function Workspace:apply()
  write(self.dir .. "/control.json", cjson.encode(self.control))
end

--- Changes what is in DEFAULTS, from the next request on.
function Workspace:set(changes)
  for name, value in pairs(changes) do
    assert(self.control[name] ~= nil, name)
    self.control[name] = value
  end
  self:apply()
end

--- Makes the next request whose "METHOD /path" matches `path` (a Lua pattern) fail, `times` times (1):
--- status, body, type, headers: the answer instead; delay: seconds before it; cut: "before" or "middle" of
--- it; body_size: of a body of x; date_skew: of its Date; meets: not before so many of those are there (status 408 after 20 s).
function Workspace:fault(fault)
  self.faults = self.faults + 1
  fault.id, fault.times = self.faults, fault.times or 1
  table.insert(self.control.faults, fault)
  self:apply()
end

--- Waits until it listens, or does not.
function Workspace:await(listening)
  local deadline = system.now() + 10
  while self:read("listening.json") ~= tostring(listening) do
    assert(system.now() < deadline, "the stand-in workspace does not obey: " .. self:read("log"))
    system.sleep(0.005)
  end
end

--- Refuses every connection for some seconds from now on.
function Workspace:down(seconds)
  self:set { down_until = system.wall() + seconds }
  self:await(false)
end

--- Back to the beginning; counts go on.
function Workspace:reset()
  self.control = defaults()
  self:apply()
  self:await(true)
end

--- {counts, requests, issued, minted} so far.
function Workspace:report()
  return cjson.decode(self:read("report.json"))
end

--- How often "METHOD /path" was asked for.
function Workspace:count(request)
  return self:report().counts[request] or 0
end

--- Every secret that the server gave out or knows.
function Workspace:secrets()
  local all = self:report().issued
  for _, one in ipairs(constants(self.control)) do all[#all + 1] = one end
  return all
end

--- The option `auth` of a cache that logs in there as a service principal; `more` adds settings or, false, leaves out.
---@param more table?
function Workspace:m2m(more)
  local auth = { "databricks", instance_name = "cache", host = self.url, client_id = workspace.CLIENT_ID,
    client_secret = workspace.CLIENT_SECRET, ca_file = self.ca_file }
  for name, value in pairs(more or {}) do auth[name] = value or nil end
  return auth
end

--- A stand-in for the program databricks in a new folder: `lines` of shell follow "#!/bin/sh".  Padded to
--- `size` bytes (2 MiB), since a small one is taken for the old CLI.
---@return string folder
function Workspace:cli(lines, size)
  self.programs = (self.programs or 0) + 1
  local folder = ("%s/bin%d"):format(self.dir, self.programs)
  assert(system.mkdir(folder, tonumber("755", 8)))
  local text = "#!/bin/sh\n" .. lines .. "\nexit\n"
  write(folder .. "/databricks", text .. ("#"):rep((size or 2 * 1024 * 1024) - #text))
  assert(system.chmod(folder .. "/databricks", tonumber("755", 8)))
  return folder
end

function Workspace:stop()
  if not self.pid then return end
  system.kill(self.pid, 9)
  self.pid = nil
  secrets.heard_file(self.dir .. "/log")
  assert(system.remove_tree(self.dir))
end

return workspace

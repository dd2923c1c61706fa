-- users.lua -- the load of support/token_load.c: a process whose users ask a stand-in Lakebase without pause.
--
--   local load = users.start(lake, 20, 8)
--   local counts = load:finish()          -- requests, failed, refreshes, failures, refusals, opened, seen
--   users.check_places(lake, counts.seen) -- no password was seen anywhere
local core = require "fpcache.core"
local workspace = require "support.workspace"
local system = core.system

local Load = {}
Load.__index = Load

local users = {}

---@param seconds number
---@param count integer of users
function users.start(lake, seconds, count)
  local self = setmetatable({ log = os.tmpname(), seconds = seconds }, Load)
  self.pid = assert(core.spawn { log = self.log, argv = {
    (os.getenv("FPC_BUILD_DIR") or "build") .. "/spec/token_load", tostring(seconds), tostring(count),
    ("postgresql://%s@%s:%d/%s"):format(lake.role, lake.host, lake.port, lake.database), lake.ca_file, "databricks",
    "instance_name=cache", "host=" .. lake.ws.url, "client_id=" .. workspace.CLIENT_ID, "ca_file=" .. lake.ws.ca_file,
  }, env = { "DATABRICKS_CLIENT_SECRET=" .. workspace.CLIENT_SECRET } })
  return self
end

--- Waits for its end.
function Load:finish()
  local seen = { cmdline = "", environ = "" }
  local deadline = system.now() + self.seconds + 60
  while system.kill(self.pid, 0) do -- what others can see of the process, while it runs
    for name in pairs(seen) do
      local file = io.open(("/proc/%d/%s"):format(self.pid, name), "rb")
      if file then
        seen[name] = seen[name] .. (file:read("*a") or "") -- nothing at its very end
        file:close()
      end
    end
    assert(system.now() < deadline, "the users do not end")
    system.sleep(0.2)
  end
  local file = assert(io.open(self.log))
  seen.log = file:read("*a")
  file:close()
  os.remove(self.log)
  local counts, place = { seen = seen }, 0
  local numbers = { seen.log:match("(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)\n") }
  assert(#numbers == 6, seen.log)
  for _, name in ipairs { "requests", "failed", "refreshes", "failures", "refusals", "opened" } do
    place = place + 1
    counts[name] = tonumber(numbers[place])
  end
  if os.getenv("FPC_TOKEN_LOAD_SECONDS") then
    print(("\n%d requests, %d failed, %d connections, %d refreshes, %d failures, %d refusals"):format(counts.requests,
      counts.failed, counts.opened, counts.refreshes, counts.failures, counts.refusals))
  end
  return counts
end

--- Fails when a password that was issued is in what the users said, in what others see of the process, or in PostgreSQL's logs.
function users.check_places(lake, seen)
  local places = { ["PostgreSQL's log"] = lake:log() }
  for name, text in pairs(seen) do places[name] = text end
  assert(seen.cmdline == "" or seen.cmdline:find("databricks", 1, true), "the arguments were not seen")
  for name, text in pairs(places) do
    for _, secret in ipairs(lake.ws:report().issued) do
      if text:find(secret, 1, true) then error(name .. " holds a password", 2) end
    end
  end
end

return users

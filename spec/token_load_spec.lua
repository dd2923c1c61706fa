-- token_load_spec.lua -- users whose passwords end every three seconds notice nothing, whatever the workspace does.
--
-- Real TLS, a real PostgreSQL that refuses passwords after their end.  FPC_TOKEN_LOAD_SECONDS: of each run; then what was counted
-- is printed.  The load is a C program, so one of the Luas is enough for the longer run.
local core = require "fpcache.core"
local lakebase = require "support.lakebase"
local workspace = require "support.workspace"
local system = core.system

local IS_LONG = _VERSION == "Lua 5.4" and not os.getenv("ASAN_OPTIONS")
local SECONDS = tonumber(os.getenv("FPC_TOKEN_LOAD_SECONDS") or IS_LONG and 20 or 8)
local USERS = 8
local LIFE = 3 -- seconds, of a password; connections live for two

describe("tokens under load", function()
  local lake

  setup(function() lake = lakebase.start() end)
  teardown(function() lake:stop() end)

  before_each(function()
    lake:reset()
    lake.ws:set { credential_life = LIFE }
  end)

  --- Starts the users; `meanwhile` runs beside them; then what they counted.
  local function run(meanwhile)
    local log = os.tmpname()
    local pid = assert(core.spawn { log = log, argv = {
      (os.getenv("FPC_BUILD_DIR") or "build") .. "/spec/token_load", tostring(SECONDS), tostring(USERS),
      ("postgresql://%s@%s:%d/%s"):format(lake.role, lake.host, lake.port, lake.database), lake.ca_file, "databricks",
      "instance_name=cache", "host=" .. lake.ws.url, "client_id=" .. workspace.CLIENT_ID, "ca_file=" .. lake.ws.ca_file,
    }, env = { "DATABRICKS_CLIENT_SECRET=" .. workspace.CLIENT_SECRET } })
    if meanwhile then meanwhile() end
    local seen = {}
    local deadline = system.now() + SECONDS + 60
    while system.kill(pid, 0) do -- what others can see of the process, while it runs
      for _, name in ipairs { "cmdline", "environ" } do
        local file = io.open(("/proc/%d/%s"):format(pid, name), "rb")
        if file then
          seen[name] = (seen[name] or "") .. (file:read("*a") or "") -- nothing at its very end
          file:close()
        end
      end
      assert(system.now() < deadline, "the users do not end")
      system.sleep(0.2)
    end
    local file = assert(io.open(log))
    local text = file:read("*a")
    file:close()
    os.remove(log)
    local requests, failed, refreshes, failures, refusals, opened = text:match(
      "(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)\n")
    assert(requests, text)
    seen.log = text
    return { requests = tonumber(requests), failed = tonumber(failed), refreshes = tonumber(refreshes),
      failures = tonumber(failures), refusals = tonumber(refusals), opened = tonumber(opened), seen = seen }
  end

  -- No password may be in what the users said, in what others see of the process, or in PostgreSQL's logs.
  local function check_places(seen)
    local places = { users = seen.log, cmdline = seen.cmdline, environ = seen.environ }
    local folder = lake.srv.dir .. "/log/"
    for _, name in ipairs(system.readdir(folder)) do
      local file = assert(io.open(folder .. name, "rb"))
      places[name] = file:read("*a")
      file:close()
    end
    assert.is_true(#system.readdir(folder) > 0, "PostgreSQL has a log")
    assert.is_truthy(places.cmdline:find("databricks", 1, true))
    local issued = lake.ws:report().issued
    assert.is_true(#issued > SECONDS / LIFE, "passwords were issued")
    for name, text in pairs(places) do
      for _, secret in ipairs(issued) do
        assert.is_nil(text:find(secret, 1, true), name .. " holds a password")
      end
    end
  end

  -- A password is replaced at half of its life, less a tenth of that; one more for the start: no stampede, however many log in.
  local MOST_REFRESHES = SECONDS / (LIFE / 2 * 0.9) + 2

  local function check(counts, most_refreshes)
    if os.getenv("FPC_TOKEN_LOAD_SECONDS") then
      print(("\n%d requests, %d failed, %d connections, %d refreshes, %d failures, %d refusals"):format(counts.requests,
        counts.failed, counts.opened, counts.refreshes, counts.failures, counts.refusals))
    end
    assert.equal(0, counts.failed, counts.seen.log)
    assert.is_true(counts.requests > 20 * SECONDS, "there was a load")
    assert.is_true(counts.opened > USERS * SECONDS / LIFE, "connections came and went")
    assert.is_true(counts.refreshes >= SECONDS / LIFE, counts.refreshes .. " refreshes: passwords ended")
    assert.is_true(counts.refreshes <= most_refreshes, counts.refreshes .. " refreshes: too many")
    check_places(counts.seen)
  end

  it("no request fails while passwords end", function()
    local counts = run()
    check(counts, MOST_REFRESHES)
    assert.equal(0, counts.failures, counts.seen.log)
    assert.equal(0, counts.refusals, counts.seen.log)
  end)

  it("none fails while the workspace is down for two seconds", function()
    local counts = run(function()
      system.sleep(SECONDS / 3)
      lake.ws:down(2)
    end)
    check(counts, MOST_REFRESHES + 1)
    assert.is_true(counts.failures > 0, "it was down")
    assert.is_true(counts.failures <= 6, counts.failures .. " failures: it was not stormed")
  end)

  it("none fails when the first login after each rotation is refused", function()
    lake.ws:set { refuse_first = true }
    local counts = run()
    -- One more refresh for each that was refused, though all users were refused together.
    check(counts, 2 * MOST_REFRESHES)
    assert.is_true(counts.refusals > 0, "some were refused")
  end)
end)

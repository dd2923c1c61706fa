-- token_load_spec.lua -- users whose passwords end every three seconds notice nothing, whatever the workspace does.
--
-- Real TLS, a real PostgreSQL that refuses passwords after their end.  FPC_TOKEN_LOAD_SECONDS: of each run.
local core = require "fpcache.core"
local lakebase = require "support.lakebase"
local workspace = require "support.workspace"
local system = core.system

local SECONDS = tonumber(os.getenv("FPC_TOKEN_LOAD_SECONDS") or 8)
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

  local function check(counts)
    assert.equal(0, counts.failed, counts.seen.log)
    assert.is_true(counts.requests > 20 * SECONDS, "there was a load")
    assert.is_true(counts.opened > USERS * SECONDS / LIFE, "connections came and went")
    -- A password is replaced at half of its life.
    assert.is_true(counts.refreshes >= SECONDS / LIFE, counts.refreshes .. " refreshes: passwords ended")
  end

  it("no request fails while passwords end", function()
    local counts = run()
    check(counts)
    assert.equal(0, counts.failures, counts.seen.log)
    -- Half of the life less a tenth of it, and one for the start: no stampede, however many users log in at once.
    assert.is_true(counts.refreshes <= SECONDS / (LIFE / 2 * 0.9) + 2, counts.refreshes .. " refreshes")
  end)

  it("none fails while the workspace is down for two seconds", function()
    local counts = run(function()
      system.sleep(SECONDS / 3)
      lake.ws:down(2)
    end)
    check(counts)
    assert.is_true(counts.failures > 0, "it was down")
    assert.is_true(counts.failures <= 6, counts.failures .. " failures: it was not stormed")
  end)

  it("none fails when the first login after each rotation is refused", function()
    lake.ws:set { refuse_first = true }
    local counts = run()
    check(counts)
    assert.is_true(counts.refusals > 0, "some were refused")
    -- One more refresh for each that was refused, though all users were refused together.
    assert.is_true(counts.refreshes <= 2 * (SECONDS / (LIFE / 2 * 0.9) + 2), counts.refreshes .. " refreshes")
  end)

  it("no password is in a log, in an error, in what others see of the process", function()
    local counts = run()
    local places = { users = counts.seen.log, cmdline = counts.seen.cmdline, environ = counts.seen.environ }
    for _, name in ipairs(system.readdir(lake.srv.dir .. "/log")) do
      local file = assert(io.open(lake.srv.dir .. "/log/" .. name, "rb"))
      places[name] = file:read("*a")
      file:close()
    end
    assert.is_true(#system.readdir(lake.srv.dir .. "/log") > 0, "PostgreSQL has a log")
    local issued = lake.ws:report().issued
    assert.is_true(#issued > SECONDS / LIFE, "passwords were issued")
    for name, text in pairs(places) do
      for _, secret in ipairs(issued) do
        assert.is_nil(text:find(secret, 1, true), name .. " holds a password")
      end
    end
    assert.is_truthy(places.cmdline:find("databricks", 1, true))
  end)
end)

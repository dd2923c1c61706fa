-- token_load_spec.lua -- users whose passwords end every four seconds notice nothing, whatever the workspace does.
--
-- Real TLS, a real PostgreSQL that refuses passwords after their end.  FPC_TOKEN_LOAD_SECONDS: of each run; then what was counted
-- is printed.  The load is a C program, so one of the Luas is enough for the longer run.
local core = require "fpcache.core"
local lakebase = require "support.lakebase"
local users = require "support.users"
local system = core.system

local IS_LONG = _VERSION == "Lua 5.4" and not os.getenv("ASAN_OPTIONS")
local SECONDS = tonumber(os.getenv("FPC_TOKEN_LOAD_SECONDS") or IS_LONG and 20 or 8)
local USERS = 8
local LIFE = 4 -- seconds, of a password; connections live for two

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
    local load = users.start(lake, SECONDS, USERS)
    if meanwhile then meanwhile() end
    return load:finish()
  end

  -- A password is replaced at half of its life, less a tenth of that; one more for the start: no stampede, however many log in.
  local MOST_REFRESHES = SECONDS / (LIFE / 2 * 0.9) + 2

  local function check(counts, most_refreshes, at)
    assert.equal(0, counts.failed, counts.seen.log)
    assert.is_true(counts.requests > 20 * SECONDS, "there was a load")
    assert.is_true(counts.opened > USERS * SECONDS / LIFE, "connections came and went")
    assert.is_true(counts.refreshes >= SECONDS / LIFE, counts.refreshes .. " refreshes: passwords ended")
    assert.is_true(counts.refreshes <= most_refreshes, counts.refreshes .. " refreshes: too many")
    users.check_places(at or lake, counts.seen)
    assert.is_true(#(at or lake).ws:report().issued > SECONDS / LIFE, "passwords were issued")
  end

  --- How many logins came with the role's password after its end.
  local function late_logins()
    return select(2, lake:log():gsub('User "' .. lake.role .. '" has an expired password', ""))
  end

  it("no request fails while passwords end", function()
    local late = late_logins()
    local counts = run()
    check(counts, MOST_REFRESHES)
    assert.equal(0, counts.failures, counts.seen.log)
    -- Here the role has one password: a login with the good one may meet the next one, which is on its way to us, as often as
    -- it happens; the refusals tell nothing.  What PostgreSQL gives as its reason does.
    assert.equal(late, late_logins(), "a password was used up to its end and beyond")
  end)

  it("none fails while the workspace is down for three seconds", function()
    local counts = run(function()
      system.sleep(SECONDS / 3)
      lake.ws:down(3) -- longer than from one refresh to the next
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

  it("none fails in several processes with one role, each with passwords of its own", function()
    local shared = lakebase.start { shared = true }
    shared.ws:set { credential_life = LIFE }
    local loads, sum = {}, { refreshes = 0 }
    for i = 1, 3 do loads[i] = users.start(shared, SECONDS, USERS) end
    for _, load in ipairs(loads) do
      local counts = load:finish()
      check(counts, MOST_REFRESHES, shared)
      assert.equal(0, counts.refusals, counts.seen.log)
      sum.refreshes = sum.refreshes + counts.refreshes
    end
    -- Nothing is fetched that nobody counted, but what was under way when its process ended.
    local minted = shared.ws:report().minted
    assert.is_true(minted >= sum.refreshes and minted <= sum.refreshes + #loads, minted .. " for " .. sum.refreshes)
    shared:stop()
  end)
end)

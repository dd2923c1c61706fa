-- feed_threads_spec.lua -- a C host with many threads on one feed (spec/support/feed_stress.c).
local core = require "fpcache.core"
local fpcache = require "fpcache"
local server = require "support.server"
local statements = require "fpcache.statements"

local SECONDS = os.getenv("FPC_STRESS_SECONDS") or "2"

describe("A feed of a C host", function()
  local function run(what, seconds)
    local url = server.start():fresh_database()
    assert(fpcache.setup_cache { connection_string = url })
    local sql = statements.feed('"public"')
    local result = assert(core.run {
      argv = {
        require "support.build" .. "/spec/feed_stress", what, url, '"public"',
        sql.session, sql.poll, sql.rotate, sql.begin_incarnation, sql.load_session,
        sql.load_count, sql.load_begin, sql.load_incarnation, sql.load_declare, sql.load_fetch,
      },
      timeout = seconds + 90,
    })
    assert.equal(0, result.status, result.output)
    return result.output
  end

  it("under many threads never denies what was announced, and never keeps an old stamp", function()
    local output = run(SECONDS, tonumber(SECONDS))
    if os.getenv("FPC_STRESS_SECONDS") then print(output) end
  end)

  it("says nothing in a child of fork(2), where another can be opened", function()
    run("fork", 1)
  end)
end)

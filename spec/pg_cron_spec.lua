-- pg_cron_spec.lua -- the database sweeps by itself: the real pg_cron calls fpcache_keep(), as docs/quotas.md says.
--
-- pg_cron looks once a minute at '* * * * *' and at once, when the server starts, at '@reboot', so that is what is waited for.
-- Nothing of it is the client's: it runs on Lua 5.4, and not again elsewhere.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local fpcache = require "fpcache"
local programs = require "fpcache.local_server.programs"
local server = require "support.server"

if rawget(_G, "jit") or os.getenv("ASAN_OPTIONS") then return end

local DEADLINE = 60 -- seconds

local function is_installed()
  local bindir = assert(programs.find()).bindir
  return core.system.stat((bindir:gsub("/bin$", "/lib")) .. "/pg_cron.so") ~= nil
end

describe("pg_cron", function()
  it("removes what has expired and evicts what is beyond a quota", function()
    if not is_installed() then return pending("pg_cron is not installed beside the server") end
    local srv = server.new { shared_preload_libraries = "pg_cron", ["cron.database_name"] = "fpcache",
      ["cron.use_background_workers"] = "on", max_worker_processes = "20" }
    local url, name = srv:fresh_database()
    assert(admin.setup { connection_string = url })
    assert(admin.quota { connection_string = url, max_entries = 10 })
    local cache = assert(fpcache.new { connection_string = url, feed = false })
    for i = 1, 40 do assert(cache:set("k" .. i, i)) end
    assert(cache:set("old", 1, { expires_at = 1 }))

    srv:sql("CREATE EXTENSION pg_cron")
    srv:sql(("SELECT cron.schedule_in_database('fpcache', '@reboot', 'CALL public.fpcache_keep()', '%s')"):format(name))
    cache:close()
    srv:restart("fast")
    local deadline = core.system.now() + DEADLINE
    while srv:sql("SELECT count(*) FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')") == "0" do
      assert(core.system.now() < deadline, "pg_cron ran nothing: " .. srv:sql("TABLE cron.job_run_details"))
      core.system.sleep(0.2)
    end
    assert.equal("succeeded", srv:sql("SELECT status FROM cron.job_run_details LIMIT 1"))
    assert.equal("9", srv:sql("SELECT count(*) FROM cache", url)) -- 95 % of ten, and nothing that expired
    srv:destroy()
  end)
end)

-- A whole PostgreSQL is killed by signal 9 while a process has reads and writes on their way, and is started again: what each
-- call is told, what is in the table afterwards, and that the process goes on by itself.
local child = require "support.child"
local core = require "fpcache.core"
local database = require "support.database"
local postgres = require "support.server"

local system = core.system
local SIGKILL, SIGSTOP = 9, 19

-- 16 tasks read one key, 16 write keys of their own, until calls failed and long after that all are well again.  One line for
-- each write, then what there is to say of all calls.
local LOAD = [[
local url, log = ...
local core = require "fpcache.core"
local fpcache = require "fpcache"
local now = core.system.now
local cache = assert(fpcache.new { connection_string = url, feed = false, timeout = 3 })
local file = assert(io.open(log, "w"))
assert(cache:set("read", "what is read"))
local told = { reads = 0, wrong = 0, longest = 0, failed = 0, fine_since = 0, errors = {} }
local give_up, done = now() + 60, false
local function note(ok, err, began)
  told.longest = math.max(told.longest, now() - began)
  if ok then
    told.fine_since = told.fine_since + 1
  else
    local code = tostring(err):match("^(%l+):") or tostring(err)
    told.errors[code] = (told.errors[code] or 0) + 1
    told.failed, told.fine_since = told.failed + 1, 0
  end
  done = told.failed > 0 and told.fine_since >= 300 or now() > give_up
end
for n = 1, 16 do
  fpcache.spawn(function()
    while not done do
      local began = now()
      local value, err = cache:get("read")
      told.reads = told.reads + 1
      if value ~= "what is read" and not err then told.wrong = told.wrong + 1 end
      note(value, err, began)
      if not value then fpcache.sleep(0.02) end
    end
  end)
  fpcache.spawn(function()
    local i = 0
    while not done do
      i = i + 1
      local began, key = now(), "write:" .. n .. ":" .. i
      local ok, err = cache:set(key, key)
      file:write(key, " ", ok and "ok" or err:match("^%l+"), "\n")
      note(ok, err, began)
      if not ok then fpcache.sleep(0.02) end
    end
  end)
end
assert(fpcache.run())
file:close()
local stats = cache:stats().pipeline
told.lost, told.resent, told.in_flight, told.waiting = stats.lost, stats.resent, stats.in_flight, stats.waiting
cache:close()
io.write("told: ", core.json_encode(told), "\n")
]]

describe("a server killed by signal 9 in mid-load", function()
  local srv, url

  setup(function()
    srv = postgres.new { synchronous_commit = "on" } -- what was told to be written is to survive
    url = srv:fresh_database()
    assert(require("fpcache.admin").setup { connection_string = url, logged = true })
  end)
  teardown(function()
    srv:destroy()
    child.clean()
  end)

  local function pids(condition)
    local list = {}
    for pid in srv:sql("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND " .. condition):gmatch("%d+") do
      list[#list + 1] = tonumber(pid)
    end
    return list
  end

  it("has each call answered, within its time and truly, and is found again", function()
    local folder = assert(system.mkdtemp("/tmp/fpcache-crash-"))
    finally(function() core.system.remove_tree(folder) end)
    local function read(name)
      local file = io.open(folder .. "/" .. name)
      local text = file and file:read("*a") or ""
      if file then file:close() end
      return text
    end
    local what = child.command(LOAD, { url, folder .. "/writes" })
    what.log = folder .. "/output"
    assert(core.spawn(what))
    assert.is_truthy(database.eventually(function()
      return tonumber(srv:sql("SELECT count(*) FROM cache", url)) > 200 or nil
    end, 60), read("output"))

    -- Stopped first, so that something is on its way in each session when they die.
    local sessions = pids("backend_type = 'client backend'")
    for _, pid in ipairs(sessions) do assert(system.kill(pid, SIGSTOP)) end
    system.sleep(0.2)
    for _, pid in ipairs(sessions) do assert(system.kill(pid, SIGKILL)) end
    srv:crash() -- the rest; waits for the last one
    srv:start()

    assert.is_truthy(database.eventually(function() return read("output"):match("told: .*\n$") end, 90), read("output"))
    local told = core.json_decode(read("output"):match("told: (.*)\n$"))
    local words = read("output")
    assert.equal(0, told.wrong, words)
    assert.is_true(told.longest < 3 + 5, words) -- the timeout, and what a slow machine adds
    assert.is_true(told.fine_since >= 300, words)
    assert.is_true(told.lost >= 2 and told.resent >= 1, words)
    assert.is_true((told.errors.unknown or 0) >= 1, words) -- what had been sent
    for code in pairs(told.errors) do assert.is_true(code == "unknown" or code == "connect" or code == "timeout", words) end
    assert.same({ 0, 0 }, { told.in_flight, told.waiting })

    local there = {}
    for key in srv:sql("SELECT convert_from(key, 'UTF8') FROM cache", url):gmatch("[^\n]+") do there[key] = true end
    local count = {}
    for key, answer in read("writes"):gmatch("(%S+) (%l+)\n") do
      count[answer] = (count[answer] or 0) + 1
      if answer == "ok" then assert.is_true(there[key], key .. " was told to be written") end
      if answer == "connect" then assert.is_nil(there[key], key .. " was told to have had no effect") end
    end
    assert.is_true(count.ok > 200)
  end)
end)

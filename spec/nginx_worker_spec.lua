-- What a cache starts in a worker of nginx, and how it gives way: threads, signals, descriptors, the channel.
local core = require "fpcache.core"
local database = require "support.database"
local nginx = require "support.nginx"
local threads = require "support.threads"

if not nginx.is_testable then return end

local system = core.system

-- What needs the worker itself: its descriptors.
local DESCRIPTORS = [[
  local ffi = require("ffi")
  ffi.cdef "int getsockname(int, void *, unsigned *); int getpeername(int, void *, unsigned *);"
  ffi.cdef "int fcntl(int, int, ...); int shutdown(int, int);"
  local CLOSES_ON_EXEC, GET_FLAGS = 1, 1
  local function path_of(ask, fd) -- of a unix socket
    local name, size = ffi.new("char[256]"), ffi.new("unsigned[1]", 255)
    return ask(fd, name, size) == 0 and size[0] > 2 and ffi.string(name + 2) or ""
  end
  --- Descriptors whose socket has that path, at either end.
  local function find(pattern)
    local list = {}
    for fd = 3, 1023 do
      local own, other = path_of(ffi.C.getsockname, fd), path_of(ffi.C.getpeername, fd)
      if own:find(pattern) or other:find(pattern) then
        local closes = ffi.C.fcntl(fd, GET_FLAGS) % 2 == CLOSES_ON_EXEC
        list[#list + 1] = { fd = fd, closes = closes, is_ours = own:find(pattern) ~= nil }
      end
    end
    return list
  end
  package.loaded.descriptors = { find = find, shut = function(fd) return ffi.C.shutdown(fd, 2) end }
]]

local SERVER = nginx.RUN .. [[
  location = /get { content_by_lua_block {
    local value, err = require("fpcache.nginx").cache():get("k", { near = false })
    if value ~= "v" then ngx.status = 503 ngx.log(ngx.ERR, tostring(err)) end
    ngx.print(tostring(value))
  } }
]]

describe("in a worker of nginx", function()
  local db, server

  setup(function()
    db = database.new()
    server = nginx.start {
      workers = 2, shares_out = true, server = SERVER,
      cache = { connection_string = db:url_of(), feed_interval = 0.02 },
      init_worker = DESCRIPTORS .. ([[
        require("fpcache.nginx").init_worker { name = "second", connection_string = %q, feed = false }]]):format(db:url_of()),
    }
    server:run 'assert(cache:wait_ready(10)) assert(cache:set("k", "v"))'
    local seen, count = {}, 0
    assert.is_truthy(database.eventually(function() -- both have asked by both caches
      local pid = server:run [[
        assert(cache:wait_ready(10))
        assert(require("fpcache.nginx").cache("second"):get("k"))
        return ngx.worker.pid()]]
      if not seen[pid] then seen[pid], count = true, count + 1 end
      return count == 2
    end))
  end)

  teardown(function()
    assert.is_true(server:stop())
    db:close_all()
  end)

  it("one thread does the calls of all caches, one reads the feed, and the master has none", function()
    for _, pid in ipairs(server:workers()) do
      assert.equal(1, threads.count(pid, "fpcache-io"))
      assert.equal(1, threads.count(pid, "fpcache-feed"))
    end
    for _, task in ipairs(system.readdir(("/proc/%d/task"):format(server:pid()))) do
      assert.equal(server:pid(), tonumber(task)) -- the first thread, and no other
    end
  end)

  it("these threads take no signal but those of faults", function()
    local SEGV, BUS, FPE, ILL, KILL, STOP = 11, 7, 8, 4, 9, 19
    local open = {}
    for _, number in ipairs { SEGV, BUS, FPE, ILL, KILL, STOP, 32, 33 } do open[number] = true end -- 32, 33: the C library's own
    for _, pid in ipairs(server:workers()) do
      for _, task in ipairs(system.readdir(("/proc/%d/task"):format(pid))) do
        if tonumber(task) ~= pid then
          local file = assert(io.open(("/proc/%d/task/%s/status"):format(pid, task)))
          local text = file:read("*a")
          file:close()
          local mask = assert(text:match("SigBlk:%s+(%x+)"))
          for number = 1, 64 do
            local digit = tonumber(mask:sub(-1 - math.floor((number - 1) / 4), -1 - math.floor((number - 1) / 4)), 16)
            local is_blocked = math.floor(digit / 2 ^ ((number - 1) % 4)) % 2 == 1
            assert.equal(not open[number], is_blocked, text:match("Name:%s+(%S+)") .. " and signal " .. number)
          end
        end
      end
    end
  end)

  it("its sockets go to no program that it starts", function()
    local answer = server:run [[
      local counts = {}
      for _, pattern in ipairs { "%.s%.PGSQL%.", "/fpcache%-....../bell" } do
        local ours, open = 0, 0
        for _, one in ipairs(require("descriptors").find(pattern)) do
          local is_nginxs = pattern:find("bell") and not one.is_ours -- nginx's end of the channel
          if not is_nginxs then ours = ours + 1 end
          if not is_nginxs and not one.closes then open = open + 1 end
        end
        counts[#counts + 1] = (ours > 0 and "some" or "none") .. ", " .. open .. " open"
      end
      return table.concat(counts, "; ")]]
    assert.equal("true some, 0 open; some, 0 open", answer)
  end)

  it("the module stays in memory, since its threads may run when its Lua state is closed", function()
    for _, name in ipairs { "lua5.1", "lua5.4" } do
      local path = ("%s/%s/fpcache/core.so"):format(os.getenv("FPC_BUILD_DIR") or "build", name)
      assert.matches("NODELETE", assert(core.run { argv = { "readelf", "-d", path } }).output)
    end
  end)

  it("an answer that comes as its waiter gives up wakes nobody else", function()
    local answer = server:run [[
      local hasty = setmetatable({ timeout = 0.05 }, { __index = cache })
      local task = fpcache.spawn(function() return hasty:get("k", { near = false }) end)
      os.execute("sleep 1.3") -- the whole worker: then the answer is there, and so is the end of the wait
      fpcache.await(task)
      for _ = 1, 3 do assert(cache:get("k", { near = false }) == "v") end
      return "right"]]
    assert.equal("true right", answer)
  end)

  it("a channel that breaks off is replaced, and no answer is lost", function()
    local load = server:start_load { path = "/get", connections = 16, seconds = 2 }
    local broken = {}
    for _ = 1, 3 do
      assert.is_truthy(database.eventually(function()
        local pid, count = server:run([[
          local found = require("descriptors").find("/fpcache%-....../bell")
          if require("fpcache.nginx").stats().channel ~= "open" or #found < 2 then return ngx.worker.pid(), 0 end
          return ngx.worker.pid(), require("descriptors").shut(found[1].fd) == 0 and 1 or 0]]):match("^true (%d+) (%d)$")
        if count == "1" then broken[pid] = (broken[pid] or 0) + 1 end
        return count == "1"
      end))
    end
    local result = load:read()
    assert.equal(0, result.not_2xx + result.timeout + result.connect + result.read, result.text)
    for pid, count in pairs(broken) do
      assert.is_truthy(database.eventually(function()
        return server:run [[
          local stats = require("fpcache.nginx").stats()
          return ngx.worker.pid(), stats.channel, stats.lost, #require("descriptors").find("/fpcache%-....../bell")]]
          == ("true %s open %d 2"):format(pid, count)
      end), ("worker %s, %d times: %s"):format(pid, count, server:log():sub(-2000)))
    end
  end)
end)

-- leakcheck.lua -- run by ./dev test under valgrind: every Lua type of ours, on good and on bad ways.
-- It needs no server, so that it is quick.  Whatever is opened is closed, some of it by the garbage
-- collector only, so what valgrind still finds at the end is a leak of ours.
local core = require "fpcache.core"
local fpcache = require "fpcache"

local function fails(pattern, ok, err)
  assert(not ok, "a failure is expected")
  assert(err:match(pattern), err)
end

local function codec()
  local text = assert(core.json_encode { list = { 1, 2.5, "\u{e9}", true, core.null, { deep = core.empty_array } } })
  assert(core.json_encode(assert(core.json_decode(text))))
  local cycle = {}
  cycle.self = cycle
  fails("^invalid: ", core.json_encode(cycle))
  fails("^invalid: ", core.json_encode { print })
  assert(select(2, core.json_decode '{"a": [1, 2, '))
  assert(core.json_encode { ("longer than the first buffer "):rep(1000), { cycle = 0.1 } })
  fails("^invalid: ", core.json_decode(("["):rep(600) .. ("]"):rep(600)))
  for _, value in ipairs { "text\0bytes", 1, 2.5, 0 / 0, true, core.null, { a = { 1 } } } do
    local bytes, format = assert(core.value_encode(value))
    assert(core.value_decode(bytes, format) ~= nil)
  end
  fails("^invalid: ", core.value_encode(print))
  -- A codec that raises in the middle of an encoding.
  local raising = { encode = function() error "no" end, decode = function() error "no" end }
  pcall(core.value_encode, { 1 }, raising)
  pcall(core.value_decode, "[1]", "x", raising)
end

local function batches(close)
  local batch = core.batch()
  for i = 1, 200 do
    assert(batch:add("key" .. i, ("v"):rep(i * 10), i, nil, 1e6))
  end
  fails("^invalid: ", batch:add("large", ("v"):rep(1000), nil, nil, 10))
  fails("^invalid: ", batch:add("function", print, nil, nil, 10))
  batch:clear()
  if close then batch:close() end
end

local function statements()
  core.statement("SELECT $1::text", "t", true)
  assert(not pcall(core.statement, "SELECT $1", "?"))
end

local function caches()
  -- A folder without a server's socket: refused at once.
  local cache, err = fpcache.new { connection_string = "postgresql:///none?host=/nonexistent" }
  if cache then
    fails("^connect: ", cache:get("key"))
    cache:close()
    fails("^closed: ", cache:get("key"))
  else
    assert(err:match("^connect: "), err)
  end
  fails("^invalid: ", fpcache.new { connection_string = "postgresql://[" })
end

local function tokens(close)
  local path = os.tmpname() -- mode 0600
  local file = assert(io.open(path, "w"))
  file:write("a password\n")
  file:close()
  local source = assert(core.token_source("password_file", { path = path }))
  assert(source:fetch(5).password == "a password")
  local keeper = assert(core.token_keeper("password_file", { path = path }))
  assert(keeper:get(5) == "a password")
  assert(keeper:refresh(5))
  local pulled = assert(core.token_keeper(function() return "another", 60 end))
  assert(pulled:get(5) == "another")
  fails("^connect: ", fpcache.new { host = "/nonexistent", password_file = path })
  fails("^connect: ", fpcache.new { host = "/nonexistent", password = function() return "x" end })
  os.remove(path)
  fails("^invalid: ", source:fetch(5))
  fails("^invalid: ", core.token_source("password_file", { frob = "x" }))
  if close then
    source:close()
    keeper:close()
    pulled:close()
  end
end

local function bells(close)
  local bell = assert(core.bell("/tmp"))
  local queue = assert(core.completions(2))
  fails("^connect: nobody connected", bell:attach(queue))
  assert(bell:path():find("^/tmp/fpcache%-....../bell$"))
  fails("^denied: ", core.bell("/nowhere"))
  assert(core.is_first_state())
  core.process_note("leakcheck", "one")
  core.process_note("leakcheck", "two")
  assert(core.process_note("leakcheck") == "two" and core.process_note("none") == nil)
  queue:silence()
  if close then bell:close() end
end

local function downloads(close)
  local options = { parallel = 2, tries = 2, timeout = 2, stall = 1, first_pause = 0.001, longest_pause = 0.01, max_bytes = 10,
    headers = { "X-Token: secret" } }
  local some = assert(core.downloads(options))
  assert(some:add("http://127.0.0.1:1/x?y"))
  assert(some:add("nonsense://x"))
  fails("^invalid: cannot write", some:add("http://127.0.0.1:1/", "/nowhere/x"))
  for left = 1, 0, -1 do
    assert(assert(some:wait(10)).error)
    assert(some:left() == left)
  end
  assert(some:wait(10) == nil)
  assert(some:add("http://127.0.0.1:1/never"))
  if close then some:close() end
  options.parallel = 0
  fails("^invalid: ", core.downloads(options))
end

for i = 1, 5 do
  downloads(i % 2 == 0)
  tokens(i % 2 == 0)
  bells(i % 2 == 0)
  codec()
  batches(i % 2 == 0)
  statements()
  caches()
end
collectgarbage()
collectgarbage()
assert(core.open_objects() == 0, "something is still open")

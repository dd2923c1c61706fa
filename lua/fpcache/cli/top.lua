--- `fpcache top` and `fpcache slowlog`.
local answer = require("fpcache.cli.answer")
local argparse = require("argparse")
local codec = require("fpcache.codec")
local connection = require("fpcache.connection")
local connection_flags = require("fpcache.cli.connection_flags")
local core = require("fpcache.core")
local options = require("fpcache.options")
local published = require("fpcache.top.published")
local sample = require("fpcache.top.sample")
local slow = require("fpcache.top.slow")
local units = require("fpcache.units")
local view = require("fpcache.top.view")

local system = core.system
local cli = {}


local function seconds(text)
  local value = tonumber(text)
  if not (value and value >= 0.1 and value <= 3600) then return nil, "0.1 to 3600 seconds are expected, got " .. text end
  return value
end

local function folders(parser)
  parser:option("--from", "A folder into which applications publish (fpcache.new{ publish = DIR }), or the URL of a status page "
    .. "or of text for Prometheus; may be repeated."):argname("DIR|URL"):count("*")
end

local function print_json(value)
  answer.json(value)
  io.stdout:flush()
end

local function open_sampler(flags)
  return connection_flags.call(function()
    local o = options.read(connection.OPTIONS, connection_flags.read(flags), 2)
    return sample.open(o, flags.from)
  end)
end

-- --- top ---

local function make_top()
  local parser = argparse("fpcache top", "What a cache does: the server, and processes that publish.")
  parser:epilog("Keys: q ends, space looks at once.  Without a terminal: --once or --json.\n"
    .. "Exit code: 0 seen, 1 the server could not be asked, 2 a wrong command line.")
  connection_flags.add(parser)
  folders(parser)
  parser:option("--every", "Seconds between two looks."):argname("SECONDS"):convert(seconds):default("2")
  parser:flag("--once", "Look twice, print what happened in between, and end.")
  parser:flag("--json", "Print a line of JSON for each look, for scripts and fpcache report.")
  parser:option("--count", "End after so many looks."):argname("N"):convert(math.tointeger)
  return parser
end

--- Prints one look after the other.
local function print_looks(sampler, flags)
  local before, left = sampler:look(), flags.once and 1 or flags.count or math.huge
  while left > 0 do
    system.sleep(flags.every)
    local after = sampler:look()
    local seen = sample.between(after, before)
    if flags.json then print_json(seen) else print(table.concat(view.lines(seen), "\n")) end
    if not after.server and flags.once then return answer.failed(after.server_error) end
    before, left = after, left - 1
  end
  return 0
end

local function draw(screen, seen)
  local columns, rows = screen:size()
  local lines, frame = view.lines(seen), { "\27[H" }
  for i = 1, math.min(#lines, rows) do
    frame[#frame + 1] = view.cut(lines[i], columns) .. "\27[K" .. (i < rows and "\r\n" or "")
  end
  frame[#frame + 1] = #lines < rows and "\27[J" or ""
  io.stdout:write(table.concat(frame))
  io.stdout:flush()
end

--- Redraws until somebody presses q.
local function show_looks(sampler, flags)
  local screen = require("fpcache.screen").open()
  local before = sampler:look()
  local seen, left = sample.between(before), flags.count or math.huge
  draw(screen, seen)
  local due = system.now() + math.min(flags.every, 1)
  while left > 0 do
    local key, why = screen:key(math.max(due - system.now(), 0))
    if key == "q" or key == "Q" or why == "closed" then break end
    if key == " " or why == "timeout" then
      local after = sampler:look()
      seen, before, left = sample.between(after, before), after, left - 1
      due = system.now() + flags.every
    end
    draw(screen, seen)
  end
  screen:close()
  return 0
end

local function top(words)
  local flags, code = connection_flags.parse(make_top(), words)
  if not flags then return code end
  local is_shown = not (flags.once or flags.json)
  if is_shown and not (system.isatty(0) and system.isatty(1)) then
    io.stderr:write("fpcache: top needs a terminal, --once or --json; see --help\n")
    return 2
  end
  local sampler, err = open_sampler(flags)
  if not sampler then return answer.failed(err) end
  code = is_shown and show_looks(sampler, flags) or print_looks(sampler, flags)
  sampler:close()
  return code
end

-- --- slowlog ---

local function make_slowlog()
  local parser = argparse("fpcache slowlog", "The slow calls that processes published, or the server's slow statements.")
  parser:epilog("Applications keep slow calls with fpcache.new{ slow_log = SECONDS, publish = DIR }.\n"
    .. "Without --from: what pg_stat_statements has of this cache.")
  connection_flags.add(parser)
  folders(parser)
  parser:option("--limit", "So many at most."):argname("N"):convert(math.tointeger):default("25")
  parser:flag("--json", "Print JSON.")
  return parser
end

local function print_calls(calls)
  local rows = { { "WHEN", "TOOK", "CALL", "OUTCOME", "PROCESS", "KEY" } }
  for _, call in ipairs(calls) do
    local outcome = call.source and ("%s %s"):format(call.outcome, call.source) or call.error or call.outcome
    rows[#rows + 1] = { os.date("%H:%M:%S", math.floor(call.at)), units.time(call.seconds), view.plain(call.name),
      view.plain(outcome or "-"), view.plain(("%s %s"):format(call.host or "?", tostring(call.pid))),
      view.plain(call.key or (call.keys and ("%d keys"):format(call.keys)) or "-") }
  end
  local lines = {}
  view.table(rows, lines)
  print(table.concat(lines, "\n"))
end

local function print_statements(list)
  local rows = { { "MEAN", "MAX", "CALLS", "LOGIN", "STATEMENT" } }
  for _, one in ipairs(list) do
    rows[#rows + 1] = { units.time(one.mean_s), units.time(one.max_s), units.count(one.calls), view.plain(one.login or "?"),
      view.cut(view.plain(one.text:gsub("%s+", " ")), 90) }
  end
  local lines = {}
  view.table(rows, lines)
  print(table.concat(lines, "\n"))
end

local function first(list, limit)
  local some = setmetatable({}, codec.array_mt)
  for i = 1, math.min(limit, #list) do some[i] = list[i] end
  return some
end

local function slowlog(words)
  local flags, code = connection_flags.parse(make_slowlog(), words)
  if not flags then return code end
  local list, err, show
  if #flags.from > 0 then
    list, err = published.read(flags.from)
    if err and #list > 0 then io.stderr:write("fpcache: ", err, "\n") end
    if err and #list == 0 then return answer.failed(err) end
    list, show = slow.calls(list), print_calls
  else
    list, err = connection_flags.call(slow.statements, connection_flags.read(flags))
    show = print_statements
  end
  if not list then return answer.failed(err) end
  list = first(list, flags.limit)
  return answer.found(list, flags.json, show)
end

---@param words string[]
---@param context table { command = "top" or "slowlog" }
---@return integer exit_code
function cli.run(words, context)
  if context.command == "slowlog" then return slowlog(words) end
  return top(words)
end

return cli

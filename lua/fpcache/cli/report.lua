--- `fpcache bench` and `fpcache report`.
local answer = require("fpcache.cli.answer")
local argparse = require("argparse")
local bench = require("fpcache.bench")
local connection_flags = require("fpcache.cli.connection_flags")
local report = require("fpcache.report")
local system = require("fpcache.core").system
local units = require("fpcache.units")
local view = require("fpcache.top.view")

local cli = {}

--- Writes a page; whoever reads it meanwhile sees the old one whole.
local function write_page(path, documents, title)
  local html = report.html(documents, title)
  if path == "-" then
    io.stdout:write(html)
    return true
  end
  local file, err = io.open(path .. ".new", "wb")
  if not file then return nil, "invalid: cannot write " .. err end
  local ok, reason = file:write(html)
  local closed = file:close()
  if not (ok and closed) then
    return nil, ("invalid: cannot write %s: %s"):format(path, tostring(reason or "the disk is full"))
  end
  return system.rename(path .. ".new", path)
end

-- --- bench ---

local function make_bench()
  local parser = argparse("fpcache bench", "Measure calls on your own server: latency percentiles and throughput.")
  parser:epilog("It uses a namespace of its own, which is empty afterwards.\n"
    .. "Exit code: 0 measured, 1 not, 2 a wrong command line.")
  connection_flags.add(parser)
  parser:option("--seconds", "For each kind of call."):argname("SECONDS"):convert(tonumber):default("2")
  parser:option("--value-bytes", "Bytes of a value."):argname("N"):convert(math.tointeger):default("100")
  parser:option("--keys", "Keys."):argname("N"):convert(math.tointeger):default("1000")
  parser:option("--html", "Write a page with charts."):argname("FILE")
  parser:flag("--json", "Print the result as JSON, for fpcache report.")
  return parser
end

local function print_bench(result)
  local rows = { { "CALL", "RATE", "MEDIAN", "95 %", "99 %", "99.9 %" } }
  for _, kind in ipairs(result.kinds) do
    local l = kind.latency
    rows[#rows + 1] = { kind.title, units.count(kind.per_second) .. "/s", units.time(l.p50), units.time(l.p95), units.time(l.p99),
      units.time(l.p999) }
  end
  local lines = {}
  view.table(rows, lines)
  print(table.concat(lines, "\n"))
end

local function run_bench(words)
  local flags, code = connection_flags.parse(make_bench(), words)
  if not flags then return code end
  local is_terminal = system.isatty(2)
  local result, err = connection_flags.call(bench.run, {
    connection = connection_flags.read(flags), seconds = flags.seconds, value_bytes = flags.value_bytes, keys = flags.keys,
    on_progress = is_terminal and function(title) io.stderr:write("\r\27[K", title, " …") end or nil,
  })
  if is_terminal then io.stderr:write("\r\27[K") end
  if not result then return answer.failed(err) end
  answer.found(result, flags.json, print_bench)
  if flags.html then
    local ok, reason = write_page(flags.html, { result }, "fpcache bench")
    if not ok then return answer.failed(reason) end
  end
  return 0
end

-- --- report ---

local function make_report()
  local parser = argparse("fpcache report", "One page with charts from what fpcache printed as JSON.")
  parser:epilog("Sources: fpcache bench --json, fpcache top --json, fpcache replay --json, build/bench/kv.json of ./dev bench kv."
    .. "\nExit code: 0 written, 1 not, 2 a wrong command line.")
  parser:argument("source", "Files of JSON, or of JSON lines; - is standard input."):args("+")
  parser:option("--html", "The page; - is standard output."):argname("FILE")
  parser:option("--title", "Its title."):argname("TEXT")
  return parser
end

local function run_report(words)
  local flags, code = connection_flags.parse(make_report(), words)
  if not flags then return code end
  if not flags.html then return answer.misused("--html FILE is needed") end
  local documents, err = report.read(flags.source)
  if not documents then return answer.failed(err) end
  local ok
  ok, err = write_page(flags.html, documents, flags.title)
  if not ok then return answer.failed(err) end
  return 0
end

---@param words string[]
---@param context table { command = "bench" or "report" }
---@return integer exit_code
function cli.run(words, context)
  if context.command == "bench" then return run_bench(words) end
  return run_report(words)
end

return cli

--- `fpcache record` and `fpcache replay`.
local answer = require("fpcache.cli.answer")
local argparse = require("argparse")
local connection_flags = require("fpcache.cli.connection_flags")
local core = require("fpcache.core")
local replay = require("fpcache.replay")
local server_cost = require("fpcache.replay.server_cost")
local trace = require("fpcache.replay.trace")
local units = require("fpcache.units")

local system = core.system
local cli = {}

local fail = answer.failed

-- --- record ---

local function make_recorder()
  local parser = argparse("fpcache record", "Run a program and record the calls of its caches, for fpcache replay.")
  parser:epilog("The program gets FPCACHE_RECORD in its environment, which fpcache.new reads; its children too append to FILE.\n"
    .. "Exit code: the program's.")
  parser:argument("file", "The trace; made, or appended to.")
  parser:flag("--keys", "Record the keys as they are, not as hashes.")
  parser:option("--sample", "Record this share of the keys, such as 0.1."):argname("SHARE"):convert(tonumber)
  parser:argument("program", "The program and its arguments, after --."):args("+")
  return parser
end

local function quote(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

local function hexadecimal(bytes)
  return (bytes:gsub(".", function(char) return ("%02x"):format(char:byte()) end))
end

local function record(words)
  local flags, code = connection_flags.parse(make_recorder(), words)
  if not flags then return code end
  if flags.sample and not (flags.sample > 0 and flags.sample <= 1) then return fail("--sample is more than 0 and at most 1") end
  local secret, err = system.random(16)
  if not secret then return fail(err) end
  local path = flags.file
  if path:sub(1, 1) ~= "/" then path = (system.realpath(".") or ".") .. "/" .. path end -- the program may go elsewhere
  system.setenv("FPCACHE_RECORD", path)
  system.setenv("FPCACHE_RECORD_SECRET", hexadecimal(secret)) -- the same in all processes
  system.setenv("FPCACHE_RECORD_KEYS", flags.keys and "1" or nil)
  system.setenv("FPCACHE_RECORD_SAMPLE", flags.sample and ("%.17g"):format(flags.sample) or nil)
  local command = {}
  for i, word in ipairs(flags.program) do command[i] = quote(word) end
  local _, how, number = os.execute(table.concat(command, " "))
  if not system.stat(path) then
    io.stderr:write("fpcache: no cache was opened, so there is no trace\n")
    return number ~= 0 and number or 1
  end
  return how == "signal" and 128 + number or number
end

-- --- replay ---

local function list_of(convert)
  return function(text)
    local list = {}
    for word in text:gmatch("[^,]+") do
      local value, err = convert(word)
      if not value then return nil, err or word .. " is no number" end
      list[#list + 1] = value
    end
    if #list == 0 then return nil, "a list of numbers is expected" end
    return list
  end
end

--- "ttl=60,stale_ttl=30,sliding" as a table.
local function policy_of(text)
  local policy = {}
  for word in text:gmatch("[^,]+") do
    local name, value = word:match("^([%w_]+)=(.+)$")
    if name then
      if value == "true" or value == "false" then value = value == "true" end
      policy[name] = tonumber(value) or value
    else
      policy[word] = true
    end
  end
  return policy
end

local function make_player()
  local parser = argparse("fpcache replay", "Play traces of cache calls against settings: hit ratios, load saved, server cost.")
  parser:epilog("Lists, such as --near-entries 1000,10000, give every combination.\n"
    .. "Exit code: 0 done, 1 not done, 2 a wrong command line.")
  parser:argument("trace", "Files: fpcache's traces, Twitter's CSV, libCacheSim's CSV or oracleGeneral; - is standard input."
    ):args("+")
  parser:option("--format", "Format of the traces (default: as they look)."):choices(trace.FORMATS)
  parser:option("--columns", "Of a CSV, such as time=1,key=2,size=3."):argname("LIST")
  parser:option("--near-entries", "near_size, 0 for none (default: 10000)."):argname("LIST"):convert(list_of(math.tointeger))
  parser:option("--near-bytes", "near_bytes, such as 8MB,32MB (default: 32MB)."):argname("LIST"):convert(list_of(
    units.read_bytes))
  parser:option("--near-ttl", "near_ttl in seconds (default: 60)."):argname("LIST"):convert(list_of(tonumber))
  parser:option("--near-negative-entries", "near_negative_size (default: 1000)."):argname("LIST"):convert(list_of(math.tointeger))
  parser:option("--near-negative-ttl", "near_negative_ttl in seconds (default: 10)."):argname("LIST"):convert(list_of(tonumber))
  parser:option("--filter", "use_cuckoo_filter (default: on)."):choices({ "on", "off", "both" }):default("on")
  parser:option("--filter-capacity", "cuckoo_capacity (default: 1000000)."):argname("LIST"):convert(list_of(math.tointeger))
  parser:option("--filter-fpr", "filter_fpr (default: 0.001)."):argname("LIST"):convert(list_of(tonumber))
  parser:option("--ttl", "Seconds that everything lives, whatever the trace says."):argname("LIST"):convert(list_of(tonumber))
  parser:option("--policy", "A policy of fetch, such as ttl=60,stale_ttl=30,refresh_ahead=0.8,near=false; may be repeated."
    ):argname("FIELDS"):count("*")
  parser:option("--load-seconds", "That loading takes, where the trace does not tell (default: 0.05)."):argname("SECONDS"
    ):convert(tonumber)
  parser:option("--processes", "Processes among which the calls go round."):argname("N"):convert(math.tointeger):default("1")
  parser:option("--sample", "Play this share of the keys, on caches of this share."):argname("SHARE"):convert(tonumber)
  parser:option("--limit", "Calls at most."):argname("N"):convert(math.tointeger)
  parser:option("--max-keys", "Keys in memory at most, of all settings together."):argname("N"):convert(math.tointeger)
  parser:option("--max-errors", "Bad records that are passed over."):argname("N"):convert(math.tointeger):default("100")
  parser:option("--server", "Measure there what statements cost."):argname("URL")
  parser:flag("--play", "Make the calls too, on that server, in a namespace of their own: hit ratio and server time as they are.")
  parser:option("--speed", "With --play: so many times as fast as recorded, all lives shortened by as much (default: 100)."
    ):argname("TIMES"):convert(tonumber)
  parser:flag("--json", "Print the report as JSON, for fpcache report.")
  return parser
end

--- Every combination of the lists.
local function settings_of(flags)
  local settings = { {} }
  local function cross(field, values)
    local more = {}
    for _, setting in ipairs(settings) do
      for _, value in ipairs(values) do
        local one = {}
        for name, old in pairs(setting) do one[name] = old end
        one[field] = value
        more[#more + 1] = one
      end
    end
    settings = more
  end
  if flags.near_entries then cross("near_entries", flags.near_entries) end
  if flags.near_bytes then cross("near_bytes", flags.near_bytes) end
  if flags.near_ttl then cross("near_ttl", flags.near_ttl) end
  for _, field in ipairs { "near_negative_entries", "near_negative_ttl", "filter_capacity", "filter_fpr", "ttl" } do
    if flags[field] then cross(field, flags[field]) end
  end
  if flags.filter == "both" then cross("filter", { true, false }) else cross("filter", { flags.filter == "on" }) end
  cross("processes", { flags.processes })
  if flags.load_seconds then cross("load_seconds", { flags.load_seconds }) end
  if #flags.policy > 0 then
    local with = {}
    for _, setting in ipairs(settings) do
      for _, text in ipairs(flags.policy) do
        local one = { policy = policy_of(text) }
        for name, old in pairs(setting) do one[name] = old end
        with[#with + 1] = one
      end
    end
    settings = with
  end
  return settings
end

local function per_cent(value) return ("%.2f %%"):format(100 * value) end
local function whole(value) return ("%.0f"):format(value) end

local COLUMNS = {
  { "hit ratio", function(s) return per_cent(s.hit_ratio) end },
  { "near", function(s) return per_cent(s.near_ratio) end },
  { "load saved", function(s) return per_cent(s.saved) end },
  { "statements", function(s) return whole(s.statements) end },
  { "peak/s", function(s) return whole(s.peak_per_second) end },
  { "loads", function(s) return whole(s.loads) end },
  { "near MB", function(s) return ("%.1f"):format(s.near_bytes / 1048576) end },
  { "server s", function(s) return s.server_seconds and ("%.2f"):format(s.server_seconds) end },
}

-- Of what was really played.
local MEASURED = {
  { "hit ratio", function(m) return per_cent(m.hit_ratio) end },
  { "near", function(m) return per_cent(m.near_ratio) end },
  { "loads", function(m) return whole(m.loads) end },
  { "asking s", function(m) return ("%.2f"):format(m.round_trip_seconds) end },
  { "statements", function(m) return m.statements and whole(m.statements) or "-" end },
  { "server s", function(m) return m.server_seconds and ("%.2f"):format(m.server_seconds) or "-" end },
  { "took s", function(m) return ("%.1f"):format(m.seconds) end },
  { "late s", function(m) return ("%.1f"):format(m.late) end },
}

local function print_table(columns, settings, width, of)
  local head = ("%-" .. width .. "s"):format("setting")
  local lines = {}
  for i, one in ipairs(settings) do
    lines[i] = ("%-" .. width .. "s"):format(one.name)
    for _, column in ipairs(columns) do
      local text = column[2](of(one))
      if text and i == 1 then head = head .. ("  %10s"):format(column[1]) end
      if text then lines[i] = lines[i] .. ("  %10s"):format(text) end
    end
  end
  print(head .. "\n" .. table.concat(lines, "\n"))
end

local function print_report(report)
  print(("%d calls of %.0f s%s%s"):format(report.calls, report.seconds,
    report.sample < 1 and (", a sample of %g of the keys"):format(report.sample) or "",
    report.bad > 0 and (", %d bad records passed over"):format(report.bad) or ""))
  local width = 7
  for _, one in ipairs(report.settings) do width = math.max(width, #one.name) end
  print_table(COLUMNS, report.settings, width, function(one) return one end)
  if report.server then
    print(("On that server a get takes %.0f µs, a miss %.0f, a set %.0f, a delete %.0f."):format(report.server.hit * 1e6,
      report.server.miss * 1e6, report.server.set * 1e6, report.server.delete * 1e6))
  end
  local played = report.settings[1].measured
  if played then
    print(("\nPlayed there, %g times as fast as recorded:"):format(played.speed))
    print_table(MEASURED, report.settings, width, function(one) return one.measured end)
  end
end

--- The size of a typical value of a report.
local function typical_bytes(report)
  local one = report.settings[1]
  local hits = one.server_hits + one.stale
  return hits > 0 and math.ceil(one.server_bytes / hits) or 100
end

local function play(words)
  local flags, code = connection_flags.parse(make_player(), words)
  if not flags then return code end
  local columns, err
  if flags.columns then
    columns, err = trace.columns(flags.columns)
    if not columns then return fail(err) end
  end
  if flags.play and not flags.server then return fail("--play needs --server URL") end
  if flags.play then
    for _, path in ipairs(flags.trace) do
      if path == "-" then return fail("--play reads the trace again, which standard input cannot give; use a file") end
    end
  end
  local settings = settings_of(flags)
  local is_terminal = system.isatty(2)
  local report
  report, err = connection_flags.call(replay.run, {
    traces = flags.trace, settings = settings, format = flags.format, columns = columns, sample = flags.sample,
    limit = flags.limit, max_keys = flags.max_keys, max_errors = flags.max_errors,
    on_progress = is_terminal and function(calls) io.stderr:write(("\r%d calls"):format(calls)) end or nil,
  })
  if is_terminal then io.stderr:write("\r\27[K") end
  if not report then return fail(err) end
  if flags.server then
    local cost
    cost, err = connection_flags.call(server_cost.measure, { connection_string = flags.server }, typical_bytes(report))
    if not cost then return fail(err) end
    server_cost.apply(report, cost)
  end
  if flags.play then
    local measured
    measured, err = connection_flags.call(replay.play, { traces = flags.trace, settings = settings, format = flags.format,
      columns = columns, sample = flags.sample, limit = flags.limit, max_errors = flags.max_errors,
      server = { connection_string = flags.server }, speed = flags.speed })
    if not measured then return fail(err) end
    for i, one in ipairs(measured) do report.settings[i].measured = one end
  end
  return answer.found(report, flags.json, print_report)
end

---@param words string[]
---@param context table { command = "record" or "replay" }
---@return integer exit_code
function cli.run(words, context)
  if context.command == "record" then return record(words) end
  return play(words)
end

return cli

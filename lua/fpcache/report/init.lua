--- Reports: what `fpcache bench`, `top`, `replay` and `./dev bench` found, as one page.
local charts = require("fpcache.report.charts")
local codec = require("fpcache.codec")
local pages = require("fpcache.report.page")
local units = require("fpcache.units")

local report = {}

local MAX_BYTES = 256 * 1024 * 1024 -- of one file

local PERCENTILES = { { "p50", "median" }, { "p95", "95 %" }, { "p99", "99 %" }, { "p999", "99.9 %" } }

local function or_dash(show, value)
  return type(value) == "number" and show(value) or "-"
end

-- --- fpcache bench ---

local function add_bench(page, one)
  page:heading("Calls, measured", ("%s, %d keys, values of %d bytes, %g s for each call, on %s."):format(one.server or "?",
    one.keys, one.value_bytes, one.seconds, os.date("%Y-%m-%d %H:%M", math.floor(one.at))))
  local tiles, ranges, names, rates, numbers, throughput = {}, {}, {}, {}, {}, {}
  for i, percentile in ipairs(PERCENTILES) do names[i] = percentile[2] end
  local ping
  for _, kind in ipairs(one.kinds) do
    if kind.name == "ping" then ping = kind.latency.p50 end
  end
  local against = {}
  for _, kind in ipairs(one.kinds) do
    local l = kind.latency
    ranges[#ranges + 1] = { label = kind.title, values = { l.p50, l.p95, l.p99, l.p999 } }
    rates[#rates + 1] = { label = kind.title, value = kind.per_second }
    local cells = { kind.title, units.count(kind.calls), units.count(kind.per_second) .. "/s" }
    for _, percentile in ipairs(PERCENTILES) do cells[#cells + 1] = or_dash(units.time, l[percentile[1]]) end
    numbers[#numbers + 1] = cells
    local points = {}
    for j, count in ipairs(kind.timeline or {}) do points[j] = { j * kind.step, count / kind.step } end
    if kind.is_remote and not kind.is_bulk then throughput[#throughput + 1] = { name = kind.title, points = points } end
    if kind.is_tile then tiles[#tiles + 1] = { units.time(l.p50), kind.title .. ", median" } end
    if kind.is_remote and not kind.is_bulk and ping and kind.name ~= "ping" and kind.name ~= "parallel" then
      against[#against + 1] = { label = kind.title, value = l.p50 / ping, mark = 1 }
    end
  end
  page:tiles(tiles)
  page:heading("Latency", "The time of one call, on a logarithmic axis.")
  page:add(charts.ranges { title = "Latency of calls", names = names, rows = ranges })
  page:numbers({ "call", "calls", "rate", "median", "95 %", "99 %", "99.9 %" }, numbers, true)
  page:heading("Throughput", "Calls per second, one after the other; \"64 at once\" in 64 tasks of one process.")
  page:add(charts.bars { title = "Calls per second that ask the server", rows = (function()
    local remote = {}
    for i, kind in ipairs(one.kinds) do
      if kind.is_remote and not kind.is_bulk then remote[#remote + 1] = rates[i] end
    end
    return remote
  end)(), show = function(value) return units.count(value) .. "/s" end })
  page:add(charts.lines { title = "Calls per second while it was measured", series = throughput, log = true,
    x = function(value) return ("%g s"):format(value) end })
  if #against > 0 then
    page:heading("Against a bare round trip", "The median call as a multiple of the shortest answer that this server and the "
      .. "way to it allow.")
    page:add(charts.bars { title = "Median latency against a round trip", rows = against,
      show = function(value) return ("%.2f ×"):format(value) end })
  end
end

-- --- fpcache top --json ---

local function series_of(looks, first, fields)
  local series = {}
  for _, field in ipairs(fields) do
    local points, is_there = {}, false
    for i, look in ipairs(looks) do
      local value = field[2](look)
      points[i] = { look.at - first, value }
      is_there = is_there or type(value) == "number"
    end
    if is_there then series[#series + 1] = { name = field[1], points = points } end
  end
  return series
end

local function from(part, field)
  return function(look) return look[part] and look[part][field] end
end

local function add_top(page, looks)
  local first, last = looks[1].at, looks[#looks]
  local server = last.server
  page:heading("What the cache did", ("%s to %s, %d looks%s."):format(os.date("%Y-%m-%d %H:%M:%S", math.floor(first)),
    os.date("%H:%M:%S", math.floor(last.at)), #looks, server and (", %s on PostgreSQL %s"):format(server.database, server.version)
    or ""))
  local tiles, all = {}, nil
  for _, look in ipairs(looks) do all = look.together or all end -- the last that any process was in
  if all then
    tiles = { { or_dash(units.share, all.hit_ratio), "reads found" },
      { or_dash(units.share, all.saved), "answered without the server" },
      { or_dash(units.time, all.p99), "99 % of the calls" }, { or_dash(units.time, all.lag), "feed lag" } }
  end
  if server then
    tiles[#tiles + 1] = { units.count(server.rows), "rows" }
    tiles[#tiles + 1] = { units.bytes(server.bytes), "table" }
  end
  page:tiles(tiles)
  local function chart(title, words, fields, more)
    local o = { title = title, series = series_of(looks, first, fields), x = function(s) return ("%.0f s"):format(s) end }
    for name, value in pairs(more or {}) do o[name] = value end
    local svg = charts.lines(o)
    if svg == "" then return end
    page:heading(title, words)
    page:add(svg)
  end
  chart("Hit ratio over time", "Shares of the reads: found anywhere, found in the near cache, answered without the server.", {
    { "found", from("together", "hit_ratio") }, { "near", from("together", "near_ratio") },
    { "saved", from("together", "saved") },
  }, { y = units.share, top = 1 })
  chart("Calls", "Per second, of all processes that publish.", { { "calls", from("together", "calls") } })
  chart("Latency", "Percentiles of all calls.", { { "median", from("together", "p50") }, { "95 %", from("together", "p95") },
    { "99 %", from("together", "p99") } }, { y = units.time, log = true })
  chart("The server", "Rows per second.", { { "lookups", from("rates", "lookups") }, { "inserts", from("rates", "inserts") },
    { "updates", from("rates", "updates") }, { "deletes", from("rates", "deletes") } })
  chart("Size", "Of the table with its indexes.", { { "bytes", from("server", "bytes") } }, { y = units.bytes })
  chart("Health of the table", "Heap-only updates, dead rows, pages found in memory.", { { "heap-only", from("rates", "hot") },
    { "dead", from("rates", "dead") }, { "in memory", from("rates", "in_memory") } }, { y = units.share, top = 1 })
end

-- --- fpcache replay --json ---

local function add_replay(page, one)
  page:heading("Replay of a trace", ("%s calls of %s%s."):format(units.count(one.calls), units.duration(one.seconds),
    one.sample < 1 and (", a sample of %g of the keys"):format(one.sample) or ""))
  local saved, found, numbers = {}, {}, {}
  for i, setting in ipairs(one.settings) do
    saved[i] = { label = setting.name, value = setting.saved, series = 1 }
    found[i] = { label = setting.name, value = setting.hit_ratio, series = 3 }
    numbers[i] = { setting.name, units.share(setting.hit_ratio), units.share(setting.near_ratio), units.share(setting.saved),
      units.count(setting.statements), units.count(setting.peak_per_second), units.count(setting.loads),
      or_dash(units.time, setting.server_seconds) }
  end
  page:heading("Load saved", "Reads that never reached the server.")
  page:add(charts.bars { title = "Load saved by each setting", rows = saved, show = units.share })
  page:heading("Hit ratio", "Reads that found a value, wherever.")
  page:add(charts.bars { title = "Hit ratio of each setting", rows = found, show = units.share })
  page:numbers({ "setting", "hit ratio", "near", "saved", "statements", "peak/s", "loads", "server time" }, numbers, true)
end

-- --- ./dev bench kv ---

local function add_ratios(page, one)
  for _, section in ipairs(one.sections) do
    if type(section.bars) == "table" and section.bars[1] then
      local rows, numbers = {}, {}
      for i, bar in ipairs(section.bars) do
        rows[i] = { label = ("%s / %s"):format(bar.runtime, bar.peer), value = bar.ratio, mark = bar.bar,
          series = bar.reached and 3 or 2, note = bar.reached and "" or "below the bar" }
      end
      for name, side in pairs(section.sides or {}) do
        numbers[#numbers + 1] = { name, units.count(side.median), units.count(side.min), units.count(side.max) }
      end
      table.sort(numbers, function(a, b) return a[1] < b[1] end)
      page:heading("Against peers: " .. section.name, ("Ratios of %s, medians of %d rounds; the mark is the bar."):format(
        section.unit, one.rounds or 1))
      page:add(charts.bars { title = "Ratios to peers: " .. section.name, rows = rows,
        show = function(value) return ("%.2f"):format(value) end })
      page:numbers({ "side", section.unit, "lowest", "highest" }, numbers)
    end
  end
end

--- What one document of JSON is.
local function kind_of(one)
  if type(one) ~= "table" then return nil end
  if one.kind then return one.kind end
  if type(one.sections) == "table" then return "ratios" end
end

local ADD = { ["fpcache-bench"] = add_bench, ["fpcache-replay"] = add_replay, ratios = add_ratios }

--- Reads files of JSON: one document, or one a line.
---@param paths string[]
---@return table[]? documents
---@return string? err
function report.read(paths)
  local documents = {}
  for _, path in ipairs(paths) do
    local file, problem = io.stdin, nil
    if path ~= "-" then file, problem = io.open(path, "rb") end
    if not file then return nil, "invalid: cannot read " .. problem end
    local text = file:read(MAX_BYTES)
    if path ~= "-" then file:close() end
    local whole = text and codec.json.decode(text)
    local before = #documents
    if whole then
      documents[before + 1] = whole
    else
      for line in (text or ""):gmatch("[^\n]+") do
        local one, reason = codec.json.decode(line)
        if not one then return nil, ("invalid: %s is no JSON that fpcache printed: %s"):format(path, reason) end
        documents[#documents + 1] = one
      end
    end
    for i = before + 1, #documents do
      local kind = kind_of(documents[i])
      if not ADD[kind] and kind ~= "fpcache-top" then
        return nil, ("invalid: %s holds nothing that a report shows (the JSON of fpcache bench, top, replay, or ./dev bench kv)")
          :format(path)
      end
    end
    if #documents == before then return nil, ("invalid: %s is empty"):format(path) end
  end
  return documents
end

--- The page of these documents.
---@param documents table[]
---@param title string?
---@return string html
function report.html(documents, title)
  local page, looks = pages.new(title or "fpcache report"), {}
  for _, one in ipairs(documents) do
    if one.kind == "fpcache-top" then looks[#looks + 1] = one end
  end
  if #looks > 0 then
    table.sort(looks, function(a, b) return a.at < b.at end)
    add_top(page, looks)
  end
  for _, one in ipairs(documents) do
    local add = ADD[kind_of(one)]
    if add then add(page, one) end
  end
  return page:html()
end

return report

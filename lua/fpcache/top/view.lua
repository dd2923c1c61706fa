--- What `fpcache top` shows, as lines of text.
local units = require("fpcache.units")

local view = {}

local function or_dash(show, value)
  if type(value) ~= "number" then return "-" end
  return show(value)
end
local function per_second(value) return or_dash(units.count, value) .. "/s" end
local function share(value) return or_dash(units.share, value) end
local function time(value) return or_dash(units.time, value) end
local function count(value) return or_dash(units.count, value) end
local function bytes(value) return or_dash(units.bytes, value) end

--- Characters of a text in UTF-8.
local function width(text)
  local _, continued = text:gsub("[\128-\191]", "")
  return #text - continued
end

--- The first so many characters of a text.
function view.cut(text, columns)
  if width(text) <= columns then return text end
  local out, used = {}, 0
  for char in text:gmatch("[%z\1-\127\194-\244][\128-\191]*") do
    if used == columns then break end
    out[#out + 1], used = char, used + 1
  end
  return table.concat(out)
end

--- Text of others, harmless for a terminal.
function view.plain(text)
  return (tostring(text):gsub("%c", "?"):gsub("\194[\128-\159]", "?"))
end

local function padded(text, columns, is_left)
  local gap = (" "):rep(math.max(columns - width(text), 0))
  return is_left and text .. gap or gap .. text
end

--- Rows of cells as lines; the first column is left-aligned, and the first row is the head.
---@param rows string[][]
---@param into string[]
function view.table(rows, into)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, width(cell)) end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = padded(cell, widths[i], i == 1) end
    into[#into + 1] = (table.concat(cells, "  "):gsub("%s+$", ""))
  end
end

local function server_lines(lines, server, rates)
  lines[#lines + 1] = ("table    %s rows, %s%s, %s dead, HOT %s, in memory %s"):format(count(server.rows), bytes(server.bytes),
    server.unlogged and "" or " (LOGGED)", share(rates.dead), share(rates.hot), share(rates.in_memory))
  lines[#lines + 1] = ("server   lookups %s  inserts %s  updates %s  deletes %s  evicted %s by quotas"):format(
    per_second(rates.lookups),
    per_second(rates.inserts), per_second(rates.updates), per_second(rates.deletes), per_second(rates.evictions))
  lines[#lines + 1] = ("clients  %d connections of fpcache, %d feed readers; %d of %d in use"):format(server.clients,
    server.readers, server.connections, server.connections_max)
  local feed = server.feed
  if feed then
    lines[#lines + 1] = feed.states ~= 1 and "feed     emptied, not noticed yet"
      or ("feed     %s, " .. (feed.rotated_ago and "rotated %s ago" or "never rotated")):format(bytes(feed.bytes),
        units.duration(feed.rotated_ago or 0))
  end
end

local function process_lines(lines, seen)
  local all = seen.together
  lines[#lines + 1] = ("process  calls %s  hits %s  near %s  saved %s  p50 %s  p95 %s  p99 %s  feed lag %s"):format(
    per_second(all.calls), share(all.hit_ratio), share(all.near_ratio), share(all.saved), time(all.p50), time(all.p95),
    time(all.p99), time(all.lag))
  lines[#lines + 1] = ""
  local rows = { { "PROCESS", "NAMESPACE", "CALLS/S", "ERR/S", "HITS", "NEAR", "ABSENT", "P50", "P99", "NEAR SIZE", "EVICT/S",
    "FEED", "LAG", "POOL", "BREAKER", "TOKEN", "SEEN" } }
  for _, one in ipairs(seen.processes) do
    local token = one.token and (one.token.last_error and "failing" or one.token.expires_in
      and units.duration(math.max(one.token.expires_in, 0)) or "good") or "-"
    rows[#rows + 1] = {
      ("%s %s"):format(view.plain(one.host or "?"), tostring(one.pid or "?")), view.plain(one.namespace or ""),
      count(one.calls), count(one.errors), share(one.hit_ratio), share(one.near_ratio), share(one.absent_ratio), time(one.p50),
      time(one.p99), bytes(one.near_bytes), count(one.evictions), view.plain(one.feed or "-"), time(one.lag),
      ("%s+%s%s"):format(count(one.lent), count(one.idle), (one.waiting or 0) > 0 and ("!%d"):format(one.waiting) or ""),
      view.plain(one.breaker or "-"), view.plain(token), units.duration(one.age),
    }
  end
  view.table(rows, lines)
end

--- The lines to show of what was seen.
---@param seen table of top/sample.lua
---@return string[]
function view.lines(seen)
  local lines, server = {}, seen.server
  lines[1] = ("fpcache top  %s"):format(os.date("%H:%M:%S", math.floor(seen.at)))
  if server then
    lines[1] = ("%s  %s@%s  PostgreSQL %s, up %s"):format(lines[1], view.plain(server.login), view.plain(server.database),
      view.plain(server.version), units.duration(server.up_s))
    server_lines(lines, server, seen.rates)
  else
    lines[2] = "server   " .. view.plain(seen.server_error)
  end
  if seen.publish_error then lines[#lines + 1] = "process  " .. view.plain(seen.publish_error) end
  if seen.together then
    process_lines(lines, seen)
  elseif not seen.publish_error then
    lines[#lines + 1] = "process  none has published (fpcache.new{ publish = DIR }, fpcache top --from DIR or URL)"
  end
  if server and server.namespaces and #server.namespaces > 0 then
    lines[#lines + 1] = ""
    local rows = { { "NAMESPACE", "ENTRIES", "SIZE" } }
    for _, one in ipairs(server.namespaces) do
      rows[#rows + 1] = { one.namespace == "" and "(none)" or view.plain(one.namespace), "~" .. count(one.entries),
        "~" .. bytes(one.bytes) }
    end
    view.table(rows, lines)
  end
  return lines
end

return view

--- Charts as SVG, for pages that need nothing else: no script, no font, no picture from elsewhere.  Colours are variables of
-- charts.CSS, which follow the reader's light or dark setting.  Every text that a caller gives is escaped.
--
--     local charts = require("fpcache.report.charts")
--     page = "<style>" .. charts.CSS .. "</style>" .. charts.lines {
--       title = "Calls per second", y = charts.count, series = { { name = "gets", points = { { 0, 10 }, { 1, 12 } } } } }
local units = require("fpcache.units")

local charts = { count = units.count, time = units.time, share = units.share, bytes = units.bytes }

local WIDTH, SERIES = 720, 8
local LABEL_PX, CHAR_PX = 12, 6.6 -- of the text in charts

charts.CSS = [[
:root { color-scheme: light dark; --surface: #fcfcfa; --ink: #1d2127; --muted: #5c6570; --grid: #e3e4e0;
  --s1: #2367c0; --s2: #c4511f; --s3: #14805f; --s4: #8446b8; --s5: #96690a; --s6: #b5336c; --s7: #55626e; --s8: #0b7482; }
@media (prefers-color-scheme: dark) { :root { --surface: #16191d; --ink: #e7e9ec; --muted: #a2abb5; --grid: #30363d;
  --s1: #6fabf2; --s2: #f2926a; --s3: #54cba3; --s4: #c295f2; --s5: #e2b54a; --s6: #f286b4; --s7: #a3afba; --s8: #4cc3d1; } }
svg.chart { display: block; width: 100%; height: auto; max-width: 60rem; margin: .5rem 0; }
svg.chart text { font: 12px system-ui, sans-serif; fill: var(--muted); }
svg.chart .name { fill: var(--ink); }
svg.chart .grid { stroke: var(--grid); stroke-width: 1; }
svg.chart .mark { stroke: var(--ink); stroke-width: 2; }
]] .. (function()
  local rules = {}
  for i = 1, SERIES do
    rules[i] = (("svg.chart .lN { stroke: var(--sN); stroke-width: 2; fill: none; } svg.chart .fN { fill: var(--sN); }"):gsub(
      "N", i))
  end
  return table.concat(rules, "\n") .. "\n"
end)()

--- Text for HTML and SVG.
---@param text any
---@return string
function charts.escape(text)
  text = tostring(text):gsub("[%z\1-\8\11\12\14-\31\127]", "?")
  return (text:gsub('[&<>"\']', { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }))
end
local escape = charts.escape

local function is_number(value)
  return type(value) == "number" and value == value and math.abs(value) ~= math.huge
end

local ticks_between

--- Round numbers from `low` to `high`, about `wanted` of them; of bytes those that are round in kB, MB or GB.
function ticks_between(low, high, wanted, is_bytes)
  local span, unit = high - low, 1
  if span <= 0 then return { low } end
  if is_bytes then
    while high / unit > 10000 do unit = unit * 1024 end -- as units.bytes does
    local ticks = ticks_between(low / unit, high / unit, wanted)
    for i, tick in ipairs(ticks) do ticks[i] = tick * unit end
    return ticks
  end
  local step = 10 ^ math.floor(math.log(span / wanted) / math.log(10))
  for _, factor in ipairs { 1, 2, 5, 10 } do
    if span / (step * factor) <= wanted then
      step = step * factor
      break
    end
  end
  local ticks, at = {}, math.ceil(low / step - 1e-9)
  while at * step <= high + step * 1e-9 do
    ticks[#ticks + 1] = at * step
    at = at + 1
  end
  return ticks
end

--- A scale: where a value stands between two pixels, and the ticks of its axis.
local function linear(low, high, from, to, wanted, is_bytes)
  if high <= low then high = low + 1 end
  return function(value) return from + (value - low) / (high - low) * (to - from) end,
    ticks_between(low, high, wanted, is_bytes)
end

local function logarithmic(low, high, from, to)
  local first, last = math.floor(math.log(low) / math.log(10) + 1e-9), math.ceil(math.log(high) / math.log(10) - 1e-9)
  if last <= first then last = first + 1 end
  local ticks = {}
  for power = first, last do ticks[#ticks + 1] = 10 ^ power end
  return function(value)
    return from + (math.log(math.max(value, 10 ^ first)) / math.log(10) - first) / (last - first) * (to - from)
  end, ticks
end

local function text(x, y, words, anchor, class)
  return ('<text x="%.1f" y="%.1f"%s%s>%s</text>'):format(x, y, anchor and (' text-anchor="%s"'):format(anchor) or "",
    class and (' class="%s"'):format(class) or "", escape(words))
end

local function line(x1, y1, x2, y2, class)
  return ('<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>'):format(x1, y1, x2, y2, class)
end

--- The whole picture; `title` is what a screen reader says.
local function svg(title, height, parts)
  return ('<svg class="chart" viewBox="0 0 %d %d" role="img" aria-label="%s"><title>%s</title>\n%s\n</svg>\n'):format(WIDTH,
    height, escape(title), escape(title), table.concat(parts, "\n"))
end

local function width_of(words)
  local _, continued = words:gsub("[\128-\191]", "")
  return (#words - continued) * CHAR_PX
end

--- The names of the series with their colours, above the chart; answers the height that they take.
local function legend(parts, series, left)
  if #series < 2 then return 0 end
  local x, y = left, LABEL_PX
  for i, one in ipairs(series) do
    local width = width_of(one.name) + 30
    if x + width > WIDTH then x, y = left, y + 18 end
    parts[#parts + 1] = ('<rect x="%.1f" y="%.1f" width="12" height="4" rx="2" class="f%d"/>'):format(x, y - 6,
      (i - 1) % SERIES + 1)
    parts[#parts + 1] = text(x + 17, y, one.name, nil, "name")
    x = x + width
  end
  return y + 8
end

--- The lowest and the highest of all points, by coordinate 1 or 2.
local function extent(series, coordinate)
  local low, high
  for _, one in ipairs(series) do
    for _, point in ipairs(one.points) do
      local value = point[coordinate]
      if is_number(value) then low, high = math.min(low or value, value), math.max(high or value, value) end
    end
  end
  return low, high
end

--- Lines over time, or over anything that is a number.  A point whose y is no number is a gap.
---@param o { title: string, series: { name: string, points: number[][] }[], x: (fun(value: number): string)?,
---   y: (fun(value: number): string)?, log: boolean?, top: number? } x and y write the axes' numbers; log: y is logarithmic;
---   top: the least upper end of y
---@return string svg "" when there is no point
function charts.lines(o)
  local x_low, x_high = extent(o.series, 1)
  local y_low, y_high = extent(o.series, 2)
  if not (x_low and y_low) then return "" end
  local show_x, show_y, parts = o.x or units.count, o.y or units.count, {}
  local left, right, height = 70, WIDTH - 15, 190
  local top = legend(parts, o.series, left) + 10
  local bottom = top + height
  local y_scale, y_ticks
  if o.log and y_low > 0 then
    y_scale, y_ticks = logarithmic(y_low, y_high, bottom, top)
  else
    y_scale, y_ticks = linear(math.min(0, y_low), math.max(y_high * 1.05, o.top or 0), bottom, top, 5,
      show_y == units.bytes)
  end
  local x_scale, x_ticks = linear(x_low, x_high, left, right, 8)
  for _, tick in ipairs(y_ticks) do
    parts[#parts + 1] = line(left, y_scale(tick), right, y_scale(tick), "grid")
    parts[#parts + 1] = text(left - 8, y_scale(tick) + 4, show_y(tick), "end")
  end
  for _, tick in ipairs(x_ticks) do parts[#parts + 1] = text(x_scale(tick), bottom + 18, show_x(tick), "middle") end
  for i, one in ipairs(o.series) do
    local class, path, pen_up, lonely = (i - 1) % SERIES + 1, {}, true, #one.points == 1
    for _, point in ipairs(one.points) do
      if is_number(point[1]) and is_number(point[2]) then
        path[#path + 1] = ("%s%.1f %.1f"):format(pen_up and "M" or "L", x_scale(point[1]), y_scale(point[2]))
        pen_up = false
        if lonely then
          parts[#parts + 1] = ('<circle cx="%.1f" cy="%.1f" r="3" class="f%d"/>'):format(x_scale(point[1]), y_scale(point[2]),
            class)
        end
      else
        pen_up = true
      end
    end
    parts[#parts + 1] = ('<path d="%s" class="l%d"><title>%s</title></path>'):format(table.concat(path), class, escape(one.name))
  end
  return svg(o.title, bottom + 28, parts)
end

--- The width that the labels of rows need.
local function label_width(rows)
  local widest = 60
  for _, row in ipairs(rows) do widest = math.max(widest, width_of(row.label)) end
  return math.min(widest + 12, 300)
end

--- Horizontal bars, one under the other.
---@param o { title: string, rows: { label: string, value: number, mark: number?, note: string?, series: integer? }[],
---   show: (fun(value: number): string)? } mark: a value that the bar is held against; series: its colour
---@return string svg "" without rows
function charts.bars(o)
  if #o.rows == 0 then return "" end
  local show, parts, left, high = o.show or units.count, {}, label_width(o.rows), 0
  for _, row in ipairs(o.rows) do
    if is_number(row.value) then high = math.max(high, row.value) end
    if is_number(row.mark) then high = math.max(high, row.mark) end
  end
  local scale = linear(0, high > 0 and high or 1, left, WIDTH - 130, 5)
  for i, row in ipairs(o.rows) do
    local y = (i - 1) * 28 + 4
    local stop = is_number(row.value) and math.max(scale(row.value), left + 1) or left
    parts[#parts + 1] = text(left - 10, y + 15, row.label, "end", "name")
    parts[#parts + 1] = ('<rect x="%.1f" y="%d" width="%.1f" height="18" rx="3" class="f%d"/>'):format(left, y, stop - left,
      row.series or 1)
    local edge = stop
    if is_number(row.mark) then
      parts[#parts + 1] = line(scale(row.mark), y - 3, scale(row.mark), y + 21, "mark")
      edge = math.max(edge, scale(row.mark))
    end
    parts[#parts + 1] = text(edge + 8, y + 14, (is_number(row.value) and show(row.value) or "-") .. (row.note and "  " .. row.note
      or ""))
  end
  return svg(o.title, #o.rows * 28 + 6, parts)
end

--- Values of each row on one logarithmic axis, such as the percentiles of several calls.
---@param o { title: string, names: string[], rows: { label: string, values: number[] }[], show: (fun(value: number): string)? }
---@return string svg "" without a value
function charts.ranges(o)
  local low, high
  for _, row in ipairs(o.rows) do
    for _, value in pairs(row.values) do
      if is_number(value) and value > 0 then low, high = math.min(low or value, value), math.max(high or value, value) end
    end
  end
  if not low then return "" end
  local show, parts, left, series = o.show or units.time, {}, label_width(o.rows), {}
  for i, name in ipairs(o.names) do series[i] = { name = name } end
  local top = legend(parts, series, left) + 6
  local bottom = top + #o.rows * 26
  local scale, ticks = logarithmic(low, high, left + 15, WIDTH - 35)
  for _, tick in ipairs(ticks) do
    parts[#parts + 1] = line(scale(tick), top, scale(tick), bottom, "grid")
    parts[#parts + 1] = text(scale(tick), bottom + 16, show(tick), "middle")
  end
  for i, row in ipairs(o.rows) do
    local y, first, last = top + (i - 1) * 26 + 13, nil, nil
    parts[#parts + 1] = text(left - 10, y + 4, row.label, "end", "name")
    local dots = {}
    for j = 1, #o.names do
      local value = row.values[j]
      if is_number(value) and value > 0 then
        local x = scale(value)
        first, last = math.min(first or x, x), math.max(last or x, x)
        dots[#dots + 1] = ('<circle cx="%.1f" cy="%.1f" r="5" class="f%d"><title>%s</title></circle>'):format(x, y,
          (j - 1) % SERIES + 1, escape(("%s, %s: %s"):format(row.label, o.names[j], show(value))))
      end
    end
    if first then parts[#parts + 1] = line(first, y, last, y, "grid") end
    for _, dot in ipairs(dots) do parts[#parts + 1] = dot end
  end
  return svg(o.title, bottom + 26, parts)
end

return charts

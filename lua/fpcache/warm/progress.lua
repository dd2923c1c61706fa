--- A warm-up's progress for people: a bar that is redrawn on a terminal, a line now and then elsewhere.
local system = require("fpcache.core").system

local progress = {}

local BAR_CELLS, REDRAW_S, LINE_S = 24, 0.1, 10

local function number(count)
  local text = ("%.0f"):format(count)
  repeat
    local more
    text, more = text:gsub("^(%d+)(%d%d%d)", "%1,%2")
  until more == 0
  return text
end

local function clock(s)
  s = math.floor(s + 0.5)
  if s >= 3600 then return ("%d:%02d:%02d"):format(math.floor(s / 3600), math.floor(s / 60) % 60, s % 60) end
  return ("%d:%02d"):format(math.floor(s / 60), s % 60)
end

--- One line: share, records, rate, bad ones, time left.
---@param state fpcache.WarmState
---@param rate number records per second
---@return string
function progress.line(state, rate)
  local share = state.total_bytes and state.total_bytes > 0 and state.bytes / state.total_bytes
  local parts = {}
  if share then
    local cells = math.floor(share * BAR_CELLS + 0.5)
    parts[1] = ("[%s%s] %3.0f %%"):format(("#"):rep(cells), ("."):rep(BAR_CELLS - cells), 100 * share)
  end
  parts[#parts + 1] = ("%s records, %s/s"):format(number(state.read), number(rate))
  if state.bad > 0 then parts[#parts + 1] = ("%s bad"):format(number(state.bad)) end
  if share and share > 0 and share < 1 and rate > 0 then
    parts[#parts + 1] = clock(state.seconds * (1 - share) / share) .. " left"
  end
  return table.concat(parts, "  ")
end

--- What happened in the end.
---@param state fpcache.WarmState
---@return string
function progress.summary(state)
  return ("%s records, %s stored, %s bad, %s%s"):format(number(state.read), number(state.stored), number(state.bad),
    clock(state.seconds), state.resumed and " (and the time before the interruption)" or "")
end

--- A function for `on_progress` that writes to `file`.
---@param file file*
---@param is_terminal boolean
---@return fun(state: fpcache.WarmState) show, fun() finish
function progress.shower(file, is_terminal)
  local shown_at, before, last_read, last_at = nil, 0, nil, system.now()
  local rate = 0
  local function show(state)
    local now = system.now()
    if last_read == nil then last_read = state.resumed and state.read or 0 end
    if shown_at and now - shown_at < (is_terminal and REDRAW_S or LINE_S) then return end
    if not shown_at and not is_terminal and now - last_at < LINE_S then return end
    local new = (state.read - last_read) / math.max(now - last_at, 1e-6)
    rate = rate == 0 and new or 0.7 * rate + 0.3 * new -- steady enough to be read
    shown_at, last_read, last_at = now, state.read, now
    local text = progress.line(state, rate)
    if is_terminal then
      file:write("\r", text, (" "):rep(before - #text))
      before = #text
    else
      file:write(text, "\n")
    end
    file:flush()
  end
  local function finish()
    if is_terminal and before > 0 then file:write("\r", (" "):rep(before), "\r") end
    file:flush()
  end
  return show, finish
end

return progress

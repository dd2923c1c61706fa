-- checker.lua -- judges what the workers logged, against the promises of docs/coherence.md and nothing else.
--
-- Each write happened at an unknown moment between its start and its end.  So the checker only says "broken" when no
-- choice of these moments explains an answer:
--   * a value that nobody wrote, or that was rolled back
--   * a value although another write or removal surely came after it, and its answer was known longer than allowed
--   * a value whose life ended longer ago than allowed
--   * "absent" although a set surely came after the last thing that may have removed the key
-- "Allowed" is max_staleness; for the process that wrote, nothing.
local checker = {}

local INFINITY = math.huge

--- Events in the order of their start, with the least end of each and all after it.
local function by_start(events)
  table.sort(events, function(a, b) return a.start < b.start end)
  local least = INFINITY
  for i = #events, 1, -1 do
    least = math.min(least, events[i].stop)
    events[i].least_stop = least
  end
  return events
end

--- The least end among the events that started after `time`; infinite when there are none.
local function first_after(events, time)
  local low, high = 1, #events + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if events[middle].start > time then high = middle else low = middle + 1 end
  end
  return events[low] and events[low].least_stop or INFINITY
end

--- The greatest end among the removals that started before `time`.
local function last_removal(removals, time)
  local low, high = 1, #removals + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if removals[middle].start <= time then low = middle + 1 else high = middle end
  end
  return low > 1 and removals[low - 1].greatest_stop or -INFINITY
end

local function new_key()
  return { overwrites = {}, sets = {}, removals = {}, own_overwrites = {}, own_sets = {} }
end

local function add_own(lists, who, event)
  lists[who] = lists[who] or {}
  table.insert(lists[who], { start = event.start, stop = event.stop })
end

--- Takes a write into the history of its key.
local function take_write(key, write)
  if write.outcome == "no" or write.outcome == "rolled_back" then return end
  local surely = write.outcome == "ok"
  local is_set = write.what == "set"
  if surely then
    table.insert(key.overwrites, { start = write.start, stop = write.stop })
    if write.who then add_own(key.own_overwrites, write.who, write) end
  end
  if is_set and surely then
    table.insert(key.sets, { start = write.start, stop = write.stop })
    if write.who then add_own(key.own_sets, write.who, write) end
  end
  if not is_set then
    table.insert(key.removals, { start = write.start, stop = surely and write.stop or INFINITY })
  elseif write.ttl then
    -- An unknown set may have come late, and its end of life too.
    table.insert(key.removals, { start = write.start + write.ttl, stop = surely and write.stop + write.ttl or INFINITY })
  end
end

local function prepare(key)
  by_start(key.overwrites)
  by_start(key.sets)
  for _, lists in ipairs { key.own_overwrites, key.own_sets } do
    for _, list in pairs(lists) do by_start(list) end
  end
  table.sort(key.removals, function(a, b) return a.start < b.start end)
  local greatest = -INFINITY
  for _, removal in ipairs(key.removals) do
    greatest = math.max(greatest, removal.stop)
    removal.greatest_stop = greatest
  end
end

--- How long the answer of a read had been wrong when the read began, in the view of others and of the process itself.
---@return number for_others, number for_itself, string why
local function wrong_for(key, read, writes)
  if not read.value then
    local removed = last_removal(key.removals, read.stop)
    local own = key.own_sets[read.who]
    return read.start - first_after(key.sets, removed), read.start - (own and first_after(own, removed) or INFINITY),
      "absent"
  end
  local write = writes[read.value]
  local own = key.own_overwrites[read.who]
  local wrong = read.start - first_after(key.overwrites, write.stop)
  local wrong_itself = read.start - (own and first_after(own, write.stop) or INFINITY)
  if write.ttl and write.outcome == "ok" then wrong = math.max(wrong, read.start - (write.stop + write.ttl)) end
  return wrong, wrong_itself, "overwritten"
end

--- Judges a history.
---@param events table[] { what = "get" | "set" | "delete" | "clear" (every key) | "lie" (see worker.lua), key, value, ttl, start,
--- stop, outcome, who }
---@param max_staleness number seconds
---@return table report { reads, writes, largest_staleness, broken = list of sentences }
function checker.check(events, max_staleness)
  local keys, writes, everywhere = {}, {}, {}
  local report = { reads = 0, writes = 0, largest_staleness = 0, broken = {}, sources = {} }
  for _, event in ipairs(events) do
    if event.key and not keys[event.key] then keys[event.key] = new_key() end
    if event.what == "set" then writes[event.value] = event end
    if event.what == "clear" then everywhere[#everywhere + 1] = event end
  end
  for _, event in ipairs(events) do
    if event.what ~= "get" and event.what ~= "lie" then report.writes = report.writes + 1 end
    if event.what == "set" or event.what == "delete" then take_write(keys[event.key], event) end
  end
  for _, key in pairs(keys) do
    for _, event in ipairs(everywhere) do take_write(key, event) end
    prepare(key)
  end
  local function broken(read, text, ...)
    report.broken[#report.broken + 1] = ("%s: %s = %s (%s, at %.3f): %s"):format(read.who, read.key,
      tostring(read.value), read.outcome, read.start, text:format(...))
  end
  for _, read in ipairs(events) do
    if read.what == "lie" then
      broken(read, "a transaction did not see its own write")
    elseif read.what == "get" then
      report.reads = report.reads + 1
      report.sources[read.outcome] = (report.sources[read.outcome] or 0) + 1
      local write = read.value and writes[read.value]
      if read.value and (not write or write.key ~= read.key) then
        broken(read, "nobody wrote it")
      elseif write and (write.outcome == "rolled_back" or write.outcome == "no") then
        broken(read, "it was %s", write.outcome)
      elseif write and write.start > read.stop then
        broken(read, "read before it was written")
      else
        local wrong, wrong_itself, why = wrong_for(keys[read.key], read, writes)
        report.largest_staleness = math.max(report.largest_staleness, wrong)
        if wrong > max_staleness then broken(read, "%s for %.3f s", why, wrong) end
        if wrong_itself > 0 then broken(read, "%s by itself %.3f s ago", why, wrong_itself) end
      end
    end
  end
  return report
end

--- The events of a worker's log.
function checker.read_log(file_name, who, events)
  local counts
  for line in io.lines(file_name) do
    local what, key, value, start, stop, outcome = line:match("^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$")
    if what == "stats" or not what then
      local near, filter, changes, invalidated = line:match("^stats (%d+) (%d+) (%d+) (%d+)$")
      if near then counts = { near = near, filter = filter, incarnation_changes = changes, invalidated = invalidated } end
    else
      local ttl
      local is_sql = what:match("^sql_(%l+)$")
      if is_sql then what = is_sql end
      if what == "set" then value, ttl = value:match("^([^:]+):(.*)$") end
      events[#events + 1] = {
        what = what, key = key ~= "-" and key or nil, value = value ~= "-" and value or nil, ttl = tonumber(ttl),
        start = tonumber(start), stop = tonumber(stop), outcome = outcome,
        who = is_sql and who .. " by SQL" or who,
      }
    end
  end
  return counts
end

return checker

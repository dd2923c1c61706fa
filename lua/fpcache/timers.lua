--- Points of time in order: a binary heap.  What was cancelled is left in it and passed over.
---@class fpcache.Timers
local Timers = {}
Timers.__index = Timers

local timers = {}

---@return fpcache.Timers
function timers.new()
  return setmetatable({ count = 0 }, Timers)
end

--- Adds a point of time.
---@param at number
---@param what any
---@return table entry for cancel()
function Timers:add(at, what)
  local entry = { at = at, what = what }
  local i = self.count + 1
  self.count = i
  while i > 1 do
    local parent = (i - i % 2) / 2
    if self[parent].at <= at then break end
    self[i] = self[parent]
    i = parent
  end
  self[i] = entry
  return entry
end

---@param entry table as add() gave it; nothing happens if it is over
function Timers.cancel(_, entry)
  entry.what = nil
end

local function drop_first(self)
  local last, count = self[self.count], self.count - 1
  self[self.count], self.count = nil, count
  if count == 0 then return end
  local i = 1
  while true do
    local child = 2 * i
    if child > count then break end
    if child < count and self[child + 1].at < self[child].at then child = child + 1 end
    if self[child].at >= last.at then break end
    self[i] = self[child]
    i = child
  end
  self[i] = last
end

--- When the next one is due.
---@return number? at
function Timers:next()
  while self.count > 0 and self[1].what == nil do drop_first(self) end
  return self.count > 0 and self[1].at or nil
end

--- Takes out one that is due.
---@param now number
---@return any what nil when none is
function Timers:due(now)
  local at = self:next()
  if not at or at > now then return nil end
  local what = self[1].what
  self[1].what = nil
  drop_first(self)
  return what
end

return timers

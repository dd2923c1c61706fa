--- How long calls take: counts in classes, each a quarter of an octave wide, from 0.1 µs on.  Two of them can be subtracted
-- and added, so percentiles of any time and of many processes can be told.
local codec_array = require("fpcache.core").array_mt

local LOWEST, PER_OCTAVE, CLASSES = 1e-7, 4, 120
local SCALE = PER_OCTAVE / math.log(2)
local log, floor = math.log, math.floor

---@class fpcache.Latency
local Latency = {}
Latency.__index = Latency

local latency = {}

---@return fpcache.Latency
function latency.new()
  return setmetatable({}, Latency)
end

--- Counts a call.
---@param seconds number
function Latency:add(seconds)
  local class = 1
  if seconds > LOWEST then class = floor(log(seconds / LOWEST) * SCALE) + 2 end
  if class > CLASSES then class = CLASSES end
  self[class] = (self[class] or 0) + 1
end

--- The counts by class, without those at the end that are 0.
---@return integer[]
function Latency:counts()
  local list, last = setmetatable({}, codec_array), 0
  for class in pairs(self) do last = math.max(last, class) end
  for class = 1, last do list[class] = self[class] or 0 end
  return list
end

--- Counts that came in between.
---@param after integer[]
---@param before integer[]?
---@return integer[]
function latency.between(after, before)
  local list = {}
  for class, count in ipairs(after) do list[class] = math.max(count - (before and before[class] or 0), 0) end
  return list
end

--- Adds counts to others.
function latency.sum(into, counts)
  for class, count in ipairs(counts) do
    for missing = #into + 1, class do into[missing] = 0 end
    into[class] = into[class] + count
  end
  return into
end

--- The time that this share of the calls did not exceed, to a quarter of an octave.
---@param counts integer[]
---@param share number such as 0.99
---@return number? seconds nil when there were none
function latency.percentile(counts, share)
  local total = 0
  for _, count in ipairs(counts) do total = total + count end
  if total == 0 then return nil end
  local seen = 0
  for class, count in ipairs(counts) do
    seen = seen + count
    if seen >= share * total then return LOWEST * 2 ^ ((class - 1) / PER_OCTAVE) end
  end
end

return latency

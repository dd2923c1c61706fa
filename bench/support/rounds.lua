--- Measuring several sides in turn: A B C, B C A, ..., and the median of each.
--
-- Taking turns spreads whatever else the machine does over all sides; the median forgets the odd round.
local rounds = {}

---@param list number[]
---@return number
function rounds.median(list)
  local sorted = { table.unpack(list) }
  table.sort(sorted)
  local middle = (#sorted + 1) // 2
  if #sorted % 2 == 1 then return sorted[middle] end
  return (sorted[middle] + sorted[middle + 1]) / 2
end

--- Measures every side `count` times.  A side is { name = string, measure = function() -> rate }.
---@return table<string, {median: number, min: number, max: number, all: number[]}>
function rounds.run(sides, count)
  local rates = {}
  for _, side in ipairs(sides) do rates[side.name] = {} end
  for round = 1, count do
    for i = 1, #sides do
      local side = sides[(round + i - 2) % #sides + 1]
      table.insert(rates[side.name], side.measure())
    end
  end
  local results = {}
  for name, all in pairs(rates) do
    results[name] = { median = rounds.median(all), min = math.min(table.unpack(all)), max = math.max(table.unpack(all)),
      all = all }
  end
  return results
end

return rounds

--- Text as Prometheus scrapes it (exposition format 0.0.4): families of series, each family once.
local exposition = {}

exposition.CONTENT_TYPE = "text/plain; version=0.0.4"

local function escape(text)
  return (tostring(text):gsub('[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }))
end

--- name="value" pairs in a fixed order.
---@param labels table<string, string|number>
---@return string
function exposition.labels(labels)
  local names = {}
  for name in pairs(labels) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = ('%s="%s"'):format(name, escape(labels[name])) end
  return table.concat(names, ",")
end

local function number(value)
  if value ~= value then return "NaN" end
  if value == math.huge then return "+Inf" end
  return value % 1 == 0 and ("%.0f"):format(value) or ("%.9g"):format(value)
end

--- Adds a family.
---@param lines string[]
---@param name string without "fpcache_"
---@param kind "counter"|"gauge"
---@param help string
---@param series table[] each { labels as text, value }
function exposition.add(lines, name, kind, help, series)
  lines[#lines + 1] = ("# HELP fpcache_%s %s\n# TYPE fpcache_%s %s"):format(name, help, name, kind)
  for _, one in ipairs(series) do lines[#lines + 1] = ("fpcache_%s{%s} %s"):format(name, one[1], number(one[2])) end
end

--- Adds a histogram.
---@param lines string[]
---@param name string
---@param help string
---@param ends number[] upper ends of the buckets, seconds
---@param series table[] each { labels as text, { counts = for each bucket, and beyond the last; sum =, count = } }
function exposition.add_histogram(lines, name, help, ends, series)
  lines[#lines + 1] = ("# HELP fpcache_%s %s\n# TYPE fpcache_%s histogram"):format(name, help, name)
  for _, one in ipairs(series) do
    local labels, histogram, sum = one[1], one[2], 0
    for i = 1, #ends + 1 do
      sum = sum + histogram.counts[i]
      lines[#lines + 1] = ('fpcache_%s_bucket{%s,le="%s"} %s'):format(name, labels, number(ends[i] or math.huge), number(sum))
    end
    lines[#lines + 1] = ("fpcache_%s_sum{%s} %s"):format(name, labels, number(histogram.sum))
    lines[#lines + 1] = ("fpcache_%s_count{%s} %s"):format(name, labels, number(histogram.count))
  end
end

--- Several texts as one, in which each family stands once.
---@param texts string[] whose series differ in a label
---@return string
function exposition.merge(texts)
  local order, families = {}, {}
  for _, text in ipairs(texts) do
    local family
    for line in text:gmatch("[^\n]+") do
      local name = line:match("^# HELP (%S+)")
      if name then
        family = families[name]
        if not family then
          family = {}
          families[name], order[#order + 1] = family, name
        end
      end
      if line:sub(1, 1) ~= "#" or family.is_told ~= true then family[#family + 1] = line end
      if line:find("^# TYPE ") then family.is_told = true end
    end
  end
  local lines = {}
  for _, name in ipairs(order) do lines[#lines + 1] = table.concat(families[name], "\n") end
  return table.concat(lines, "\n") .. "\n"
end

return exposition

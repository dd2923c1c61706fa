--- Times as people write them: "250ms", "90s", "5m", "1h30m", "2d", "1w".
local duration = {}

local UNITS = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400, w = 604800 }

--- Seconds of a text; units ms, s, m, h, d and w, fractions allowed, several in a row are added.
---@param text string
---@return number? seconds, string? reason why it is no duration
function duration.parse(text)
  local at, seconds = 1, 0
  while at <= #text do
    local number, unit, stop = text:match("^%s*(%d*%.?%d+)%s*(%a+)%s*()", at)
    if not number or not UNITS[unit] then
      return nil, ('%q is no duration (such as "250ms", "90s", "5m", "1h30m", "2d", "1w")'):format(text)
    end
    seconds, at = seconds + tonumber(number) * UNITS[unit], stop
  end
  if at == 1 then return nil, "an empty text is no duration" end
  return seconds
end

--- Seconds of a number or a text; anything else is given back as it is.
---@param value any
---@return any seconds, string? reason why a text is no duration
function duration.seconds(value)
  if type(value) ~= "string" then return value end
  return duration.parse(value)
end

return duration

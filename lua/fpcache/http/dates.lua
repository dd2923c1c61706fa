--- The dates of HTTP (RFC 9110, 5.6.7): seconds since 1970 from any of the three forms, and the one form that is sent.
local dates = {}

local MONTHS = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12 }
local MONTH_NAMES = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }
local DAY_NAMES = { [0] = "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" } -- 1970 began on a Thursday
local LONG_DAYS = { Monday = 1, Tuesday = 1, Wednesday = 1, Thursday = 1, Friday = 1, Saturday = 1, Sunday = 1 }
local MONTH_DAYS = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

--- Days from 1970 to a day of the Gregorian calendar; years are counted from March, so that the leap day is the last.
local function days_from(year, month, day)
  if month <= 2 then year = year - 1 end
  local era_year = year % 400
  local from_march = (month + 9) % 12
  local day_of_year = math.floor((153 * from_march + 2) / 5) + day - 1
  local day_of_era = era_year * 365 + math.floor(era_year / 4) - math.floor(era_year / 100) + day_of_year
  return math.floor(year / 400) * 146097 + day_of_era - 719468
end

local function seconds_from(year, month_name, day, hour, minute, second)
  local month = MONTHS[month_name]
  if not month or day < 1 or day > MONTH_DAYS[month] or hour > 23 or minute > 59 or second > 60 then return nil end
  return days_from(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
end

--- Seconds since 1970 of a date; nil when it is none of the three forms.
---@param text string?
---@param now number? seconds since 1970, to read two digits of a year by
---@return number?
function dates.parse(text, now)
  if type(text) ~= "string" or #text > 40 then return nil end
  -- Sun, 06 Nov 1994 08:49:37 GMT
  local day, month, year, hour, minute, second =
    text:match("^%s*%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT%s*$")
  if not day then -- Sun Nov  6 08:49:37 1994
    month, day, hour, minute, second, year = text:match("^%s*%a%a%a (%a%a%a) ([ %d]%d) (%d%d):(%d%d):(%d%d) (%d%d%d%d)%s*$")
  end
  if day then
    return seconds_from(tonumber(year), month, tonumber(day), tonumber(hour), tonumber(minute), tonumber(second))
  end
  -- Sunday, 06-Nov-94 08:49:37 GMT
  local name
  name, day, month, year, hour, minute, second =
    text:match("^%s*(%a+), (%d%d)%-(%a%a%a)%-(%d%d) (%d%d):(%d%d):(%d%d) GMT%s*$")
  if not name or not LONG_DAYS[name] then return nil end
  local this_year = 1970 + math.floor((now or os.time()) / 31556952)
  year = this_year - this_year % 100 + tonumber(year)
  if year > this_year + 50 then year = year - 100 end -- as the RFC wants what seems far ahead to be read
  return seconds_from(year, month, tonumber(day), tonumber(hour), tonumber(minute), tonumber(second))
end

--- The form that is sent: "Sun, 06 Nov 1994 08:49:37 GMT".
---@param seconds number since 1970
---@return string
function dates.format(seconds)
  seconds = math.floor(seconds)
  local days = math.floor(seconds / 86400)
  local rest = seconds - days * 86400
  -- The reverse of days_from.
  local from_era = days + 719468
  local era = math.floor(from_era / 146097)
  local day_of_era = from_era - era * 146097
  local year_of_era = math.floor((day_of_era - math.floor(day_of_era / 1460) + math.floor(day_of_era / 36524)
    - math.floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
  local from_march = math.floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - math.floor((153 * from_march + 2) / 5) + 1
  local month = from_march < 10 and from_march + 3 or from_march - 9
  local year = year_of_era + era * 400 + (month <= 2 and 1 or 0)
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(DAY_NAMES[days % 7], day, MONTH_NAMES[month], year,
    math.floor(rest / 3600), math.floor(rest % 3600 / 60), rest % 60)
end

return dates

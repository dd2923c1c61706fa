--- How old a response is, and how old it may get (RFC 9111, 4.2; RFC 5861 for what is stale).
local dates = require("fpcache.http.dates")
local directives = require("fpcache.http.directives")
local headers = require("fpcache.http.headers")

local freshness = {}

--- When a response was made: its Date, or when it came (RFC 9110, 6.6.1).
local function date_of(fields, response_time)
  return dates.parse(headers.first(fields, "date"), response_time) or response_time
end

--- Its age when it came: what caches before us added up, or what its Date shows, whichever is more (RFC 9111, 4.2.3).
---@param fields table<string, table>
---@param request_time number seconds since 1970
---@param response_time number
---@return number seconds
function freshness.initial_age(fields, request_time, response_time)
  local apparent = math.max(0, response_time - date_of(fields, response_time))
  local value = headers.members(headers.first(fields, "age"))[1] -- of several the first (RFC 9111, 5.1)
  local age = value and value:find("^%d+$") and math.min(tonumber(value), 2147483648) or 0
  return math.max(apparent, age + math.max(0, response_time - request_time))
end

-- The status codes that may be given a lifetime which they do not name (RFC 9110, 15.1); 206 is never kept here.
local HEURISTIC = {
  [200] = true, [203] = true, [204] = true, [300] = true, [301] = true, [308] = true, [404] = true, [405] = true, [410] = true,
  [414] = true, [501] = true,
}

--- Whether a lifetime that the response does not name may be given to it.
local function may_guess(status, control)
  return HEURISTIC[status] or control.public ~= nil
end

--- For how long a response is fresh, counted from when it was made.
---@param status integer
---@param fields table<string, table>
---@param control table<string, true|string> its directives
---@param response_time number
---@param rules table { default_ttl = seconds?, heuristic = share of the time since Last-Modified?, heuristic_max = seconds? }
---@return number? seconds nil: nothing says so
---@return string? source "s-maxage", "max-age", "expires", "heuristic" or "default"
function freshness.lifetime(status, fields, control, response_time, rules)
  for _, name in ipairs { "s-maxage", "max-age" } do
    local seconds = directives.seconds(control, name)
    if seconds then return seconds, name end
  end
  local made = date_of(fields, response_time)
  local expires = headers.first(fields, "expires")
  if expires then -- one that cannot be read, as "0", is in the past (RFC 9111, 5.3)
    local at = dates.parse(expires, response_time)
    return at and math.max(0, at - made) or 0, "expires"
  end
  if not may_guess(status, control) then return nil end
  if rules.heuristic then
    local modified = dates.parse(headers.first(fields, "last-modified"), response_time)
    if modified and modified < made then
      return math.min((made - modified) * rules.heuristic, rules.heuristic_max or 86400), "heuristic"
    end
  end
  if rules.default_ttl then return rules.default_ttl, "default" end
  return nil
end

--- For how long after its end a response may be given: while it is loaded anew, and when that fails.
--
-- What a response itself says about being stale (RFC 5861) goes before the place's own rules; must-revalidate, proxy-revalidate
-- and no-cache before both.  s-maxage implies proxy-revalidate (RFC 9111, 5.2.2.10), unless the response names times beside it.
---@param control table<string, true|string>
---@param rules table { stale_while_revalidate = seconds?, stale_if_error = seconds? }
---@return number while_revalidate 0: not at all
---@return number if_error
function freshness.stale_times(control, rules)
  local no_cache = control["no-cache"] ~= nil and not directives.fields(control, "no-cache")
  if control["must-revalidate"] or control["proxy-revalidate"] or no_cache then return 0, 0 end
  local named_while = directives.seconds(control, "stale-while-revalidate")
  local named_error = directives.seconds(control, "stale-if-error")
  if control["s-maxage"] then return named_while or 0, named_error or 0 end
  return named_while or rules.stale_while_revalidate or 0, named_error or rules.stale_if_error or 0
end

--- The age of a kept response now.
---@param kept table { received = seconds since 1970, initial_age = seconds }
---@param now number
---@return number seconds never negative
function freshness.age(kept, now)
  return kept.initial_age + math.max(0, now - kept.received)
end

--- Whether a client that names a max-age takes what has been stale for so long.
local function takes_stale(control, seconds)
  local max_stale = control["max-stale"]
  return seconds <= 0 or max_stale == true or max_stale ~= nil and seconds <= directives.seconds(control, "max-stale")
end

--- What a client asks of the age of an answer (RFC 9111, 5.2.1).  max-stale is a permission, which lets nothing be given that the
-- origin does not let be; beside max-age it says that the client takes what is stale (5.2.1.1).
---@param control table<string, true|string> of the request
---@param age number
---@param lifetime number
---@return "give"|"revalidate"
function freshness.asked(control, age, lifetime)
  if control["no-cache"] then return "revalidate" end
  local left = lifetime - age
  local max_age = directives.seconds(control, "max-age")
  if max_age and (age > max_age or not takes_stale(control, -left)) then return "revalidate" end
  local min_fresh = directives.seconds(control, "min-fresh")
  if min_fresh and left < min_fresh then return "revalidate" end
  return "give"
end

return freshness

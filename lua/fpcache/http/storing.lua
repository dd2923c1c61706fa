--- Whether a shared cache may keep a response, and for how long (RFC 9111, 3).
local directives = require("fpcache.http.directives")
local freshness = require("fpcache.http.freshness")
local vary = require("fpcache.http.vary")

local storing = {}

-- Final status codes whose meaning for a cache we know (RFC 9111, 3).  206 and 304 are parts and updates of other responses;
-- 428, 429, 431 and 511 are of one client and must not be kept, whatever they say (RFC 6585, 3 to 6).
local UNDERSTOOD = {}
for _, status in ipairs {
  200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413,
  414, 415, 417, 421, 422, 423, 424, 425, 426, 451, 500, 501, 502, 503, 504, 505, 506, 507, 508,
} do UNDERSTOOD[status] = true end

-- A server's error tells nothing lasting of the resource: kept only where the response itself says for how long.
local function is_server_error(status) return status >= 500 and status ~= 501 end

---@class fpcache.HttpPlan
---@field store boolean
---@field reason string? why it is not kept
---@field lifetime number? seconds from when the response was made
---@field source string? who says so
---@field while_revalidate number? seconds after its end
---@field if_error number?
---@field revalidate boolean? it must be asked for each time (no-cache)
---@field vary string[]? names in lower case
---@field drop string[]? fields not to be kept

local function no(reason) return { store = false, reason = reason } end

--- Decides about one response.
---@param request table { method = , fields = }
---@param response table { status = , fields = , received = seconds since 1970 }
---@param rules table of freshness, and { store_private, store_set_cookie }
---@return fpcache.HttpPlan
function storing.plan(request, response, rules)
  local status, fields = response.status, response.fields
  local control = directives.of(fields)
  local asked = directives.of(request.fields)
  if request.method ~= "GET" and request.method ~= "HEAD" then return no("the method is " .. tostring(request.method)) end
  if asked["no-store"] then return no("the request says no-store") end
  if not UNDERSTOOD[status] then return no(("the status is %d"):format(status)) end
  -- must-understand: who knows the status code ignores the no-store beside it (RFC 9111, 5.2.2.3).
  if control["no-store"] and not control["must-understand"] then return no("no-store") end
  local drop, cookies = {}, rules.store_set_cookie
  if control.private and not rules.store_private then
    local named = directives.fields(control, "private")
    if not named then return no("private") end
    for _, name in ipairs(named) do drop[#drop + 1] = name end
  end
  local named_no_cache = directives.fields(control, "no-cache")
  for _, name in ipairs(named_no_cache or {}) do drop[#drop + 1] = name end
  if fields["set-cookie"] and not cookies then
    local is_dropped = false
    for _, name in ipairs(drop) do is_dropped = is_dropped or name == "set-cookie" end
    if not is_dropped then return no("Set-Cookie") end
  end
  -- Requests with credentials (RFC 9111, 3.5).
  if request.fields.authorization and not (control.public or control["s-maxage"] or control["must-revalidate"])
    and not rules.store_private then
    return no("the request has Authorization")
  end
  local names = vary.names(fields)
  if names == "*" then return no("Vary: *") end
  local lifetime, source = freshness.lifetime(status, fields, control, response.received, rules)
  if not lifetime and control["no-cache"] and not named_no_cache then lifetime, source = 0, "no-cache" end
  if not lifetime then return no("nothing says for how long") end
  if is_server_error(status) and (source == "heuristic" or source == "default") then
    return no(("the status is %d and nothing in the response says for how long"):format(status))
  end
  local while_revalidate, if_error = freshness.stale_times(control, rules)
  local revalidate = control["no-cache"] ~= nil and not named_no_cache
  return {
    store = true, lifetime = lifetime, source = source, revalidate = revalidate, vary = names, drop = drop,
    while_revalidate = while_revalidate, if_error = if_error,
  }
end

-- After these the resource may have changed (RFC 9111, 4.4); unknown methods count as such.
local SAFE = { GET = true, HEAD = true, OPTIONS = true, TRACE = true, PROPFIND = true, SEARCH = true, REPORT = true }

--- Whether a successful request makes what is kept of its URI invalid.
---@param method string
---@param status integer of the response
function storing.invalidates(method, status)
  return not SAFE[method] and status >= 200 and status < 400
end

--- Whether a request with this method may change something.
function storing.is_safe(method) return SAFE[method] or false end

return storing

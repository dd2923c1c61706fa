--- One request to the origin: a subrequest to an internal location, whose answer is held in memory.
--
-- The location's directives say where the origin is and how long it may take; $request_uri there is the client's.
local conditional = require("fpcache.http.conditional")
local dates = require("fpcache.http.dates")
local freshness = require("fpcache.http.freshness")
local headers = require("fpcache.http.headers")

local upstream = {}

local METHODS = {
  GET = "HTTP_GET", HEAD = "HTTP_HEAD", PUT = "HTTP_PUT", POST = "HTTP_POST", DELETE = "HTTP_DELETE", OPTIONS = "HTTP_OPTIONS",
  MKCOL = "HTTP_MKCOL", COPY = "HTTP_COPY", MOVE = "HTTP_MOVE", PROPFIND = "HTTP_PROPFIND", PROPPATCH = "HTTP_PROPPATCH",
  LOCK = "HTTP_LOCK", UNLOCK = "HTTP_UNLOCK", PATCH = "HTTP_PATCH", TRACE = "HTTP_TRACE",
}

--- Whether a subrequest can have this method.
function upstream.knows(method) return METHODS[method] ~= nil end

---@class fpcache.HttpResponse
---@field status integer
---@field fields table<string, table>
---@field body string
---@field received number seconds since 1970
---@field initial_age number seconds
---@field took number seconds

--- The fields of an answer.  nginx writes hyphens for the underscores of names that Lua sets, so that they are read so as well:
-- a Set_Cookie would reach clients as Set-Cookie, and a Transfer_Encoding would divide the answer anew.
local function fields_of(result)
  local fields, renamed = headers.read(result.header), {}
  for name, field in pairs(fields) do
    if name:find("_", 1, true) then renamed[name] = field end
  end
  for name, field in pairs(renamed) do
    fields[name] = nil
    local lower = name:gsub("_", "-")
    local same = fields[lower] or { name = field.name:gsub("_", "-") }
    for _, value in ipairs(field) do same[#same + 1] = value end
    fields[lower] = same
  end
  return fields
end

---@param is_conditional boolean whether 304 can be an answer
local function answer(result, asked_at, clock, is_conditional)
  ngx.update_time()
  local now = clock()
  local response = {
    status = result.status, fields = fields_of(result), body = result.body or "", received = now, took = now - asked_at,
  }
  -- The origin broke off; or what nginx takes for an answer is none: what follows a 1xx is the answer, and a client would take it
  -- for the one to its next request.
  if result.truncated or result.status < 200 or result.status == 304 and not is_conditional then
    response.status, response.fields, response.body = result.status == 504 and 504 or 502, {}, "" -- 504: nginx gave it up
  end
  response.initial_age = freshness.initial_age(response.fields, asked_at, now)
  if not response.fields.date then response.fields.date = { name = "Date", dates.format(now) } end -- RFC 9110, 6.6.1
  return response
end

--- Asks for the whole of what a GET or HEAD wants.
---@param location string
---@param questions table<string, string>? If-None-Match and If-Modified-Since of ours
---@param encoding string|false|nil Accept-Encoding to send; false: none; nil: the client's
---@param clock fun(): number seconds since 1970
---@return fpcache.HttpResponse
function upstream.get(location, questions, encoding, clock)
  -- The subrequest has the client's fields, so these change for a while.  They do not come back: what is left of the request is
  -- answered by us, and nginx shall not answer it once more by fields that are ours.
  for _, name in ipairs(conditional.OF_CLIENT) do ngx.req.clear_header(name) end
  for name, value in pairs(questions or {}) do ngx.req.set_header(name, value) end
  if encoding ~= nil then ngx.req.set_header("Accept-Encoding", encoding or nil) end
  local asked_at = clock()
  local result = ngx.location.capture(location, { method = ngx.HTTP_GET, args = ngx.var.args })
  for name in pairs(questions or {}) do ngx.req.clear_header(name) end
  return answer(result, asked_at, clock, questions ~= nil)
end

--- Passes a request on as it is, body included.
---@param location string
---@param method string one that upstream.knows
---@return fpcache.HttpResponse
function upstream.pass(location, method, clock)
  ngx.req.read_body()
  local asked_at = clock()
  local result = ngx.location.capture(location, {
    method = ngx[METHODS[method]], args = ngx.var.args, always_forward_body = true,
  })
  return answer(result, asked_at, clock, true)
end

return upstream

--- What a client asks: the request as the rules of HTTP (lua/fpcache/http) read it.
local headers = require("fpcache.http.headers")
local keys = require("fpcache.http.keys")

local asking = {}

local MOST_FIELDS = 200

---@class fpcache.HttpRequest
---@field method string
---@field fields table<string, table>
---@field scheme string
---@field host string
---@field uri string path and arguments as the client sent them
---@field trouble string? why no key can be made of it that is surely its own

---@return fpcache.HttpRequest
function asking.read()
  local given, err = ngx.req.get_headers(MOST_FIELDS)
  local scheme, host, field = ngx.var.scheme, ngx.var.host, ngx.var.http_host
  local trouble
  if err then trouble = "more than 200 fields" end -- those beyond could make a difference that is not seen
  -- A request line with a host of its own: the origin's location may pass on the one or the other.
  if field and keys.host(field, scheme):gsub(":%d+$", "") ~= host then trouble = "two hosts" end
  if not field then trouble = "no Host" end -- the origin's default host answers, and not the one whose name nginx takes
  if ngx.var.request_uri:find("#", 1, true) then trouble = "a fragment" end -- which means what to origins?
  return {
    method = ngx.req.get_method(), fields = headers.read(given), scheme = scheme, host = field or host, uri = ngx.var.request_uri,
    trouble = trouble,
  }
end

--- Why a request passes by, or nil.
---@param request fpcache.HttpRequest
---@param asked table<string, true|string> its directives
---@param told (fun(): boolean?)? the place's own rule
---@return string?
function asking.bypass_reason(request, asked, told)
  local fields = request.fields
  if request.method ~= "GET" and request.method ~= "HEAD" then return "the method is " .. request.method end
  if request.trouble then return request.trouble end
  if fields.range then return "Range" end
  if fields["if-match"] or fields["if-unmodified-since"] then return "a precondition" end
  if fields["transfer-encoding"] or (fields["content-length"] and fields["content-length"][1] ~= "0") then return "a body" end
  if fields.upgrade then return "Upgrade" end
  if asked["no-store"] then return "no-store" end
  if told and told() then return "told so" end
  return nil
end

return asking

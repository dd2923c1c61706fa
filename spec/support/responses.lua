-- responses.lua -- an origin and an nginx that caches its responses, for the specs of cache_response.
--
--   local origin = responses.origin()
--   local front = responses.front(origin.port, { connection_string = db:url_of(), feed = false })
--   front:get("/x?cc=max-age=60")        -- what the origin shall do stands in the arguments
--   origin:body("/become?status=503")    -- from now on; without status: as before
--   origin:body("/become?held=1")        -- answers nothing until it becomes something else
--   origin:body("/waiting?of=/x")        -- how many requests of that path it holds
--   front:body("/later?by=61")           -- the front's clock, seconds ahead
--
--   local origin = responses.by_hand()   -- one whose answers are written byte by byte
--   origin:exchange(front, responses.request("/x"), responses.ok("Cache-Control: max-age=60\r\n"))
local nginx = require "support.nginx"
local socket = nginx.is_testable and require "socket"

local responses = {}

-- The origin does what the arguments of a request say, and numbers its answers.
local ORIGIN = [[
  location / { content_by_lua_block {
    local asked, counts = ngx.req.get_uri_args(), ngx.shared.counts
    if asked.slow then ngx.sleep(tonumber(asked.slow)) end
    counts:incr("waiting " .. ngx.var.uri, 1, 0)
    while counts:get("held") do ngx.sleep(0.005) end
    counts:incr("waiting " .. ngx.var.uri, -1)
    local n = counts:incr(ngx.var.uri, 1, 0)
    local status = counts:get("status")
    for name, value in pairs { ["Cache-Control"] = not status and asked.cc, Vary = asked.vary, ["Surrogate-Key"] = asked.tags,
      ["Set-Cookie"] = asked.cookie, Age = asked.age } do
      ngx.header[name] = value or nil
    end
    if asked.etag then
      ngx.header.ETag = '"' .. asked.etag .. '"'
      if ngx.var.http_if_none_match == ngx.header.ETag and not status then return ngx.exit(304) end
    end
    ngx.status = status or tonumber(asked.status) or 200
    if asked.breaks then
      ngx.header["Content-Length"] = 100
      return ngx.print("short")
    end
    if asked.bytes then return ngx.print(("x"):rep(tonumber(asked.bytes))) end
    ngx.req.read_body()
    local file = ngx.req.get_body_file()
    if file then return ngx.print(ngx.md5(io.open(file, "rb"):read("*a"))) end
    ngx.print(n, " ", ngx.req.get_method(), " ", ngx.var.http_accept_language or "-", " ", ngx.var.http_accept_encoding or "-",
      " ", ngx.req.get_body_data() or "-")
  } }
  location = /count { content_by_lua_block { ngx.print(ngx.shared.counts:get(ngx.var.arg_of) or 0) } }
  location = /waiting { content_by_lua_block { ngx.print(ngx.shared.counts:get("waiting " .. ngx.var.arg_of) or 0) } }
  location = /become { content_by_lua_block {
    ngx.shared.counts:set("status", tonumber(ngx.var.arg_status))
    ngx.shared.counts:set("held", ngx.var.arg_held)
    ngx.print("ok")
  } }
]]

local FRONT = [[
  location / { content_by_lua_block {
    local responses = require("fpcache.nginx").response()
    if ngx.req.get_method() == "PURGE" then return responses:serve_purge() end
    responses:serve()
  } }
  location = /origin {
    internal;
    proxy_pass http://127.0.0.1:%d$request_uri;
    proxy_set_header Host $http_host;
    proxy_ignore_client_abort on;
    proxy_read_timeout 60s;
  }
  location /larger/ { content_by_lua_block { require("fpcache.nginx").response("larger"):serve() } }
  location = /later { content_by_lua_block { ngx.shared.clock:set("offset", tonumber(ngx.var.arg_by)) ngx.print("ok") } }
  location = /purge { content_by_lua_block {
    local responses, asked = require("fpcache.nginx").response(), ngx.req.get_uri_args()
    if asked.url then
      ngx.print(tostring(responses:purge(asked.url)))
    else
      ngx.print(tostring(responses:purge_tag(asked.tag, { soft = asked.soft == "1" })))
    end
  } }
]]

local INIT = [[
  local nginx = require("fpcache.nginx")
  local function now() return ngx.now() + (ngx.shared.clock:get("offset") or 0) end
  nginx.cache_response { location = "/origin", ignore_args = { "utm_*" }, max_bytes = 1000, lock_timeout = "1m" }.now = now
  nginx.cache_response { name = "larger", location = "/origin", key_headers = { "X-Shop" }, default_ttl = "1m",
    pass_ttl = "200ms", store_set_cookie = true, store_private = true, request_directives = false, stale_if_error = "1h",
    bypass = function() return ngx.var.arg_bypass ~= nil end }.now = now
]]

--- An origin whose answers are numbered for each path.
function responses.origin()
  return nginx.start { server = ORIGIN, http = "lua_shared_dict counts 1m;" }
end

--- An nginx before it.
---@param port integer the origin's
---@param cache table options of init_worker
---@param more table? of nginx.start; `server` and `init_worker` are added to what there is
function responses.front(port, cache, more)
  local opts = { cache = cache, init_worker = INIT, server = FRONT:format(port), http = "lua_shared_dict clock 1m;" }
  for name, value in pairs(more or {}) do
    opts[name] = (name == "server" or name == "init_worker") and opts[name] .. value or value
  end
  return nginx.start(opts)
end

-- --- an origin that is this process ---

local ByHand = {}
ByHand.__index = ByHand

--- An origin whose every byte the spec says; { port }.
function responses.by_hand()
  local listener = assert(socket.bind("127.0.0.1", 0))
  local _, port = listener:getsockname()
  return setmetatable({ listener = listener, port = tonumber(port) }, ByHand)
end

function ByHand:close() self.listener:close() end

--- What a client gets that sends these bytes.
---@param front table by responses.front
---@param said string
---@param ... string what the origin says to each that it is asked; "": nothing, for ever; none: it must not be asked
---@return table {status, headers, body, text}, string? what the origin was asked last
function ByHand:exchange(front, said, ...)
  self.listener:settimeout(0) -- what a test that failed left here
  repeat
    local left = self.listener:accept()
    if left then left:close() end
  until not left
  self.listener:settimeout(20)
  local client, origin, heard = assert(socket.connect("127.0.0.1", front.port)), nil, nil
  client:settimeout(20)
  assert(client:send(said))
  for _, answer in ipairs { ... } do
    local lines = {}
    origin = assert(self.listener:accept())
    origin:settimeout(20)
    repeat
      lines[#lines + 1] = assert(origin:receive("*l"))
    until lines[#lines] == ""
    heard = table.concat(lines, "\n")
    assert(origin:send(answer))
    if answer ~= "" then origin:close() end
  end
  local text = assert(client:receive("*a"))
  if origin then origin:close() end
  client:close()
  local head, body = text:match("^(.-)\r\n\r\n(.*)$")
  local headers = {}
  for name, value in (head or ""):gmatch("\r\n([^:\r\n]+): ?([^\r\n]*)") do
    name = name:lower()
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
  return { status = tonumber(text:match("^HTTP/1.1 (%d+)")), headers = headers, body = body or text, text = text }, heard
end

--- A request as a client sends it.
---@param target string
---@param fields string? lines, with Host
function responses.request(target, fields)
  return ("GET %s HTTP/1.1\r\n%sConnection: close\r\n\r\n"):format(target, fields or "Host: example.org\r\n")
end

--- An answer as an origin sends it.
---@param fields string? lines
---@param body string?
function responses.ok(fields, body)
  body = body or "ok"
  return ("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s"):format(fields or "Cache-Control: max-age=60\r\n", #body, body)
end

return responses

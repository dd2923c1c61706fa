#!/usr/bin/env fpcache
-- api_proxy.lua -- a proxy before an API that fails now and then: its clients never see that while an older answer is allowed.
--
--     fpcache examples/api_proxy.lua               with the private server, or FPCACHE_URL
--
-- The API is a table here; `origin` is where a real proxy has its HTTP client.
local fpcache = require("fpcache")

local cache <close> = assert(fpcache.new { namespace = "example-proxy", feed = false })
cache:clear()

local answers = fpcache.policy {
  ttl = "200ms",         -- fresh for so long
  stale_ttl = "10m",     -- then given while the API is slow or down
  error_backoff = "300ms", -- after a failure the API is left alone
  negative_ttl = "1s",   -- 404 is an answer too
  hard_timeout = "2s",
}

local api = { is_up = true, etag = '"1"', requests = 0, full_answers = 0 }

--- Asks the API for a path, by its ETag if there is an older answer.
local function origin(path, context)
  api.requests = api.requests + 1
  if not api.is_up then return nil, "503 Service Unavailable" end
  if path ~= "/weather" then return nil end -- 404
  if context.validator == api.etag then return context:not_modified() end -- 304
  api.full_answers = api.full_answers + 1
  context.validator = api.etag
  return { sky = "clear", degrees = 21.5 }
end

local function get(path)
  local body, err, source, why = cache:fetch(path, answers, origin, path)
  if err then return 502, err end
  if body == nil then return 404, "not found" end
  return 200, ("%s, %g degrees (%s%s)"):format(body.sky, body.degrees, source, why and ": " .. why or "")
end

print("first", get("/weather"))
print("again", get("/weather"))
print("no such path", get("/nothing"))
fpcache.waiting.sleep(0.25)
print("expired", get("/weather")) -- the API says: not modified

api.is_up = false
fpcache.waiting.sleep(0.25)
local before, failed = api.requests, 0
for _ = 1, 50 do
  local status, text = get("/weather")
  if status ~= 200 then failed = failed + 1 end
  if _ == 1 or _ == 50 then print("API down", status, text) end
end
print(("50 requests while the API was down: %d errors, %d reached it"):format(failed, api.requests - before))
assert(failed == 0)

api.is_up, api.etag = true, '"2"'
fpcache.waiting.sleep(0.35)
print("API back", get("/weather"))
print(("the API sent %d full answers for %d requests that reached it"):format(api.full_answers, api.requests))

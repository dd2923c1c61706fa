#!/usr/bin/env fpcache
-- rate_limiter.lua -- a limit for each client, over all processes that share the cache.
--
--     fpcache examples/rate_limiter.lua            with the private server, or FPCACHE_URL
local fpcache = require("fpcache")
local sleep = fpcache.waiting.sleep

local cache <close> = assert(fpcache.new { namespace = "example-rates", feed = false })
cache:clear()

-- Five at once, then one each 200 ms.
local limiter = cache:rate_limiter { limit = 5, window = "1s" }

--- What a web server would do with a request.
local function handle(client)
  local allowed, err, remaining, retry_after = limiter:allow(client)
  if allowed == nil then
    io.stderr:write("limiter: ", err, "\n") -- the server cannot say: we let it through
    return 200
  end
  if not allowed then return 429, ("Retry-After: %d"):format(math.ceil(retry_after)) end
  return 200, ("X-RateLimit-Remaining: %d"):format(remaining)
end

local counts = { [200] = 0, [429] = 0 }
for _ = 1, 8 do
  local status, header = handle("10.0.0.1")
  counts[status] = counts[status] + 1
  print(status, header)
end
print("another client", handle("10.0.0.2"))
sleep(0.3)
print("after 300 ms", handle("10.0.0.1"))
assert(counts[200] >= 5 and counts[429] >= 1)
print(("let through %d, refused %d"):format(counts[200], counts[429]))

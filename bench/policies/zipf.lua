-- zipf.lua -- Question: how many readers wait for a loading, with and without refresh_ahead and XFetch?
--
-- A zipf trace (exponent 1, 200 keys, fixed seed) of reads that come at fixed distances of a model's clock; after each
-- step what is stored is aged by the step, on the server.  A reader waits when the key has expired: what renews early
-- spares that, at the price of more loadings.
local fpcache = require("fpcache")
local connection = require("fpcache.connection")
local options = require("fpcache.options")

local quick = os.getenv("BENCH_QUICK") == "1"
local KEYS, READS, STEP, EVERY, TTL = 200, quick and 1500 or 6000, 0.05, 20, 20 -- STEP seconds a read, aged each EVERY reads

local pool = assert(connection.open(options.read(connection.OPTIONS, {}, 1), 1))
local superuser = assert(pool:acquire(5))
local function age(seconds)
  assert(superuser:script(([[UPDATE cache SET expires_at = expires_at - i, stale_until = stale_until - i,
    lease_until = lease_until - i, version = version - us, noted_version = noted_version - us
    FROM (SELECT %.6f * interval '1 second' AS i, %.0f::bigint AS us) AS step]]):format(seconds, seconds * 1e6), 30))
end

local sums, sum = {}, 0
for i = 1, KEYS do
  sum = sum + 1 / i
  sums[i] = sum
end

local function trace(policy)
  local cache = assert(fpcache.new { namespace = "zipf", feed = false })
  assert(cache:clear())
  local state, waited, early, cold = 20261123, 0, 0, {}
  for read = 1, READS do
    state = state * 16807 % 2147483647
    local spot, key = state / 2147483647 * sum, 1
    while sums[key] < spot do key = key + 1 end
    local was_old
    assert(cache:fetch("k" .. key, policy, function(context)
      was_old = context.old ~= nil
      return key
    end))
    if was_old then early = early + 1 elseif was_old == false and cold[key] then waited = waited + 1 end
    cold[key] = true
    if read % EVERY == 0 then age(STEP * EVERY) end
    if read % 200 == 0 then assert(superuser:script("UPDATE cache SET load_seconds = 0.5 WHERE load_seconds > 0", 30)) end
  end
  cache:close()
  return waited, early
end

print(("%d reads, %d keys, ttl %d s"):format(READS, KEYS, TTL))
for _, side in ipairs {
  { "plain", fpcache.policy { ttl = TTL } },
  { "refresh_ahead 0.8", fpcache.policy { ttl = TTL, refresh_ahead = 0.8 } },
  { "beta 1 (XFetch)", fpcache.policy { ttl = TTL, beta = 1 } },
  { "both", fpcache.policy { ttl = TTL, refresh_ahead = 0.8, beta = 1 } },
} do
  local waited, early = trace(side[2])
  print(("%-20s %5d readers met an expired key   %5d renewed early   %5d loadings of known keys"):format(
    side[1], waited, early, waited + early))
end
superuser:close()
pool:close()

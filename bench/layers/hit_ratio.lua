--- Question: how often does the near cache's order of eviction (SIEVE) hit, against exact LRU of the same size?
--
-- Traces are made with a fixed seed: keys asked for by Zipf's law, alone and with walks over keys that are asked for once.
-- The cache holds a tenth of the keys of the Zipf part.  No server, no clock: the figures are the same everywhere.
local common = require("common")
local sieve = require("fpcache.sieve")

local KEYS = 100000
local SIZE = KEYS // 10
local REQUESTS = common.is_quick and 200000 or 1000000 -- of the Zipf part
local WALK_EVERY, WALK = 50000, 20000                  -- requests between two walks, keys of a walk

--- Requests as key numbers; those of walks are larger than KEYS.
local function trace(exponent, has_walks)
  math.randomseed(20261123)
  local sums, sum = {}, 0
  for rank = 1, KEYS do
    sum = sum + rank ^ -exponent
    sums[rank] = sum
  end
  local requests, walked = {}, KEYS
  for i = 1, REQUESTS do
    local want, low, high = math.random() * sum, 1, KEYS
    while low < high do
      local middle = (low + high) // 2
      if sums[middle] < want then low = middle + 1 else high = middle end
    end
    requests[#requests + 1] = low
    if has_walks and i % WALK_EVERY == 0 then
      for _ = 1, WALK do
        walked = walked + 1
        requests[#requests + 1] = walked
      end
    end
  end
  return requests
end

local function new_sieve(size)
  local cache = sieve.new(size, math.huge)
  return function(key)
    local slot = cache:find("", key)
    if slot then
      cache.visited[slot] = true
      return true
    end
    cache:put("", key, true, 1)
    return false
  end
end

--- A ring around 0: newer[0] is the oldest, older[0] the newest.
local function new_lru(size)
  local newer, older, entries = { [0] = 0 }, { [0] = 0 }, 0
  local function unlink(key)
    local before, after = older[key], newer[key]
    newer[before], older[after] = after, before
    newer[key], older[key] = nil, nil
  end
  return function(key)
    local is_hit = newer[key] ~= nil
    if is_hit then
      unlink(key)
    elseif entries == size then
      unlink(newer[0])
    else
      entries = entries + 1
    end
    local newest = older[0]
    newer[newest], older[key], newer[key], older[0] = key, newest, 0, key
    return is_hit
  end
end

do -- is it LRU? 1 is asked for again, so 2 goes for 3
  local ask = new_lru(2)
  for _, step in ipairs { { 1, false }, { 2, false }, { 1, true }, { 3, false }, { 1, true }, { 2, false } } do
    assert(ask(step[1]) == step[2], "the LRU to compare with is none")
  end
end

--- The share of hits among the requests of the Zipf part; a walk cannot hit.
local function ratio(requests, ask)
  local hits, asked = 0, 0
  for _, key in ipairs(requests) do
    local is_hit = ask(key)
    if key <= KEYS then
      asked = asked + 1
      if is_hit then hits = hits + 1 end
    end
  end
  return hits / asked
end

local results = {}
for _, exponent in ipairs { 0.8, 1.0 } do
  for _, has_walks in ipairs { false, true } do
    local requests = trace(exponent, has_walks)
    local ours, theirs = ratio(requests, new_sieve(SIZE)), ratio(requests, new_lru(SIZE))
    local name = ("zipf %.1f%s"):format(exponent, has_walks and " with walks" or "")
    results[#results + 1] = { trace = name, requests = #requests, sieve = ours, lru = theirs }
    print(("%-20s %8d requests: SIEVE %.1f %%, LRU %.1f %%"):format(name, #requests, ours * 100, theirs * 100))
  end
end
common.keep("hit_ratio", { keys = KEYS, size = SIZE, walk_every = WALK_EVERY, walk = WALK, traces = results })

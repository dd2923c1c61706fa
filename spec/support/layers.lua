-- layers.lua -- what the specs of the near cache and the filter share.
local child = require "support.child"

local layers = { STALENESS = 0.5 } -- seconds; what "within" means there

--- A cache of `db` (support.database) whose layers are ready.
function layers.open(db, opts)
  local options = { feed = true, max_staleness = layers.STALENESS, feed_interval = 0.02 }
  for name, value in pairs(opts or {}) do options[name] = value end
  local cache = db:open(options)
  if opts == nil or opts.feed ~= false then assert(cache:wait_ready(20)) end
  return cache
end

--- Who answered for the key: "near", "filter" or "db".
function layers.source(cache, key)
  local _, err, from = cache:get(key)
  if err then error(err, 2) end
  return from
end

--- Has the near cache hold the key.  Our own writes come back by the feed and void an early copy, so they are awaited.
function layers.warm(cache, key)
  assert(cache:wait_ready(20))
  local first, second = layers.source(cache, key), layers.source(cache, key)
  if first ~= "db" or second ~= "near" then error(("answered by %s, then %s"):format(first, second), 2) end
end

--- Lets time pass for what a cache keeps in its near cache.
---@param seconds number
function layers.age(cache, seconds)
  local near = cache.near
  for _, shelf in ipairs { near.present, near.absent } do
    for slot = 1, shelf.sieve.last_slot do
      local spot, stamp, ends = shelf.terms:get(slot)
      shelf.terms:put(slot, spot, stamp, ends - seconds)
    end
    for _, times in ipairs { shelf.lives, shelf.spared } do
      for slot in pairs(times) do times[slot] = times[slot] - seconds end
    end
  end
end

--- Runs code in another process with a cache of its own as `cache`.
function layers.elsewhere(db, code)
  local result = child.run(([[
    local cache = assert(require("fpcache").new { connection_string = ..., feed = false })
    %s
    cache:close()]]):format(code), { db:url_of() })
  if result.status ~= 0 then error(result.output, 2) end
end

return layers

--- What a cache can tell about itself.
local Cache = require("fpcache.client")

local OFF = "off"

local function near_stats(near, feed)
  if not near then return { state = OFF } end
  local stats = near:stats()
  stats.state = feed and feed.state or OFF -- it answers while the feed is fresh
  return stats
end

local function filter_stats(feed, counts)
  local filter = feed and feed.filter or { state = OFF }
  if filter.state ~= OFF then
    filter.absent, filter.false_positives = counts.absent, counts.false_positives
  end
  return filter
end

--- What this process counted, layer by layer, its pool, and the table as the server estimates it.
--
-- States: "off"; "loading" (not ready yet); "fresh" (answers); "stale" (has lost touch: the server answers).
-- hits and misses are those of get and get_many, whichever layer answered.  docs/near.md explains each number.
---@return table stats { hits, misses, sets, near, filter, feed, pool, server } or, without an answer of the server, server_error
function Cache:stats()
  local counts, feed = self.counts, self.feed:stats()
  local near = near_stats(self.near, feed)
  local found, rows, bytes, unlogged = self.db:row(self.statements.table_stats, self.timeout)
  return {
    hits = counts.hits + (near.hits or 0),
    misses = counts.misses + counts.absent + (near.negative_hits or 0),
    sets = counts.sets,
    near = near,
    filter = filter_stats(feed, counts),
    feed = feed or { state = OFF },
    pool = self.pool:stats(),
    server = found and { rows = rows, bytes = bytes, unlogged = unlogged } or nil,
    server_error = not found and rows or nil,
  }
end

return Cache

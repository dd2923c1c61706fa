--- What a cache can tell about itself.
local options = require("fpcache.options")
local Cache = require("fpcache.client")

local OFF = "off"
local STATS_OPTIONS = { server = { type = "boolean", default = true } }

local function near_stats(near, feed)
  if not near then return { state = OFF } end
  local stats = near:stats()
  stats.state = feed.feed -- it answers while the feed is fresh
  return stats
end

local function filter_stats(feed, counts)
  if feed.filter == OFF then return { state = OFF } end
  return {
    state = feed.filter, absent = counts.absent, false_positives = counts.false_positives,
    keys = feed.filter_keys, capacity = feed.filter_capacity, bytes = feed.filter_bytes, fpr = feed.filter_fpr,
    false_positives_since_load = feed.filter_dead, load_seconds = feed.filter_load_s, reloads = feed.reloads,
    load_failures = feed.load_failures,
  }
end

local function feed_stats(feed)
  if feed.feed == OFF then return { state = OFF } end
  return {
    state = feed.feed, lag = feed.lag_s, polls = feed.polls, poll_failures = feed.poll_failures, changes = feed.changes,
    fell_behind = feed.fell_behind, listening = feed.listening, wakeups = feed.wakeups, position = feed.position,
    incarnation = feed.incarnation, incarnation_changes = feed.incarnation_changes, last_error = feed.last_error,
  }
end

local function policy_stats(flow)
  local stats = { breaker = flow.breaker:state(), breaker_opened = flow.breaker.opened, last_error = flow.last_error }
  for name, count in pairs(flow.counts) do stats[name] = count end
  return stats
end

--- What this process counted, layer by layer, its pool, and the table as the server estimates it.
--
-- States: "off"; "loading" (not ready yet); "fresh" (answers); "stale" (has lost touch: the server answers).
-- hits and misses are those of get and get_many, whichever layer answered.  docs/near.md explains each number.
---@param opts table? { server = false }: without asking the server
---@return table? stats { hits, misses, sets, near, filter, feed, pool, pipeline, token, policies, shared, later, server,
-- events };
-- server_error instead of server when it did not answer; events only where something watches; nil only of a closed cache
---@return string? err
function Cache:stats(opts)
  local counts, feed = self.counts, self.feed:stats()
  local near = near_stats(self.near, feed)
  local found, rows, bytes, unlogged
  if options.read(STATS_OPTIONS, opts, 2).server then
    found, rows, bytes, unlogged = self.db:row(self.statements.table_stats, self.timeout)
    if not found and rows:find("^closed:") then return nil, rows end
  end
  return {
    hits = counts.hits + (near.hits or 0),
    misses = counts.misses + counts.absent + (near.negative_hits or 0),
    sets = counts.sets,
    near = near,
    filter = filter_stats(feed, counts),
    feed = feed_stats(feed),
    pool = self.pool:stats(),
    pipeline = self.pool:pipeline_stats(),
    policies = policy_stats(self.flow),
    shared = self.shared and self.shared:stats() or { state = OFF },
    later = self.later:stats(),
    token = self.pool:token(),
    server = found and { rows = rows, bytes = bytes, unlogged = unlogged } or nil,
    server_error = not found and rows or nil,
    events = self.watch and self.watch:stats() or nil,
  }
end

return Cache

--- The layers that answer before the server: the near cache and the filter, both true by the change feed.
--
-- One feed for each database, schema and login of a process follows what everybody changes (include/fpcache/feed.h).
-- Namespace views of a cache share its layers.
local announce = require("fpcache.announce")
local core = require("fpcache.core")
local fast_feed = require("fpcache.fast_feed")
local loop = require("fpcache.loop")
local near_cache = require("fpcache.near")
local options = require("fpcache.options")
local statements = require("fpcache.statements")
local waiting = require("fpcache.waiting")

local layers = {}

layers.OPTIONS = {
  feed = { type = "boolean", default = true }, -- false: no near cache, no filter, no thread
  feed_interval = { type = "duration", default = 0.1, check = options.positive }, -- seconds between two looks at it
  feed_listen = { type = "boolean", default = false }, -- true: changes by others who say so too wake the reader, by NOTIFY
  max_staleness = { type = "duration", default = 1, check = options.positive },   -- seconds an answer may be old
  use_cuckoo_filter = { type = "boolean", default = true },
  cuckoo_capacity = { type = "integer", default = 1000000, check = options.positive }, -- keys; it grows
  filter_fpr = { type = "number", default = 0.001, check = options.share }, -- absent keys that are asked for all the same
  near_size = { type = "integer", default = 10000, check = options.not_negative }, -- entries; 0 turns it off
  near_bytes = { type = "integer", default = 32 * 1024 * 1024, check = options.positive }, -- encoded values and keys
  near_ttl = { type = "duration", default = 60, check = options.positive },          -- seconds at most
  near_copy = { type = "boolean", default = false }, -- true: each get has a table of its own
  near_negative_size = { type = "integer", default = 1000, check = options.not_negative }, -- entries
  shared_dict = { type = "string" }, -- the lua_shared_dict of nginx that its workers share between near cache and server
  near_negative_ttl = { type = "duration", default = 10, check = options.positive }, -- seconds
}

--- Opens the layers that are asked for.  Does not wait for the server.
---@param o table as options.read() gives it
---@param quoted_schema string
---@param pool userdata whose connections lead to the same place
---@return table? feed, fpcache.Near|string|nil near_or_err
---@return function? look of the feed, for usual keys: see fast_feed.bind_look()
---@return table? shared the tier that the workers of an nginx share
function layers.open(o, quoted_schema, pool)
  local has_near = o.near_size > 0
  if o.shared_dict and not loop.is_nginx then return nil, "invalid: shared_dict is for nginx, whose workers share it" end
  if not o.feed or not (has_near or o.use_cuckoo_filter or o.shared_dict) then
    if o.shared_dict then return nil, "invalid: shared_dict needs the feed, which tells what is current (feed = false)" end
    return announce.none
  end
  local feed, err = core.feed(pool, {
    statements = statements.feed(quoted_schema),
    schema = quoted_schema, interval = o.feed_interval, max_staleness = o.max_staleness,
    connect_timeout = o.connect_timeout, prepared = o.prepared, listen = o.feed_listen,
    filter = o.use_cuckoo_filter, filter_capacity = o.cuckoo_capacity, filter_fpr = o.filter_fpr,
  })
  if not feed then return nil, err end
  feed = fast_feed.of(feed)
  local shared
  if o.shared_dict then
    shared, err = require("fpcache.nginx.shared").open(o, feed)
    if not shared then
      feed:close()
      return nil, err
    end
  end
  local look = fast_feed.bind_look(feed, math.min(o.max_key_bytes, core.KEY_INLINE))
  local near = has_near and near_cache.new {
    feed = feed, new_terms = fast_feed.terms, now = core.system.now,
    size = o.near_size, bytes = o.near_bytes, ttl = o.near_ttl, copy = o.near_copy,
    negative_size = o.near_negative_size, negative_ttl = o.near_negative_ttl,
  } or nil
  return feed, near, look, shared
end

--- Takes note that the server was asked for keys that it does not have, although the filter was asked before.  Of many such
-- questions the filter is loaded anew.
---@param cache fpcache.Cache
---@param keys integer how many
function layers.asked_in_vain(cache, keys)
  cache.counts.false_positives = cache.counts.false_positives + keys
  cache.feed:missed(keys)
end

--- Why the feed is not ready yet.
local function trouble(stats)
  if stats.last_error ~= "" then return stats.last_error end
  return stats.feed == "fresh" and "the filter is still being loaded" or "no poll has succeeded"
end

--- Waits until the feed is fresh by a look that began after this call, and its filter is loaded.  Others run meanwhile where they
-- can.
---@param timeout number seconds
---@return boolean? true, string? err
function layers.wait_ready(feed, timeout)
  local refused = loop.refusal()
  if refused then return nil, refused end
  if not waiting.lets_others_run() or feed:stats().feed == "off" then return feed:wait_fresh(timeout) end
  local began, stats = core.system.now(), nil
  local ready = waiting.poll(timeout, function()
    stats = feed:stats()
    local filter = stats.filter
    return stats.feed == "fresh" and stats.lag_s < core.system.now() - began and (filter == "off" or filter == "fresh")
  end)
  if ready then return true end
  return nil, "timeout: the feed did not get fresh: " .. (stats and trouble(stats) or "there was no time")
end

return layers

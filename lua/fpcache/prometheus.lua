--- What a cache can tell about itself, as the text that Prometheus scrapes (exposition format 0.0.4).
local exposition = require("fpcache.exposition")
local options = require("fpcache.options")
local Cache = require("fpcache.client")

-- name, type, help, layer and field of cache:stats(); a counter's name ends in _total, units are base units.
local METRICS = {
  { "hits_total", "counter", "Lookups that found their key, whichever layer answered.", nil, "hits" },
  { "misses_total", "counter", "Lookups that found no key.", nil, "misses" },
  { "sets_total", "counter", "Entries stored.", nil, "sets" },
  { "near_hits_total", "counter", "Lookups answered by the near cache.", "near", "hits" },
  { "near_negative_hits_total", "counter", "Lookups that the near cache knew to be absent.", "near", "negative_hits" },
  { "near_misses_total", "counter", "Lookups that the near cache could not answer.", "near", "misses" },
  { "near_invalidated_total", "counter", "Entries dropped because somebody changed them.", "near", "invalidated" },
  { "near_evictions_total", "counter", "Entries dropped for want of room.", "near", "evictions" },
  { "near_entries", "gauge", "Entries in the near cache.", "near", "entries" },
  { "near_bytes", "gauge", "Bytes in the near cache.", "near", "bytes" },
  { "shared_hits_total", "counter", "Lookups answered by what the workers of an nginx share.", "shared", "hits" },
  { "shared_misses_total", "counter", "Lookups of which the workers shared nothing.", "shared", "misses" },
  { "shared_refused_total", "counter", "Shared entries that may have been out of date.", "shared", "refused" },
  { "filter_absent_total", "counter", "Lookups answered absent by the filter.", "filter", "absent" },
  { "filter_false_positives_total", "counter", "Lookups that the filter sent to the server in vain.", "filter",
    "false_positives" },
  { "filter_keys", "gauge", "Keys in the filter.", "filter", "keys" },
  { "filter_capacity_keys", "gauge", "Keys the filter has room for.", "filter", "capacity" },
  { "filter_bytes", "gauge", "Bytes of the filter.", "filter", "bytes" },
  { "filter_dead_keys", "gauge", "Keys in the filter that are deleted already.", "filter", "dead" },
  { "filter_reloads_total", "counter", "Times the filter was loaded.", "filter", "reloads" },
  { "filter_load_failures_total", "counter", "Times loading the filter failed.", "filter", "load_failures" },
  { "feed_lag_seconds", "gauge", "Age of what is known of others' changes.", "feed", "lag" },
  { "feed_polls_total", "counter", "Polls of the change feed.", "feed", "polls" },
  { "feed_poll_failures_total", "counter", "Polls that failed.", "feed", "poll_failures" },
  { "feed_changes_total", "counter", "Changes by anybody that were learned.", "feed", "changes" },
  { "feed_wakeups_total", "counter", "Polls that began early because a writer woke the reader.", "feed", "wakeups" },
  { "feed_fell_behind_total", "counter", "Times the feed was cut before it was read.", "feed", "fell_behind" },
  { "feed_incarnation_changes_total", "counter", "Wipes of the table that were noticed.", "feed", "incarnation_changes" },
  { "pool_idle_connections", "gauge", "Connections in nobody's hands.", "pool", "idle" },
  { "pool_lent_connections", "gauge", "Connections in use.", "pool", "lent" },
  { "pool_waiting_callers", "gauge", "Callers that wait for a connection.", "pool", "waiting" },
  { "pool_opened_total", "counter", "Connections opened.", "pool", "opened" },
  { "pool_open_failures_total", "counter", "Connections that could not be opened.", "pool", "open_failures" },
  { "pool_closed_broken_total", "counter", "Connections closed because they broke.", "pool", "closed_broken" },
  { "pool_waits_total", "counter", "Calls that had to wait for a connection.", "pool", "waits" },
  { "pool_wait_timeouts_total", "counter", "Calls that waited for a connection in vain.", "pool", "wait_timeouts" },
  { "token_expires_seconds", "gauge", "Until the password of new connections ends, where that is known.", "token",
    "expires_in" },
  { "token_refreshes_total", "counter", "Passwords fetched from their source.", "token", "refreshes" },
  { "token_failures_total", "counter", "Fetches of a password that failed.", "token", "failures" },
  { "token_refusals_total", "counter", "Passwords that the server refused.", "token", "refusals" },
  { "later_queued", "gauge", "Writes by set_later and delete_later that are not done yet.", "later", "queued" },
  { "later_done_total", "counter", "Writes done later.", "later", "done" },
  { "later_failed_total", "counter", "Writes later that failed.", "later", "failed" },
  { "later_dropped_total", "counter", "Writes later that were refused, since too many waited.", "later", "dropped" },
  { "server_rows", "gauge", "Rows of the table, all users, the server's estimate.", "server", "rows" },
  { "server_bytes", "gauge", "Bytes of the table with its indexes.", "server", "bytes" },
}

-- The layers that have a state, one series for each state.
local LAYERS = { "near", "filter", "feed" }
local STATES = { "off", "loading", "fresh", "stale" }

local function check_labels(labels)
  for name, value in pairs(labels) do
    if type(name) ~= "string" or not name:find("^[%a_][%w_]*$") or name:find("^__") then
      return "a label's name has letters, digits and _"
    end
    if type(value) ~= "string" and type(value) ~= "number" then return "a label's value is a string" end
  end
end

local OPTIONS = { labels = { type = "table", check = check_labels } } -- more labels, such as { service = "shop" }

--- The text that Prometheus scrapes: every number of stats(), labelled with schema and namespace.
--
-- `fpcache_up` is 0 when the server did not answer; the numbers of this process are there all the same.
---@param opts table? { labels = { name = value } }
---@return string? text content type "text/plain; version=0.0.4"
---@return string? err only of a closed cache
function Cache:prometheus(opts)
  local read = options.read(OPTIONS, opts, 2)
  local stats, err = self:stats()
  if not stats then return nil, err end
  local labels = { schema = self.schema, namespace = self.space }
  for name, value in pairs(read.labels or {}) do labels[name] = value end
  local add, text, lines = exposition.add, exposition.labels(labels), {}
  add(lines, "up", "gauge", "Whether the server answered.", { { text, stats.server and 1 or 0 } })
  for _, metric in ipairs(METRICS) do
    local name, kind, help, layer, field = metric[1], metric[2], metric[3], metric[4], metric[5]
    local from = stats
    if layer then from = stats[layer] or {} end
    local value = tonumber(from[field])
    if value then add(lines, name, kind, help, { { text, value } }) end
  end
  local series = {}
  for _, layer in ipairs(LAYERS) do
    for _, state in ipairs(STATES) do
      local own = ('%s,layer="%s",state="%s"'):format(text, layer, state)
      series[#series + 1] = { own, stats[layer].state == state and 1 or 0 }
    end
  end
  add(lines, "layer_state", "gauge", "1 for the state that a layer is in.", series)
  return table.concat(lines, "\n") .. "\n"
end

return Cache

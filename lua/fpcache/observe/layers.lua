--- What changed about the layers of a cache since the last look: states of the feed and the filter, wipes of the table, the
-- breaker, the password, connections that broke.
local Looker = {}
Looker.__index = Looker

local layers = {}

---@param cache fpcache.Cache
function layers.new(cache)
  local self = setmetatable({ cache = cache, last = {} }, Looker)
  self:changes()
  return self
end

--- Notes a state; adds an event when it is another one than before.
local function state(self, events, name, value, err)
  local before = self.last[name]
  self.last[name] = value
  if before ~= nil and value ~= nil and before ~= value then
    events[#events + 1] = { name = name, from = before, to = value, error = err }
  end
end

--- Notes a count; adds an event when it has grown.
local function count(self, events, name, what, value, err)
  local place = name .. " " .. what
  local before = self.last[place]
  self.last[place] = value
  if before and value and value > before then
    events[#events + 1] = { name = name, what = what, count = value - before, error = err }
  end
end

--- The changes since the last call.
---@return table[] events { name, from, to } or { name, what, count }, and error where it is known
function Looker:changes()
  local events, cache = {}, self.cache
  local feed, breaker = cache.feed:stats(), cache.flow.breaker
  state(self, events, "feed", feed.feed, feed.last_error)
  state(self, events, "filter", feed.filter, feed.last_error)
  state(self, events, "incarnation", feed.incarnation)
  count(self, events, "feed", "fell_behind", feed.fell_behind)
  count(self, events, "filter", "reloaded", feed.reloads)
  state(self, events, "breaker", breaker:state(), breaker.last_error)
  local pool, token = cache.pool:stats() or {}, cache.pool:token()
  count(self, events, "pool", "open_failed", pool.open_failures)
  count(self, events, "pool", "broken", pool.closed_broken)
  if token then
    count(self, events, "token", "refreshed", token.refreshes)
    count(self, events, "token", "failed", token.failures, token.last_error)
    count(self, events, "token", "refused", token.refusals, token.last_error)
  end
  return events
end

return layers

--- Tags: names that an entry may have more than one of, by which it is found and invalidated.  See docs/tags.md.
local announce = require("fpcache.announce")
local flights = require("fpcache.policy.flights")
local limits = require("fpcache.limits")
local options = require("fpcache.options")
local Cache = require("fpcache.client")

local INVALIDATE_OPTIONS = { expire = { type = "boolean" } } -- true: expires them; what may be given as stale is kept

--- Deletes every key of this namespace that has the tag, or any of a list of tags.
---@param tags string|string[]
---@param opts table? { expire = true } only ends their life
---@return integer? deleted how many there were
---@return string? err
function Cache:invalidate_tag(tags, opts)
  local name = options.read(INVALIDATE_OPTIONS, opts, 2).expire and "expire_tags" or "invalidate_tags"
  local list, err = limits.tags(tags, 2)
  if not list then return nil, err end
  if #list == 0 then return 0 end
  local rows, count = self.db:rows(self.statements[name], self.bulk_timeout, self.space, list)
  flights.forget(self.flow.flights, self.space) -- not only what had the tag: a loader may be about to name it
  if rows then
    self.feed:wrote_keys(self.seed, rows)
    return count
  end
  if not announce.is_surely_undone(count) then self.feed:wrote_all() end -- nobody knows which
  return nil, count
end

--- The tags of a key, in order.
---@param key string
---@return string[]? tags empty when it has none; nil when there is no such key
---@return string? err
function Cache:tags(key)
  local stored, err = limits.stored_key(key, self.max_key_bytes, 2)
  if not stored then return nil, err end
  local rows, count = self.db:rows(self.statements.tags_of, self.timeout, self.space, stored)
  if not rows then return nil, count end
  if count == 1 and not rows[1] then return {} end
  if count == 0 then return nil end
  return rows
end

return Cache

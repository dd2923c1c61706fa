--- What fetch keeps of the server's answers near by: in this process's near cache, and in what the workers of an nginx share.
local lifetimes = require("fpcache.policy.lifetimes")
local near_cache = require("fpcache.near")
local now = require("fpcache.core").system.now

local ABSENT = near_cache.ABSENT

local nearby = {}

---@class fpcache.Look
---@field stored string the key as it is stored
---@field spot number
---@field stamp number of before the value was asked for
---@field asked_at number

--- Looks where a key's news are noted, before the server is asked for it.
---@param self fpcache.Cache
---@param stored string
---@return fpcache.Look? look nil: nothing can be kept now
function nearby.look(self, stored)
  local _, spot, stamp = self.feed:look(self.seed, stored)
  if stamp then return { spot = spot, stamp = stamp, asked_at = now(), stored = stored } end
end

--- Keeps a hit of the server.
---@param look fpcache.Look
---@param key string
---@param policy fpcache.Policy
---@param left number seconds it lives; -1: without end
---@param bytes integer of its encoded form
---@param age number?
---@param cost number? seconds that loading it took
function nearby.keep(self, look, key, policy, value, left, bytes, age, cost)
  local seconds = lifetimes.near(policy, left, age, cost)
  if seconds == 0 then return end
  local near, shared = self.near, self.shared
  if near then near:put(self.space, key, value, bytes, look.asked_at, seconds, look.spot, look.stamp, left) end
  if shared then shared:keep(self, look.stored, value, look.asked_at, seconds) end
end

--- Keeps that a loader said that there is none.
---@param seconds number for which that counts
function nearby.keep_absent(self, look, key, seconds)
  if self.near then self.near:put_absent(self.space, key, look.asked_at, look.spot, look.stamp, seconds) end
end

--- What the workers of this nginx share of a key.
---@return any value
function nearby.shared(self, look, key)
  local value, bytes, asked_at, ttl = self.shared:find(self, look.stored, look.spot)
  if value == nil or value == ABSENT then return nil end
  self.counts.hits = self.counts.hits + 1
  if self.near then self.near:put(self.space, key, value, bytes, asked_at, ttl, look.spot, look.stamp) end
  return value
end

return nearby

--- The near cache: decoded values in this Lua state, answered without asking anybody.
--
-- An entry is valid as long as the stamp of its key has not moved since before the value was asked for, the feed is
-- fresh (see include/fpcache/feed.h), and neither near_ttl nor the entry's own life has ended.  These are its terms; one call
-- of `is_current` answers all of that (include/fpcache/terms.h).  Nothing is ever pushed into the near cache from outside:
-- what is no longer valid is noticed when it is asked for, and gives way to what is loaded then.
--
-- A value whose time here is over is kept for as long as there is room: fetch may give it while the server cannot be asked
-- (`remembered`), and nobody else ever gets it.  It is the first to go once it was asked for.
--
-- "There is no such key" is remembered as well, within a budget of its own: a flood of misses evicts no value.  So is that a
-- loader of fetch said so, which for fetch is an answer, as the mere absence of a key is not.
local sieve = require("fpcache.sieve")

local ABSENT = {}      -- "the server has no such key", remembered
local TOLD = {}        -- that besides a loader said that there is none
local OVERHEAD = 200   -- bytes that an entry costs beside its key and value
local LARGEST_PART = 4 -- no value takes more than this part of the budget
local NEGATIVE_BYTES = 1024 + OVERHEAD -- of the longest key that is stored whole

---@class fpcache.Near
local Near = {}
Near.__index = Near

local near = { ABSENT = ABSENT, OVERHEAD = OVERHEAD }

--- A shelf: entries in SIEVE order, and their terms by slot.  What no hit needs stands apart.
local function new_shelf(opts, max_entries, max_bytes)
  local terms, is_current = opts.new_terms(opts.feed)
  return {
    sieve = sieve.new(max_entries, max_bytes), terms = terms, is_current = is_current,
    over = {},   -- true: that the entry's time is over has been counted
    lives = {},  -- when the entry's life at the server ends
    spared = {}, -- until then it is not to be loaded anew
  }
end

---@class fpcache.near.Options
---@field feed table|userdata with stamp(feed, spot), as far as it is known
---@field new_terms function see fast_feed.terms()
---@field now fun(): number seconds on the clock that `ends` is compared with
---@field size integer entries
---@field bytes number keys, encoded values and overhead
---@field ttl number seconds
---@field negative_size integer entries
---@field negative_ttl number seconds
---@field copy boolean hand out deep copies

--- What a hit needs, at hand.
local function refresh(self)
  local shelf = self.present
  self.spaces, self.values, self.visited = shelf.sieve.spaces, shelf.sieve.values, shelf.sieve.visited
  self.is_current, self.absent_spaces = shelf.is_current, self.absent.sieve.spaces
end

---@param opts fpcache.near.Options
---@return fpcache.Near
function near.new(opts)
  local self = setmetatable({
    feed = opts.feed, now = opts.now,
    ttl = opts.ttl, negative_ttl = opts.negative_ttl, copy = opts.copy,
    largest = opts.bytes / LARGEST_PART,
    present = new_shelf(opts, opts.size, opts.bytes),
    absent = new_shelf(opts, opts.negative_size, opts.negative_size * NEGATIVE_BYTES),
    misses = 0, expired = 0, invalidated = 0,
  }, Near)
  refresh(self)
  return self
end

local function deep_copy(value, done)
  if type(value) ~= "table" then return value end
  if done[value] then return done[value] end
  local copy = {}
  done[value] = copy
  for k, v in next, value do copy[deep_copy(k, done)] = deep_copy(v, done) end
  return setmetatable(copy, getmetatable(value))
end

--- The terms of an entry.
---@return boolean unchanged nothing is known to have happened to its key, however old that knowledge is
---@return number ends
local function terms_of(self, shelf, slot)
  local spot, stamp, ends = shelf.terms:get(slot)
  return self.feed:stamp(spot) == stamp, ends
end

--- Why an entry is not current.  While the feed is stale nobody knows, so the entry stays; so does a value whose time is over.
local function reconsider(self, shelf, slot)
  local unchanged, ends = terms_of(self, shelf, slot)
  local is_over = self.now() >= ends
  if is_over and not shelf.over[slot] then
    self.expired = self.expired + 1
  elseif not is_over and not unchanged then
    self.invalidated = self.invalidated + 1
  end
  if not unchanged or is_over and shelf == self.absent then return shelf.sieve:remove(slot) end
  if is_over then shelf.over[slot], shelf.sieve.visited[slot] = true, false end
end

--- Whether an absence that is remembered still holds.
local function is_still_absent(self, slot)
  local shelf = self.absent
  if shelf.is_current(slot) then
    shelf.sieve.visited[slot] = true
    return true, shelf.sieve.values[slot] == TOLD
  end
  reconsider(self, shelf, slot)
  return false
end

--- The value of a key; near.ABSENT when the server had none; nil when only the server knows.
---@param name string namespace
---@param key string
---@return any value shared by all callers, unless copies were asked for
---@return boolean? is_told of near.ABSENT: a loader said that there is none
function Near:get(name, key)
  local slots = self.spaces[name]
  local slot = slots and slots[key]
  if slot then
    if self.is_current(slot) then
      self.visited[slot] = true
      if self.copy then return deep_copy(self.values[slot], {}) end
      return self.values[slot]
    end
    reconsider(self, self.present, slot)
  else
    slots = self.absent_spaces[name]
    slot = slots and slots[key]
    if slot then
      local is_absent, is_told = is_still_absent(self, slot)
      if is_absent then return ABSENT, is_told end
    end
  end
  self.misses = self.misses + 1
  return nil
end

--- The value of a key although nobody can say whether it is current, for who has lost touch with the server.  Not one that is
--- known to be out of date.
---@param name string namespace
---@param key string
---@param grace number seconds after the end of its life at the server
---@return any value
---@return boolean? is_due its time here is over, so that it is better loaded anew
function Near:remembered(name, key, grace)
  local shelf = self.present
  local slot = shelf.sieve:find(name, key)
  if not slot then return nil end
  local now, unchanged, ends = self.now(), terms_of(self, shelf, slot)
  if now >= shelf.lives[slot] + grace or not unchanged then return nil end
  local value = shelf.sieve.values[slot]
  if self.copy then value = deep_copy(value, {}) end
  return value, now >= ends and now >= shelf.spared[slot]
end

--- Loading a value anew that is remembered has failed: it is not due for a while.
---@param seconds number
function Near:spare(name, key, seconds)
  local slot = self.present.sieve:find(name, key)
  if slot then self.present.spared[slot] = self.now() + seconds end
end

local function keep(shelf, name, key, value, size, ends, spot, stamp)
  local slot = shelf.sieve:put(name, key, value, size)
  if not slot then return nil end
  if not shelf.terms:put(slot, spot, stamp, ends) then -- no memory: without its terms it is worth nothing
    shelf.sieve:remove(slot)
    return nil
  end
  shelf.over[slot] = nil
  return slot
end

local function forget(shelf, name, key)
  local slot = shelf.sieve:find(name, key)
  if slot then shelf.sieve:remove(slot) end
end

--- Keeps a value that was loaded from the server.
---@param value any not nil; kept as it is, or as a copy
---@param bytes integer its encoded size
---@param asked_at number when it was asked for
---@param ttl number seconds for which it may be given; negative: no expiry
---@param spot number
---@param stamp number taken before the value was asked for
---@param life number? seconds it had to live then, where that is more; negative: no expiry
function Near:put(name, key, value, bytes, asked_at, ttl, spot, stamp, life)
  forget(self.absent, name, key)
  local size = bytes + #key + OVERHEAD
  if size > self.largest then return forget(self.present, name, key) end
  if self.copy then value = deep_copy(value, {}) end
  life = life or ttl
  if ttl < 0 or ttl > self.ttl then ttl = self.ttl end
  local shelf = self.present
  local old = shelf.sieve:find(name, key)
  if old and shelf.over[old] then shelf.sieve:remove(old) end -- its place in the order is that of a new one
  local slot = keep(shelf, name, key, value, size, asked_at + ttl, spot, stamp)
  if slot then shelf.lives[slot], shelf.spared[slot] = life < 0 and math.huge or asked_at + life, 0 end
end

--- Remembers that the server had no such key.
---@param asked_at number
---@param spot number
---@param stamp number taken before the server was asked
---@param told_for number? seconds for which it counts that a loader said so
function Near:put_absent(name, key, asked_at, spot, stamp, told_for)
  forget(self.present, name, key)
  keep(self.absent, name, key, told_for and TOLD or ABSENT, #key + OVERHEAD,
    asked_at + math.min(self.negative_ttl, told_for or math.huge), spot, stamp)
end

--- The encoded size of a value that is kept, valid or not.
---@return integer? bytes
function Near:bytes_of(name, key)
  local present = self.present.sieve
  local slot = present:find(name, key)
  return slot and present.sizes[slot] - #key - OVERHEAD
end

--- Forgets a key.
function Near:drop(name, key)
  forget(self.present, name, key)
  forget(self.absent, name, key)
end

near.get = Near.get -- for who has no time to look for a method

--- Forgets everything.
function Near:clear()
  self.present.sieve:clear()
  self.absent.sieve:clear()
  refresh(self)
end

--- Counts: hits, negative_hits, misses, entries, negative_entries, bytes, evictions, invalidated, expired.
---@return table<string, number> stats
function Near:stats()
  local present, absent = self.present.sieve, self.absent.sieve
  return {
    hits = self.present.terms:held(), negative_hits = self.absent.terms:held(), misses = self.misses,
    invalidated = self.invalidated, expired = self.expired,
    entries = present.entries, negative_entries = absent.entries,
    bytes = present.bytes + absent.bytes, evictions = present.evictions + absent.evictions,
  }
end

return near

--- Values by (namespace, key) within a number of entries and of bytes; what goes first is decided by SIEVE.
--
-- Each entry lives in a slot, a small integer; all that is known of it stands in arrays at that place, so that a
-- hit makes no garbage.  The slots form a ring from the oldest to the newest, with 0 between the two ends.  A hit
-- sets the slot's `visited` and moves nothing.  To make room a hand walks from the oldest to the newest: it takes the
-- mark off what was visited, and the first without a mark goes; there the hand stops until the next time.
-- (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024.)  A walk over many keys once evicts mostly itself.

---@class fpcache.Sieve
---@field values table<integer, any> by slot
---@field visited table<integer, boolean> by slot; set by whoever finds it
---@field spaces table<string, table<string, integer>> namespace -> key -> slot
---@field entries integer
---@field bytes number
---@field evictions integer for want of room
local Sieve = {}
Sieve.__index = Sieve

local sieve = {}

---@param max_entries integer 0 keeps nothing
---@param max_bytes number sum of the sizes that the caller names
---@return fpcache.Sieve
function sieve.new(max_entries, max_bytes)
  local self = setmetatable({ max_entries = max_entries, max_bytes = max_bytes, evictions = 0 }, Sieve)
  self:clear()
  return self
end

--- Forgets everything.
function Sieve:clear()
  self.entries, self.bytes = 0, 0
  self.values, self.visited, self.keys, self.names, self.sizes = {}, {}, {}, {}, {}
  self.newer, self.older = { [0] = 0 }, { [0] = 0 } -- of 0: the oldest, the newest
  self.hand = 0                                     -- 0: begins at the oldest
  self.spaces, self.space_entries = {}, {}
  self.free, self.last_free, self.last_slot = {}, 0, 0
end

--- Forgets one slot.
---@param slot integer one in use
function Sieve:remove(slot)
  local name, newer, older = self.names[slot], self.newer, self.older
  local before, after = older[slot], newer[slot]
  newer[before], older[after] = after, before
  if self.hand == slot then self.hand = after end
  local left = self.space_entries[name] - 1
  if left == 0 then
    self.spaces[name], self.space_entries[name] = nil, nil
  else
    self.spaces[name][self.keys[slot]], self.space_entries[name] = nil, left
  end
  self.entries, self.bytes = self.entries - 1, self.bytes - self.sizes[slot]
  self.values[slot], self.keys[slot], self.names[slot] = nil, nil, nil
  self.last_free = self.last_free + 1
  self.free[self.last_free] = slot
end

--- Takes out one entry, never the one in slot `spared`.
local function evict(self, spared)
  local newer, visited, hand = self.newer, self.visited, self.hand
  while true do
    if hand == 0 then hand = newer[0] end
    if hand ~= spared then
      if not visited[hand] then break end
      visited[hand] = false
    end
    hand = newer[hand]
  end
  self.hand = newer[hand]
  self:remove(hand)
  self.evictions = self.evictions + 1
end

local function make_room(self, entries, bytes, spared)
  while self.entries + entries > self.max_entries or self.bytes + bytes > self.max_bytes do evict(self, spared) end
end

local function add(self, name, key)
  local slot = self.free[self.last_free]
  if slot then
    self.last_free = self.last_free - 1
  else
    slot = self.last_slot + 1
    self.last_slot = slot
  end
  local newer, older = self.newer, self.older
  local newest = older[0]
  newer[newest], older[0] = slot, slot
  newer[slot], older[slot] = 0, newest
  local keys = self.spaces[name]
  if not keys then
    keys = {}
    self.spaces[name], self.space_entries[name] = keys, 0
  end
  keys[key], self.space_entries[name] = slot, self.space_entries[name] + 1
  self.keys[slot], self.names[slot], self.visited[slot] = key, name, false
  self.entries = self.entries + 1
  return slot
end

--- The slot of a key, or nil.
---@return integer? slot
function Sieve:find(name, key)
  local keys = self.spaces[name]
  return keys and keys[key]
end

--- Keeps a value, evicting others for it.  A new value of a key that is there counts as a visit.
---@param name string namespace
---@param key string
---@param value any not nil
---@param size number bytes
---@return integer? slot nil when it is too large to be kept; then the key has none
function Sieve:put(name, key, value, size)
  local slot = self:find(name, key)
  if self.max_entries < 1 or size > self.max_bytes then
    if slot then self:remove(slot) end
    return nil
  end
  if slot then
    self.bytes, self.sizes[slot] = self.bytes - self.sizes[slot], 0
    make_room(self, 0, size, slot)
    self.visited[slot] = true
  else
    make_room(self, 1, size)
    slot = add(self, name, key)
  end
  self.values[slot], self.sizes[slot] = value, size
  self.bytes = self.bytes + size
  return slot
end

return sieve

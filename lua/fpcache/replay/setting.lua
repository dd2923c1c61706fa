--- One setting of a cache, and what a trace comes to under it.
--
-- The near caches and the filter are those that applications run, on the trace's clock.  The server is a model: it has what
-- was stored and has neither expired nor been deleted.  Changes reach every process at once.
local core = require("fpcache.core")
local near_cache = require("fpcache.near")

local ABSENT, SPACE = near_cache.ABSENT, ""
local DEFAULT_BYTES = 100 -- of a value of which nobody knows the size

---@class fpcache.replay.Setting
---@field keys integer that the server's model knows
local Setting = {}
Setting.__index = Setting

local setting = {}

local COUNTS = { "reads", "writes", "deletes", "near_hits", "near_absent", "filter_absent", "server_hits", "server_misses",
  "stale", "loads", "renewals", "server_bytes" }

---@class fpcache.replay.SettingOptions
---@field near_entries integer
---@field near_bytes number
---@field near_ttl number seconds
---@field near_negative_entries integer
---@field near_negative_ttl number seconds
---@field filter boolean
---@field ttl number? seconds: of everything that is stored, whatever the trace says
---@field policy table? { ttl, stale_ttl, refresh_ahead, sliding }: reads that find nothing load and store
---@field processes integer among which the calls go round
---@field sample number share of the keys that is played
---@field name string

---@param o fpcache.replay.SettingOptions
---@return fpcache.replay.Setting? setting
---@return string? err
function setting.new(o)
  local self = setmetatable({ o = o, name = o.name, clock = 0, turn = 0, near = {}, ends = {}, born = {}, sizes = {}, keys = 0,
    second = -1, this_second = 0, peak = 0 }, Setting)
  for _, name in ipairs(COUNTS) do self[name] = 0 end
  local feed = { stamp = function() return 1 end }
  if o.near_entries > 0 then
    for i = 1, o.processes do
      self.near[i] = near_cache.new {
        feed = feed, is_current = function(_, _, ends) return self.clock < ends and 1 or 0 end,
        now = function() return self.clock end, copy = false,
        size = math.max(math.floor(o.near_entries * o.sample + 0.5), 1), bytes = o.near_bytes * o.sample, ttl = o.near_ttl,
        negative_size = math.floor(o.near_negative_entries * o.sample + 0.5), negative_ttl = o.near_negative_ttl,
      }
    end
  end
  if o.filter then
    local err
    self.filter, err = core.filter(100000, 0.001, nil, true, nil)
    if not self.filter then return nil, err end
  end
  return self
end

--- A statement for the server.
local function ask(self)
  local second = math.floor(self.clock)
  if second ~= self.second then self.second, self.this_second = second, 0 end
  self.this_second = self.this_second + 1
  if self.this_second > self.peak then self.peak = self.this_second end
end

--- The server forgets a key.
local function forget(self, key)
  if not self.ends[key] then return end
  self.ends[key], self.born[key], self.sizes[key] = nil, nil, nil
  self.keys = self.keys - 1
  if self.filter then self.filter:delete(key) end
end

--- The server stores a key; the near caches learn it.
local function store(self, key, bytes, ttl)
  local o = self.o
  ttl = o.ttl or ttl
  if not self.ends[key] then
    self.keys = self.keys + 1
    if self.filter and not self.filter:insert(key) then self.filter = nil end -- no memory: it says nothing any more
  end
  self.ends[key], self.born[key] = ttl and self.clock + ttl or math.huge, self.clock
  self.sizes[key] = bytes or self.sizes[key] or DEFAULT_BYTES
  for _, near in ipairs(self.near) do near:drop(SPACE, key) end
end

--- Loads a key at its origin and stores it.
local function load(self, key, bytes, ttl)
  local policy = self.o.policy
  self.loads, self.writes = self.loads + 1, self.writes + 1
  ask(self)
  store(self, key, bytes, policy and policy.ttl or ttl)
end

--- What the server has: "fresh", "stale" or nil; seconds that it still lives.
local function look_up(self, key)
  local ends = self.ends[key]
  if not ends then return nil end
  local left, policy = ends - self.clock, self.o.policy
  if left > 0 then return "fresh", left end
  if policy and policy.stale_ttl and left + policy.stale_ttl > 0 then return "stale" end
  forget(self, key)
end

--- An entry that was found: its life is prolonged, or it is loaded anew before its end.
local function renew(self, key, policy)
  local age = self.clock - self.born[key]
  if policy.sliding and age > 0.1 * policy.ttl then
    self.ends[key], self.born[key] = self.clock + policy.ttl, self.clock
    self.writes = self.writes + 1
    ask(self)
  elseif policy.refresh_ahead and age > policy.refresh_ahead * policy.ttl then
    self.renewals = self.renewals + 1
    load(self, key)
  end
end

--- `fills`: what is not found is loaded; `keeps`: the near cache keeps the answer.
local function read(self, key, bytes, ttl, fills, keeps)
  local near, policy = nil, self.o.policy
  self.reads = self.reads + 1
  if #self.near > 0 then
    self.turn = self.turn % #self.near + 1
    near = self.near[self.turn]
    local value = near:get(SPACE, key)
    if value == ABSENT and not fills then
      self.near_absent = self.near_absent + 1
      return
    elseif value ~= nil and value ~= ABSENT then
      self.near_hits = self.near_hits + 1
      return
    end
  end
  if self.filter and not self.filter:lookup(key) then
    self.filter_absent = self.filter_absent + 1
    if fills then load(self, key, bytes, ttl) end
    return
  end
  ask(self)
  local found, left = look_up(self, key)
  if found == "fresh" then
    local size = bytes or self.sizes[key]
    self.server_hits, self.server_bytes = self.server_hits + 1, self.server_bytes + size
    if near and keeps then near:put(SPACE, key, true, size, self.clock, left, 0, 1) end
    if policy then renew(self, key, policy) end
  elseif found == "stale" then
    self.stale, self.server_bytes = self.stale + 1, self.server_bytes + self.sizes[key]
    load(self, key, bytes, ttl)
  else
    self.server_misses = self.server_misses + 1
    if fills then
      load(self, key, bytes, ttl)
    elseif near and keeps then
      near:put_absent(SPACE, key, self.clock, 0, 1)
    end
  end
end

--- Plays one call.
---@param time number seconds on the trace's clock
---@param op string
---@param key string
---@param bytes number? of the value
---@param ttl number?
---@param fills boolean whether a read that finds nothing loads
function Setting:play(time, op, key, bytes, ttl, fills)
  if time > self.clock then self.clock = time end -- it never goes back
  if op == "get" or op == "fetch" then
    return read(self, key, bytes, ttl, fills or op == "fetch" or self.o.policy ~= nil, true)
  elseif op == "exists" then
    return read(self, key, bytes, nil, false, false)
  end
  ask(self)
  if op == "set" then
    self.writes = self.writes + 1
    store(self, key, bytes, ttl)
  else
    self.deletes = self.deletes + 1
    forget(self, key)
    for _, near in ipairs(self.near) do near:drop(SPACE, key) end
  end
end

local function share(part, whole) return whole > 0 and part / whole or 0 end

--- A sample of the keys has more or fewer of the reads than its share, by which of the few hottest keys are in it.  What is
-- missing, or too much, is reads of hot keys, which hit: the correction of SHARDS (Waldspurger et al., FAST 2015).
---@param reads number that were to be expected
function Setting:correct(reads)
  local hits = #self.near > 0 and "near_hits" or "server_hits"
  local missing = math.max(math.floor(reads - self.reads + 0.5), -self[hits])
  if hits == "server_hits" and self.server_hits > 0 then
    self.server_bytes = self.server_bytes * (1 + missing / self.server_hits)
  end
  self[hits], self.reads = self[hits] + missing, self.reads + missing
end

--- What it came to.  Counts are of all keys, also where a sample was played.
---@return table result
function Setting:result()
  local result, scale = { name = self.name }, 1 / self.o.sample
  for _, name in ipairs(COUNTS) do result[name] = math.floor(self[name] * scale + 0.5) end
  local found, server_reads = self.near_hits + self.server_hits + self.stale, self.server_hits + self.server_misses + self.stale
  result.hit_ratio, result.near_ratio = share(found, self.reads), share(self.near_hits, self.reads)
  result.saved = 1 - share(server_reads, self.reads)
  result.statements = math.floor((server_reads + self.writes + self.deletes) * scale + 0.5)
  result.peak_per_second = math.floor(self.peak * scale + 0.5)
  local entries, bytes, evictions = 0, 0, 0
  for _, near in ipairs(self.near) do
    local stats = near:stats()
    entries, bytes, evictions = entries + stats.entries, bytes + stats.bytes, evictions + stats.evictions
  end
  result.near_entries, result.near_bytes = math.floor(entries * scale + 0.5), math.floor(bytes * scale + 0.5)
  result.near_evictions, result.server_keys = math.floor(evictions * scale + 0.5), math.floor(self.keys * scale + 0.5)
  return result
end

function Setting:close()
  if self.filter then self.filter:close() end
  self.filter = nil
end

return setting

--- One setting of a cache, and what a trace comes to under it.
--
-- The near caches and the filter are those that applications run, on the trace's clock.  The server is a model: it has what
-- was stored and has neither expired nor been deleted.  Changes reach every process at once.
local core = require("fpcache.core")
local lifetimes = require("fpcache.policy.lifetimes")
local near_cache = require("fpcache.near")

local ABSENT, SPACE = near_cache.ABSENT, ""
local DEFAULT_BYTES = 100 -- of a value of which nobody knows the size

---@class fpcache.replay.Setting
---@field keys integer that the server's model knows
local Setting = {}
Setting.__index = Setting

local setting = {}

-- Of keys: where a sample of them was played, there would be more by its share.
local COUNTS = { "reads", "writes", "deletes", "near_hits", "near_absent", "filter_absent", "server_hits", "server_misses",
  "stale", "loads", "renewals", "waits", "load_time", "server_bytes" }
-- Of calls that a trace has all of.
local WHOLES = { "scans", "scan_rows", "clears" }

---@class fpcache.replay.SettingOptions
---@field near_entries integer
---@field near_bytes number
---@field near_ttl number seconds
---@field near_negative_entries integer
---@field near_negative_ttl number seconds
---@field filter boolean
---@field filter_capacity integer keys that it has room for at first
---@field filter_fpr number
---@field ttl number? seconds: of everything that is stored, whatever the trace says
---@field policy fpcache.Policy? reads that find nothing load and store
---@field load_seconds number that loading takes where the trace does not tell
---@field processes integer among which the calls go round
---@field sample number share of the keys that is played
---@field name string

local function scaled(count, sample) return math.max(math.floor(count * sample + 0.5), 1) end

--- Makes terms (see fast_feed.terms) on the trace's clock, by which nobody changes anything unheard.
local function terms_maker(self)
  return function()
    local ends, held = {}, 0
    local terms = {
      put = function(_, slot, _, _, at)
        ends[slot] = at
        return true
      end,
      get = function(_, slot) return 1, 1, ends[slot] end,
      held = function() return held end,
    }
    return terms, function(slot)
      if self.clock >= ends[slot] then return false end
      held = held + 1
      return true
    end
  end
end

---@param o fpcache.replay.SettingOptions
---@return fpcache.replay.Setting? setting
---@return string? err
function setting.new(o)
  local self = setmetatable({ o = o, name = o.name, clock = 0, turn = 0, near = {}, ends = {}, born = {}, sizes = {}, keys = 0,
    costs = {}, absent = {}, marks = 0, loading = {}, spaces = {}, tags = {}, second = -1, this_second = 0, peak = 0 }, Setting)
  for _, names in ipairs { COUNTS, WHOLES } do
    for _, name in ipairs(names) do self[name] = 0 end
  end
  local feed, new_terms = { stamp = function() return 1 end }, terms_maker(self)
  if o.near_entries > 0 then
    for i = 1, o.processes do
      self.near[i] = near_cache.new {
        feed = feed, new_terms = new_terms, now = function() return self.clock end, copy = false,
        size = scaled(o.near_entries, o.sample), bytes = o.near_bytes * o.sample, ttl = o.near_ttl,
        negative_size = math.floor(o.near_negative_entries * o.sample + 0.5), negative_ttl = o.near_negative_ttl,
      }
    end
  end
  if o.filter then
    local err
    self.filter, err = core.filter(scaled(o.filter_capacity, o.sample), o.filter_fpr, nil, true, nil)
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

--- The server forgets that there is no such key.
local function unmark(self, key)
  if not self.absent[key] then return end
  self.absent[key], self.marks = nil, self.marks - 1
end

--- The server forgets a key.
local function forget(self, key)
  unmark(self, key)
  if not self.ends[key] then return end
  self.ends[key], self.born[key], self.sizes[key], self.costs[key], self.loading[key] = nil, nil, nil, nil, nil
  self.spaces[key], self.tags[key] = nil, nil
  self.keys = self.keys - 1
  if self.filter then self.filter:delete(key) end
end

local function drop_everywhere(self, key)
  for _, near in ipairs(self.near) do near:drop(SPACE, key) end
end

--- The server stores a key; the near caches learn it.
local function store(self, key, bytes, ttl, about)
  unmark(self, key)
  if not self.ends[key] then
    self.keys = self.keys + 1
    if self.filter and not self.filter:insert(key) then self.filter = nil end -- no memory: it says nothing any more
  end
  self.ends[key], self.born[key] = ttl and self.clock + ttl or math.huge, self.clock
  self.sizes[key] = bytes or self.sizes[key] or DEFAULT_BYTES
  self.loading[key] = nil
  if about and about.space and about.space ~= "" then self.spaces[key] = about.space end
  self.tags[key] = about and about.tags
  drop_everywhere(self, key)
end

--- The seconds that a loaded value lives, by the setting, the policy and the trace.
local function life(self, ttl)
  local policy = self.o.policy
  if self.o.ttl then return self.o.ttl end
  if policy and policy.ttl then return (lifetimes.of_value(policy, {})) end
  return ttl
end

--- Loads a key at its origin and stores it, or that there is none.
local function load(self, key, bytes, ttl, about)
  local policy = self.o.policy
  local took = about and about.took or self.o.load_seconds
  self.loads, self.load_time = self.loads + 1, self.load_time + took
  if about and about.none then
    if not (policy and policy.negative_ttl) then return end
    self.writes = self.writes + 1
    ask(self)
    forget(self, key)
    self.absent[key], self.marks = self.clock + policy.negative_ttl, self.marks + 1
    return
  end
  self.writes = self.writes + 1
  ask(self)
  store(self, key, bytes, life(self, ttl), about)
  self.costs[key] = policy and took or nil
  if policy and took > 0 then self.loading[key] = { ends = self.clock + took, [self.turn] = true } end
end

--- What the server has: "fresh", "stale", "absent" or nil; seconds that it still lives, or is known to be absent.
local function look_up(self, key)
  local mark = self.absent[key]
  if mark then
    if mark > self.clock then return "absent", mark - self.clock end
    unmark(self, key)
  end
  local ends = self.ends[key]
  if not ends then return nil end
  local left, policy = ends - self.clock, self.o.policy
  if left > 0 then return "fresh", left end
  if policy and policy.stale_ttl and left + policy.stale_ttl > 0 then return "stale" end
  forget(self, key)
end

--- Whether somebody is loading the key just now, for whom this reader waits, or whom it does not know of.
---@return boolean? waits nil: nobody is
local function is_loading(self, key)
  local now = self.loading[key]
  if not now then return nil end
  if self.clock >= now.ends then
    self.loading[key] = nil
    return nil
  end
  if self.o.policy.lock ~= "process" or now[self.turn] then return true end
  now[self.turn] = true
  return false
end

--- An entry that was found: its life is prolonged, or it is loaded anew before its end.
local function renew(self, key, policy, left, about)
  local age = self.clock - self.born[key]
  if policy.sliding then
    if left < policy.ttl * (1 - lifetimes.SLIDE_SHARE) then
      self.ends[key], self.born[key] = self.clock + policy.ttl, self.clock
      self.writes = self.writes + 1
      ask(self)
    end
  elseif policy.is_early then
    local share_left, times = lifetimes.early(policy)
    if share_left and left <= share_left * (left + age) or times and left <= times * (self.costs[key] or 0) then
      self.renewals = self.renewals + 1
      load(self, key, nil, nil, about)
    end
  end
end

--- A hit at the server.
local function hit(self, near, key, size, left, about)
  local policy, keeps_for = self.o.policy, left
  self.server_hits, self.server_bytes = self.server_hits + 1, self.server_bytes + size
  if near and policy then
    if left == math.huge then left = -1 end
    keeps_for = lifetimes.near(policy, left, self.clock - self.born[key], self.costs[key])
  end
  if near and keeps_for ~= 0 then near:put(SPACE, key, true, size, self.clock, keeps_for, 0, 1) end
  if policy and left > 0 and policy.ttl then renew(self, key, policy, left, about) end
end

--- What the server says to a reader whom neither near cache nor filter could answer.
local function read_server(self, near, key, bytes, ttl, fills, about)
  ask(self)
  local policy = self.o.policy
  local found, left = look_up(self, key)
  local waits = nil
  if policy and fills and found then waits = is_loading(self, key) end
  if waits ~= nil then -- there will be a value: for this reader there is none yet
    self.server_misses = self.server_misses + 1
    if waits then
      self.waits = self.waits + 1
    else
      self.loads, self.load_time = self.loads + 1, self.load_time + self.o.load_seconds
    end
  elseif found == "fresh" then
    hit(self, near, key, bytes or self.sizes[key], left, about)
  elseif found == "stale" then
    self.stale, self.server_bytes = self.stale + 1, self.server_bytes + self.sizes[key]
    load(self, key, bytes, ttl, about)
  else
    self.server_misses = self.server_misses + 1
    if found == "absent" then
      if near then near:put_absent(SPACE, key, self.clock, 0, 1, left) end
    elseif fills then
      load(self, key, bytes, ttl, about)
    elseif near then
      near:put_absent(SPACE, key, self.clock, 0, 1)
    end
  end
end

--- `fills`: what is not found is loaded; `fetches`: by fetch, which asks the server whatever the filter says, since it says who
-- may load; `keeps`: the near cache keeps the answer.
local function read(self, key, bytes, ttl, fills, fetches, keeps, about)
  local near, policy = nil, self.o.policy
  self.reads = self.reads + 1
  self.turn = self.turn % self.o.processes + 1
  if #self.near > 0 and not (policy and not policy.near) then
    near = self.near[self.turn]
    local value, is_told = near:get(SPACE, key)
    if value == ABSENT and (is_told or not fills) then
      self.near_absent = self.near_absent + 1
      return
    elseif value ~= nil and value ~= ABSENT then
      self.near_hits = self.near_hits + 1
      return
    end
  end
  if self.filter and not fetches and not self.filter:lookup(key) then
    self.filter_absent = self.filter_absent + 1
    if fills then load(self, key, bytes, ttl, about) end
    return
  end
  return read_server(self, keeps and near or nil, key, bytes, ttl, fills, about)
end

--- Forgets every key of which `wanted(key)` is true.
local function forget_where(self, wanted)
  local list = {}
  for key in pairs(self.ends) do
    if wanted(key) then list[#list + 1] = key end
  end
  for _, key in ipairs(list) do
    forget(self, key)
    drop_everywhere(self, key)
  end
end

--- Calls on more than one key.
local WHOLE = {}

function WHOLE.scan(self, about)
  self.scans, self.scan_rows = self.scans + 1, self.scan_rows + (about and about.rows or 0)
end

function WHOLE.clear(self, about)
  local space = about and about.space or ""
  self.clears = self.clears + 1
  forget_where(self, function(key) return about.all or (self.spaces[key] or "") == space end)
  self.absent, self.marks = {}, 0
  for _, near in ipairs(self.near) do near:clear() end
end

function WHOLE.tag(self, about)
  local gone = {}
  for _, tag in ipairs(about and about.tags or {}) do gone[tag] = true end
  self.clears = self.clears + 1
  forget_where(self, function(key)
    for _, tag in ipairs(self.tags[key] or {}) do
      if gone[tag] then return true end
    end
    return false
  end)
end

--- Plays one call.
---@param time number seconds on the trace's clock
---@param op string
---@param key string
---@param bytes number? of the value
---@param ttl number?
---@param fills boolean whether a read that finds nothing loads
---@param about table? see trace.lua
function Setting:play(time, op, key, bytes, ttl, fills, about)
  if time > self.clock then self.clock = time end -- it never goes back
  if op == "get" or op == "fetch" then
    local fetches = op == "fetch" or self.o.policy ~= nil
    return read(self, key, bytes, ttl, fills or fetches, fetches, true, about)
  elseif op == "exists" then
    return read(self, key, bytes, nil, false, false, false)
  end
  ask(self)
  if WHOLE[op] then return WHOLE[op](self, about) end
  if op == "set" then
    self.writes = self.writes + 1
    store(self, key, bytes, self.o.ttl or ttl, about)
  else
    self.deletes = self.deletes + 1
    forget(self, key)
    drop_everywhere(self, key)
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
  for _, name in ipairs(WHOLES) do result[name] = self[name] end
  result.load_time = self.load_time * scale
  local found, server_reads = self.near_hits + self.server_hits + self.stale, self.server_hits + self.server_misses + self.stale
  result.hit_ratio, result.near_ratio = share(found, self.reads), share(self.near_hits, self.reads)
  result.saved = 1 - share(server_reads, self.reads)
  result.statements = math.floor((server_reads + self.writes + self.deletes) * scale + 0.5) + self.scans + self.clears
  result.peak_per_second = math.floor(self.peak * scale + 0.5)
  local entries, bytes, evictions = 0, 0, 0
  for _, near in ipairs(self.near) do
    local stats = near:stats()
    entries, bytes, evictions = entries + stats.entries, bytes + stats.bytes, evictions + stats.evictions
  end
  result.near_entries, result.near_bytes = math.floor(entries * scale + 0.5), math.floor(bytes * scale + 0.5)
  result.filter_bytes = self.filter and self.filter:stats().bytes or nil
  result.near_evictions, result.server_keys = math.floor(evictions * scale + 0.5), math.floor(self.keys * scale + 0.5)
  return result
end

function Setting:close()
  if self.filter then self.filter:close() end
  self.filter = nil
end

return setting

--- Plays traces on a real server, by a setting's caches, in namespaces of its own that are empty afterwards.
--
-- The clock is the server's, so a trace is played faster than it was recorded with every life shortened by as much: what expired
-- between two calls then expires between them now.
local core = require("fpcache.core")
local fpcache = require("fpcache")
local options = require("fpcache.options")
local policies = require("fpcache.policy")
local slow = require("fpcache.top.slow")
local trace = require("fpcache.replay.trace")

local system = core.system
local now, unpack = system.now, table.unpack or unpack -- luacheck: ignore
local LONGEST_S = 86400       -- what a killed replay leaves behind lives no longer
local FILLER = 65536          -- random bytes, of which values are made
local LARGEST = 64 * 1024 * 1024 -- bytes of a value
local MAX_PROCESSES = 64

local live = {}

local OPTIONS = {
  traces = { type = "table" },
  setting = { type = "table" },      -- as of replay.run, read
  connection = { type = "table" },   -- options of fpcache.new
  speed = { type = "number", default = 100, check = options.positive },
  format = { type = "string" }, columns = { type = "table" }, limit = { type = "integer" },
  max_errors = { type = "integer", default = 100 },
  sample = { type = "number", default = 1 },
}

local Player = {}
Player.__index = Player

--- The durations of a policy, shortened.
local function faster(policy, speed)
  if not policy then return nil end
  local fields = {}
  for _, name in ipairs { "ttl", "stale_ttl", "negative_ttl" } do
    fields[name] = policy[name] and math.min(policy[name] / speed, LONGEST_S)
  end
  for _, name in ipairs { "refresh_ahead", "beta", "lock", "near", "sliding" } do fields[name] = policy[name] end
  fields.jitter = policy.ttl and policy.jitter or nil
  return policies.new(fields)
end

local function open_caches(self)
  local o, s = self.o, self.o.setting
  local given = {}
  for name, value in pairs(o.connection) do given[name] = value end
  local function part(count) return count == 0 and 0 or math.max(math.floor(count * o.sample + 0.5), 1) end
  given.near_size, given.near_bytes, given.near_ttl = part(s.near_entries), part(s.near_bytes), s.near_ttl / o.speed
  given.near_negative_size, given.near_negative_ttl = part(s.near_negative_entries), s.near_negative_ttl / o.speed
  given.use_cuckoo_filter, given.cuckoo_capacity, given.filter_fpr = s.filter, part(s.filter_capacity), s.filter_fpr
  given.feed, given.minconn, given.maxconn = s.near_entries > 0 or s.filter, 1, 1
  given.namespace = self.scratch
  for i = 1, math.min(s.processes, MAX_PROCESSES) do
    local cache, err = fpcache.new(given)
    if not cache then return nil, err end
    self.caches[i] = { cache = cache, views = {} }
    if given.feed then
      local ok
      ok, err = cache:wait_ready()
      if not ok then return nil, err end
    end
  end
  return true
end

--- The cache whose turn it is, seen in a namespace of the trace.
function Player:view(space)
  self.turn = self.turn % #self.caches + 1
  local one = self.caches[self.turn]
  if not space or space == "" then return one.cache end
  local name = (self.scratch .. "/" .. space):sub(1, 200)
  if not one.views[name] then one.views[name] = one.cache:namespace(name) end
  self.spaces[name] = true
  return one.views[name]
end

function Player:value(bytes)
  bytes = math.min(math.max(bytes or 100, 1), LARGEST)
  if bytes > #self.filler then return self.filler:rep(math.ceil(bytes / #self.filler)):sub(1, bytes) end
  return self.filler:sub(1, bytes)
end

--- Seconds to live, or none.
function Player:life(ttl)
  ttl = self.o.setting.ttl or ttl
  return math.max(math.min((ttl or math.huge) / self.o.speed, LONGEST_S), 0.001)
end

local function counted(self, value, err, source)
  local counts = self.counts
  counts.reads = counts.reads + 1
  if value == nil and err then return nil, err end
  if source == "near" then counts.near = counts.near + 1 end
  if value ~= nil and source ~= "loader" then counts.hits = counts.hits + 1 end
  return true, nil, source
end

local PLAY = {}

function PLAY.get(self, view, key, bytes, ttl, fills, about)
  if self.policy then return PLAY.fetch(self, view, key, bytes, ttl, fills, about) end
  local value, err, source = view:get(key)
  local ok, why = counted(self, value, err, source)
  if ok and value == nil and fills then
    self.counts.loads = self.counts.loads + 1
    return view:set(key, self:value(bytes), self:life(ttl))
  end
  return ok, why
end

function PLAY.fetch(self, view, key, bytes, ttl, _, about)
  local value, err, source = view:fetch(key, self.policy or self:life(ttl), function()
    self.counts.loads = self.counts.loads + 1
    if self.policy and self.policy.beta then -- which goes by what loading costs
      system.sleep((about and about.took or self.o.setting.load_seconds) / self.o.speed)
    end
    if about and about.none then return nil end
    return self:value(bytes)
  end)
  return counted(self, value, err, source)
end

function PLAY.exists(self, view, key)
  local found, err = view:exists(key)
  if found == nil then return nil, err end
  return counted(self, found or nil, nil, nil)
end

function PLAY.set(self, view, key, bytes, ttl, _, about)
  local opts = { ttl = self:life(ttl), tags = about and about.tags }
  return view:set(key, self:value(bytes), opts)
end

function PLAY.delete(_, view, key)
  local deleted, err = view:delete(key)
  if deleted == nil then return nil, err end
  return true
end

function PLAY.clear(self, view, _, _, _, _, about)
  if not about.all then return view:clear() end
  return self:clear()
end

function PLAY.tag(_, view, _, _, _, _, about) return view:invalidate_tag(about and about.tags or {}) end

function PLAY.scan(_, view, _, _, _, _, about)
  local scan, err = view:scan { page = math.min(math.max(about and about.rows or 1000, 1), 1000000) }
  if not scan then return nil, err end
  scan:next()
  if scan.err then return nil, scan.err end
  return true
end

--- Empties what was made.
function Player:clear()
  local cache = self.caches[1] and self.caches[1].cache
  if not cache then return true end
  local ok, err = cache:clear()
  for name in pairs(self.spaces) do
    local done, why = cache:namespace(name):clear()
    ok, err = ok and done, err or why
  end
  return ok, err
end

--- Waits until it is time for a call of the trace.
---@return boolean? true, string? err
local function pace(self, time)
  self.first = self.first or time
  local late = (now() - self.began) - (time - self.first) / self.o.speed
  self.late = math.max(self.late, late)
  while late < 0 do
    if core.interrupted() then return nil, "interrupted: the replay was stopped" end
    system.sleep(math.min(-late, 0.1))
    late = (now() - self.began) - (time - self.first) / self.o.speed
  end
  return true
end

local function call(self, source, op, key, key_bytes, bytes, ttl, about)
  if #key < (key_bytes or 0) and source.format == "fpcache" then key = key .. ("."):rep(math.min(key_bytes, 1000) - #key) end
  local view = self:view(about and about.space)
  local began = now()
  local ok, err, from = PLAY[op](self, view, key, bytes, ttl, source.fills, about)
  local took = now() - began
  self.counts.calls = self.counts.calls + 1
  if from ~= "near" and from ~= "filter" then self.asking = self.asking + took end
  if not ok and ok ~= false then return nil, err end -- false: refused, as it may have been then
  return true
end

local function play(self, source)
  local o, bad = self.o, 0
  local limit = o.sample < 1 and o.sample * 2 ^ 32
  while not (o.limit and self.counts.calls >= o.limit) do
    local time, op, key, key_bytes, bytes, ttl, about = source:next()
    if not time then
      if not op then return true end
      bad = bad + 1
      if bad > o.max_errors then return nil, ("invalid: %s, record %d: %s"):format(source.name, source:place(), op) end
    else
      local ok, err = pace(self, time)
      if ok and (trace.WHOLE[op] or not limit or trace.is_sampled(key, limit)) then
        ok, err = call(self, source, op, key, key_bytes, bytes, ttl, about)
      end
      if not ok then return nil, err end
    end
  end
  return true
end

local function play_all(self)
  self.began = now()
  for _, path in ipairs(self.o.traces) do
    local source, err = trace.open(path, { format = self.o.format, columns = self.o.columns })
    if not source then return nil, err end
    local called, ok, why = pcall(play, self, source)
    source:close()
    if not called then
      if type(ok) ~= "table" then error(ok, 0) end
      return nil, ok.fatal
    end
    if not ok then return nil, why end
  end
  return true
end

--- What it came to.
local function result(self, before, after)
  local counts = self.counts
  local function share(part) return counts.reads > 0 and part / counts.reads or 0 end
  local measured = { calls = counts.calls, reads = counts.reads, loads = counts.loads, hit_ratio = share(counts.hits),
    near_ratio = share(counts.near), seconds = now() - self.began, late = self.late, speed = self.o.speed,
    round_trip_seconds = self.asking }
  if before and after then
    measured.server_seconds, measured.statements = after.seconds - before.seconds, after.calls - before.calls
  end
  return measured
end

--- Plays traces at a server with one setting.
---@param opts table { traces, setting, connection, speed, format, columns, sample, limit, max_errors }
---@return table? measured { calls, reads, loads, hit_ratio, near_ratio, speed, seconds, late (behind the trace, at most),
--- round_trip_seconds (of calls that asked the server), server_seconds and statements (by pg_stat_statements, if it is there) }
---@return string? err
function live.run(opts)
  local o = options.read(OPTIONS, opts, 2)
  local filler, err = system.random(FILLER)
  if not filler then return nil, err end
  local self = setmetatable({ o = o, caches = {}, spaces = {}, turn = 0, late = 0, asking = 0, filler = filler,
    scratch = ("fpcache-replay-%d"):format(system.pid()), counts = { calls = 0, reads = 0, hits = 0, near = 0, loads = 0 },
    policy = faster(o.setting.policy, o.speed) }, Player)
  local called, ok, why = pcall(open_caches, self)
  local measured
  if called and ok then
    local before = slow.total(o.connection)
    called, ok, why = pcall(play_all, self)
    measured = called and ok and result(self, before, before and slow.total(o.connection))
  end
  local cleaned, reason = self:clear()
  for _, one in ipairs(self.caches) do one.cache:close() end
  if not called then error(ok, 0) end
  if not ok then return nil, why end
  if not cleaned then return nil, reason end
  return measured
end

return live

--- What a cache asks the server before its first call, at once or as soon as there is one.
--
-- Elsewhere fpcache.new asks and waits.  Where nothing can wait (init_worker of nginx) it returns a cache that is not open
-- yet: a timer asks, again and again until it succeeds.  Calls that come earlier wait for the first attempt; after one that
-- failed they get its error at once, as from a server that is down.
local layers = require("fpcache.layers")
local loop = require("fpcache.loop")
local schema = require("fpcache.schema")
local sealing = require("fpcache.sealing")
local statements = require("fpcache.statements")
local touches = require("fpcache.touches")
local waiting = require("fpcache.waiting")
local Cache = require("fpcache.client")

local opening = {}

--- Asks whether the schema is there and of our version.
---@return boolean? is_on the change feed
---@return boolean|string may_tell whether this login may write it, or err
local function check_schema(cache)
  local found, version, is_on, may_tell = cache.db:row(cache.statements.schema_version, cache.timeout)
  if found == nil then return nil, version end
  version = tonumber(version) or 0
  if version == schema.VERSION then return tonumber(is_on) == 1, tonumber(may_tell) == 1 end
  if version == 0 then return nil, "schema: the tables are not set up; run `fpcache admin setup` on this database" end
  return nil, ("schema: the database has version %d and this fpcache needs %d; %s"):format(version, schema.VERSION,
    version < schema.VERSION and "run `fpcache admin upgrade`" or "install a newer fpcache")
end

--- Asks the server, and completes the cache by its answers.
---@param cache table with db, pool, statements, tells, space, timeout
---@param o table options as fpcache.new read them
---@param quoted string the schema
---@return boolean? true, string? err
function opening.ask(cache, o, quoted)
  local is_on, may_tell = check_schema(cache)
  if is_on == nil then return nil, may_tell end
  if not (is_on and may_tell) then -- while the feed is on, the table's triggers tell in our place
    cache.tells, cache.statements = false, statements.new(quoted, false, cache.versioned)
  end
  local user
  if o.encrypt then -- what is encrypted is bound to the login
    local known
    known, user = cache.db:row(cache.statements.login, cache.timeout)
    if not known then return nil, user end
  end
  cache.sealing, cache.user_codec = sealing.plan(o, user), o.codec
  cache.codec = sealing.codec(cache.sealing, o.codec, cache.space)
  -- Uses are noted where something may be evicted.  The table's triggers would take them for changes.
  local found, has_quota, was_cleared = cache.db:row(cache.statements.habits, cache.timeout)
  -- Who was given rights by hand may not see them, and does without.
  if found == nil and not has_quota:find("^denied:") then return nil, has_quota end
  if found and has_quota and (cache.tells or not is_on) then cache.touches = touches.new(cache) end
  if found and was_cleared and not cache.versioned then -- nobody is to see what was cleared
    cache.versioned, cache.statements = true, statements.new(quoted, cache.tells, true, cache.tells and o.feed_listen)
  end
  local feed, near, look, shared = layers.open(o, quoted, cache.pool)
  if not feed then return nil, near end
  cache.feed, cache.near, cache.look, cache.shared = feed, near, look or cache.look, shared
  return true
end

-- --- caches that are not open yet ---

local FIRST_PAUSE, GROWTH = 0.05, 1.5              -- seconds between two attempts
local LONGEST_PAUSE, LONGEST_PAUSE_REFUSED = 0.4, 5 -- while there is no server; when the server said no

-- What asking changes.
local ASKED = { "db", "pool", "statements", "versioned", "tells", "sealing", "user_codec", "touches", "feed", "look",
  "near", "shared" }
-- Methods that ask no server.
local IMMEDIATE = { namespace = true, close = true, stats = true, rate_limiter = true, counter = true, wrap = true,
  set_later = true, delete_later = true }

---@class fpcache.Opening
---@field failures integer
---@field err string? of the last attempt
local Opening = {}
Opening.__index = Opening

--- Answers for the server as long as nobody could ask it.
local function stand_in(state)
  local function refuse() return nil, state.err or "connect: the server has not answered yet" end
  return setmetatable({}, { __index = function() return refuse end })
end

--- Waits for the first attempt, where that is possible.
function Opening:wait(timeout)
  if self.failures > 0 or not waiting.lets_others_run() then return end
  waiting.poll(timeout, function() return self.is_over or self.failures > 0 end)
end

-- The class of a cache, and of its views, until it is open: its methods wait for the first attempt, and then are the usual ones.
local Unopened = setmetatable({}, { __index = function(class, name)
  local method = Cache[name]
  if type(method) ~= "function" or IMMEDIATE[name] then return method end
  class[name] = function(self, ...)
    local state = rawget(self, "opening")
    if state then state:wait(self.timeout) end
    return method(self, ...)
  end
  return class[name]
end })
Unopened.__index = Unopened
opening.Unopened = Unopened

--- The cache and its views are open now.
local function complete(state, asked)
  state.is_over = true
  for member in pairs(state.members) do
    for _, field in ipairs(ASKED) do member[field] = asked[field] end
    member.codec = sealing.codec(asked.sealing, asked.user_codec, member.space)
    member.opening = nil
    if getmetatable(member) == Unopened then setmetatable(member, Cache) end
  end
  asked.flow.breaker:succeeded()
  if state.when_open then state.when_open() end
end

local function pause_after(state)
  local longest = state.err:find("^connect:") and LONGEST_PAUSE or LONGEST_PAUSE_REFUSED
  return math.min(FIRST_PAUSE * GROWTH ^ math.min(state.failures - 1, 30), longest)
end

--- One attempt, in a timer of nginx.
local function attempt(premature, state)
  if premature or state.is_over then
    state.is_over = true
    return
  end
  local asked = {}
  for name, value in pairs(state.ready) do asked[name] = value end
  local ok, err = opening.ask(asked, state.options, state.quoted)
  if state.is_over then -- closed meanwhile
    asked.feed:close()
    asked.pool:close()
    return
  end
  state.ready.pool, state.ready.db = asked.pool, asked.db -- another one may have been opened
  state.ready.statements, state.ready.tells = asked.statements, asked.tells
  if ok then
    if state.failures > 0 then ngx.log(ngx.NOTICE, "fpcache: the cache is open now") end
    complete(state, asked)
    return
  end
  state.failures = state.failures + 1
  if err ~= state.err then ngx.log(ngx.ERR, "fpcache: the cache cannot be opened yet, and is tried again: ", err) end
  state.err = err
  ngx.timer.at(pause_after(state), attempt, state)
end

--- Makes `cache` one that is not open yet, and has it opened.
---@return boolean? true, string? err
function opening.defer(cache, o, quoted)
  local ready = {}
  for name, value in pairs(cache) do ready[name] = value end
  local state = setmetatable({ ready = ready, options = o, quoted = quoted, failures = 0, is_over = false,
    members = setmetatable({ [cache] = true }, { __mode = "k" }) }, Opening)
  cache.opening, cache.db = state, stand_in(state)
  if o.encrypt then -- nothing may be encrypted for an unknown login
    cache.codec = { encode = function() return nil, state.err or "connect: the server has not answered yet" end,
      decode = function() return nil, "connect: the server has not answered yet" end }
  end
  setmetatable(cache, Unopened)
  local ok, err = ngx.timer.at(0, attempt, state)
  if not ok then return nil, "closed: nginx starts no timer here: " .. tostring(err) end
  return true
end

--- Adds a view of a cache that may not be open yet.
function opening.add_view(cache, view)
  local state = rawget(cache, "opening")
  if state then state.members[view] = true end
end

--- Ends the attempts.
function opening.stop(cache)
  local state = rawget(cache, "opening")
  if state then
    state.is_over, state.err, state.failures = true, "closed: the cache was closed", state.failures + 1
    state.ready.pool:close()
  end
end

--- Whether fpcache.new has to return before the server was asked; nil, err where it must not be called at all.
---@return boolean? defers, string? err
function opening.defers()
  if not loop.is_nginx or loop.can_wait() then return false end
  if ngx.get_phase() == "init" then
    return nil, "invalid: what is opened in init_by_lua is lost when the workers are forked; open the cache in "
      .. "init_worker_by_lua (see docs/nginx.md)"
  end
  return true
end

return opening

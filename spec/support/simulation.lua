-- simulation.lua -- a model of the feed (docs/coherence.md), for spec/support/interleavings.lua.
--
-- Actors are coroutines.  `step(touches, may)` ends one atomic step and names what the next one touches (a small
-- letter: reads; a capital: writes) and when it may run.  After every step every answer that could be given out is checked.
-- X transactions and snapshots, K rows, F feed and its locks, S state and frozen slots, P stamps, filters, copies,
-- B the published time, T whose turn it is in the reader's thread, W the clock of the slots.
local World = {}
World.__index = World

local function step(touches, may) coroutine.yield(touches, may) end

local function new_world(mutation)
  local w = setmetatable({
    mutation = mutation, now = 0, next_xid = 1, running = {}, transactions = {}, rows = {}, row_locks = {}, half = 0,
    feed = { [0] = {}, {}, {} }, writers = { [0] = {}, {}, {} }, polls = {}, exclusive = {}, frozen = {}, states = {},
    incarnations = 0, wipes = 0, stamps = {}, epoch = 0, copies = {}, counts = {}, starts = 1, switches = {},
  }, World)
  w:begin_incarnation()
  w.switches[1] = { by = w.states[1].by, is_on = true, since = w.states[1].by.xid } -- logged: outlives a wipe
  return w
end

function World:is(mutation) return self.mutation[mutation] end
function World:count(what) self.counts[what] = (self.counts[what] or 0) + 1 end
local function broken(text) error({ violation = text }, 0) end

-- --- The server ---

function World:begin()
  local t = { xid = self.next_xid, versions = {}, ended = {}, life = self.wipes }
  self.next_xid = self.next_xid + 1
  self.running[t.xid] = t
  self.transactions[t.xid] = t
  return t
end

function World:release(t)
  self.running[t.xid] = nil
  for slot = 0, 2 do
    self.writers[slot][t] = nil
    if self.exclusive[slot] == t then self.exclusive[slot] = nil end
  end
  if self.state_lock == t then self.state_lock = nil end
  if self.cache_lock == t then self.cache_lock = nil end
  for key, holder in pairs(self.row_locks) do
    if holder == t then self.row_locks[key] = nil end
  end
end

function World:commit(t)
  if t.life ~= self.wipes then return false end
  t.committed_at = self.now
  self:release(t)
  return true
end

function World:abort(t)
  for _, version in ipairs(t.ended) do version.ended = nil end
  self:release(t)
end

function World:snapshot()
  local running = {}
  for xid in pairs(self.running) do running[xid] = true end
  return { xmax = self.next_xid, running = running }
end

local function seen(xid, snapshot) return xid < snapshot.xmax and not snapshot.running[xid] end
local function visible(t, snapshot) return t.committed_at and seen(t.xid, snapshot) end

function World:begin_incarnation()
  local t = self:begin()
  self.incarnations = self.incarnations + 1
  self.states = { { by = t, incarnation = self.incarnations, slot = -1, marker = 0 } }
  self:commit(t)
end

local function newest(list, snapshot)
  for i = #list, 1, -1 do
    if visible(list[i].by, snapshot) then return list[i] end
  end
end

function World:state(snapshot) return newest(self.states, snapshot) end

--- Whether the feed is on.
function World:is_on(snapshot)
  return newest(self.switches, snapshot).is_on
end

--- What a poll tells as the incarnation: the turns of the switch are a part of it.
function World:incarnation_of(snapshot)
  local state = self:state(snapshot)
  return state and state.incarnation .. ":" .. (self:is("no_since") and "" or newest(self.switches, snapshot).since)
end

function World:row(key, snapshot)
  for _, version in ipairs(self.rows[key] or {}) do
    if visible(version.by, snapshot) and not (version.ended and visible(version.ended, snapshot)) then return version end
  end
end

--- What a new statement sees.
function World:live(key) return self:row(key, self:snapshot()) end

--- One statement: the row (`value` nil: deleted) and the feed's row, in the slot of the moment it began.
function World:write(t, key, value, slot)
  local old = self:live(key)
  for _, version in ipairs(t.versions) do
    if version.key == key and not version.ended then old = version end
  end
  if old then
    old.ended = t
    t.ended[#t.ended + 1] = old
  end
  if value then
    local version = { key = key, value = value, by = t }
    self.rows[key] = self.rows[key] or {}
    table.insert(self.rows[key], version)
    table.insert(t.versions, version)
  end
  self.row_locks[key] = t
  if not self:is_on(self:snapshot()) then return end -- the trigger is off
  self.writers[slot][t] = true
  table.insert(self.feed[slot], { by = t, key = key })
  t.tells = true
end

function World:wipe()
  for _, versions in pairs(self.rows) do
    for _, version in ipairs(versions) do
      if version.by.committed_at and not (version.ended and version.ended.committed_at) then version.wiped_at = self.now end
    end
  end
  for _, t in pairs(self.running) do self:release(t) end
  self.wipes = self.wipes + 1
  self.rows, self.feed, self.states, self.frozen = {}, { [0] = {}, {}, {} }, {}, {}
  self.polls = {}
end

-- --- The process: stamps, filters, announcements ---

function World:stamp(key) return self.epoch * 1000 + (self.stamps[key] or 0) end

function World:told(key, is_own)
  self.stamps[key] = (self.stamps[key] or 0) + 1
  if self.filter then self.filter[key] = true end
  if self.next_filter and not self:is(is_own and "load_ignores_own" or "load_ignores_changes") then
    self.next_filter[key] = true
  end
end

function World:forget()
  self.epoch = self.epoch + 1
  self.filter = nil
  if not self:is("forget_keeps_load") then self.next_filter = nil end
  for _, t in pairs(self.transactions) do t.is_told = t.is_told or t.committed_at ~= nil end
end

function World:publish(began)
  for _, t in pairs(self.transactions) do
    if t.tells and t.life == self.wipes and t.committed_at and t.committed_at < began and not t.is_told
        and not self:is("publish_first") then
      broken("a change was missed")
    end
  end
  self.published = began
end

-- --- Reader and loader, one thread ---

function World:fell_behind(state)
  return self.position and state.marker ~= 0 and not seen(state.marker, self.position) and not self:is("no_marker")
end

--- The feed's rows that the statement sees and the position does not.
function World:changes(snapshot)
  local found = {}
  for slot = 0, 2 do
    for _, change in ipairs(self.feed[slot]) do
      local is_new = not seen(change.by.xid, self.position)
      if self:is("by_serial") then is_new = change.by.xid >= self.position.xmax end
      if is_new and visible(change.by, snapshot) then found[#found + 1] = change end
    end
  end
  return found
end

function World:poll()
  step("xTB")
  self.is_polling = true
  local began, life, mine, early = self.now, self.wipes, {}, self:is("snapshot_before_lock")
  local snapshot = early and self:snapshot()
  step("FT", function() return not next(self.exclusive) or life ~= self.wipes end)
  if life ~= self.wipes then self.is_polling = false return end
  self.polls[mine] = true
  if not early then
    step("xF")
    snapshot = self:snapshot()
  end
  step("XFST")
  self.polls[mine] = nil
  local state = life == self.wipes and self:state(snapshot)
  if life == self.wipes and #self.states == 0 then self:begin_incarnation() end
  if not state then self.is_polling = false return end
  if not self:is_on(snapshot) then
    step("PBxT")
    if self.position then self:forget() end
    self.position, self.published, self.is_polling = nil, nil, false
    self:count("polls that found it off")
    return
  end
  local is_first, incarnation, starts = self.position == nil, self:incarnation_of(snapshot), self.starts
  local is_whole = is_first or (self:is("no_incarnation") or incarnation == self.incarnation)
    and (self:is("no_start") or starts == self.started)
    and (self:is("no_going_back") or snapshot.xmax >= self.position.xmax)
  if is_whole and self:fell_behind(state) then
    is_whole = false
    self:count("fell behind")
  end
  local changes = is_whole and not is_first and self:changes(snapshot) or {}
  if self:is("publish_first") then
    step("PBx")
    self:publish(began)
  end
  for _, change in ipairs(changes) do
    step("P")
    change.by.is_told = true
    self:told(change.key)
  end
  step("PBxT")
  if is_first then
    for _, t in pairs(self.transactions) do t.is_told = t.is_told or (t.committed_at and seen(t.xid, snapshot)) end
  elseif not is_whole then
    self:forget()
  end
  self.position, self.incarnation, self.started, self.is_polling = snapshot, incarnation, starts, false
  self:count("polls")
  self:publish(began)
end

--- One load of the filter; its steps come between polls.
function World:load()
  local function turn(touches)
    step("T" .. touches, function() return not self.is_polling end)
  end
  turn("P")
  if not self.position then return end
  if not self:is("register_late") then self.next_filter = {} end
  turn("xsk")
  local snapshot, life = self:snapshot(), self.wipes
  local state, keys = self:incarnation_of(snapshot), {}
  if self.splits_load then turn("xsk") end -- the lock of the table comes after the snapshot
  for key in pairs(self.rows) do
    if self:row(key, snapshot) then keys[#keys + 1] = key end
  end
  table.sort(keys)
  for i = 0, #keys do
    turn("Psk")
    if self:is("register_late") then self.next_filter = self.next_filter or {} end
    local is_cut = not state or life ~= self.wipes -- what was sent before may still arrive
    if not self.next_filter or (is_cut and not self:is("forget_keeps_load")) then
      self.next_filter = nil
      return
    end
    if keys[i] then self.next_filter[keys[i]] = true end
  end
  turn("PB")
  if self.next_filter and state and (self:is("no_swap_check") or state == self.incarnation) then
    self.filter = self.next_filter
    self:count("loads")
  end
  self.next_filter = nil
end

-- --- Clients ---

--- A transaction of somebody; `way` is "local" (of this process), "remote" or "rollback" (of this process).
function World:change(way, key, value)
  step("wx")
  local slot = math.floor(self.half / 2) % 3
  step("XKF", function() return not (self.row_locks[key] or self.exclusive[slot] or self.cache_lock) end)
  local t = self:begin()
  self:write(t, key, value, slot)
  if way == "rollback" then
    if self:is("fills_in_transaction") and self.published then
      table.insert(self.copies, { key = key, version = t.versions[1], stamp = self:stamp(key) })
    end
    step("XK")
    return t.life == self.wipes and self:abort(t)
  end
  if way == "local" and self:is("announce_early") then
    step("P")
    self:told(key, true)
  end
  step("XKF")
  local committed = self:commit(t)
  if way ~= "local" then return end
  step("PKB")
  if not self:is("announce_early") then self:told(key, true) end -- also when the outcome is unknown
  t.is_announced = committed
  if self:is("keeps_own") and self.published then
    table.insert(self.copies, { key = key, version = t.versions[1], stamp = self:stamp(key) })
  end
end

--- Reads a key at the server and keeps a copy.
function World:fetch(key)
  local stamp
  step("pb")
  if not self.published then return end
  if not self:is("stamp_after_read") then stamp = self:stamp(key) end
  step("xkP")
  local copy = { key = key, version = self:live(key), stamp = stamp }
  if not stamp then
    step("P")
    copy.stamp = self:stamp(key)
  end
  table.insert(self.copies, copy)
end

--- A lookup of two steps: the published time, then the filter and the copies.
function World:look()
  local answers = { copies = {} }
  local function take()
    if self.filter then
      answers.filter = {}
      for key in pairs(self.filter) do answers.filter[key] = true end
    end
    for _, copy in ipairs(self.copies) do
      if copy.stamp == self:stamp(copy.key) then table.insert(answers.copies, copy) end
    end
  end
  local published
  step(self:is("published_last") and "p" or "b")
  if self:is("published_last") then take() else published = self.published end
  step("pbxk")
  if self:is("published_last") then published = self.published else take() end
  self:judge(published, answers.filter, answers.copies)
end

-- --- The promises ---
function World:judge(published, filter, copies)
  if not published then return end
  local function is_known(t) return t.committed_at < published or t.is_announced end
  local function absent(key, who)
    local version = self:live(key)
    if version and is_known(version.by) then broken(who .. " denies a key that exists") end
  end
  if filter then
    for key in pairs(self.rows) do
      if not filter[key] then absent(key, "the filter") end
    end
  end
  for _, copy in ipairs(copies) do
    local version = copy.version
    if not version then
      absent(copy.key, "a copy")
    elseif not version.by.committed_at then
      broken("a copy of what was never committed")
    elseif version.wiped_at and version.wiped_at < published then
      broken("a copy from before a wipe")
    elseif version.ended and version.ended.committed_at and is_known(version.ended) then
      broken("a copy that was overwritten")
    end
  end
end

function World:judge_all()
  local current = {}
  for _, copy in ipairs(self.copies) do
    if copy.stamp == self:stamp(copy.key) then current[#current + 1] = copy end
  end
  self:judge(self.published, self.filter, current)
end

return { new = new_world, World = World, seen = seen, step = step, ALL = "XKFSPBTW" }

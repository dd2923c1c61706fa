-- simulation_server.lua -- what may become of the server of simulation.lua: the rotation of the feed's slots, TRUNCATE, the
-- switch of the feed, and a backup that is restored.  Adds its methods to the World.
local simulation = require "support.simulation"

local World, step, seen = simulation.World, simulation.step, simulation.seen

--- fpcache_rotate_feed() at a moment of the clock, statement by statement.
function World:rotate(half)
  step("WXS")
  self.half = half
  local now_slot = math.floor(half / 2)
  local next_slot, old_slot = (now_slot + 1) % 3, (now_slot + 2) % 3
  if half % 2 == 0 or self.state_lock then return end
  local old = self:state(self:snapshot())
  if not old or old.slot >= now_slot then return end
  local t, marker, truncates = self:begin(), old.marker, false
  self.state_lock = t
  local frozen = self.frozen[next_slot]
  if frozen then
    local function late()
      for _, change in ipairs(self.feed[next_slot]) do
        if change.by.committed_at and not seen(change.by.xid, frozen.snapshot) then return true end
      end
      return false
    end
    local was_late = self:is("count_before_lock") and late()
    step("FXS")
    if t.life ~= self.wipes then return end
    if next(self.writers[next_slot]) or next(self.polls) then
      self:count("postponed, in use")
    else
      self.exclusive[next_slot] = t
      step("FXS")
      if t.life ~= self.wipes then return end
      if not self:is("count_before_lock") then was_late = late() end
      if was_late and not self:is("no_freeze_check") then
        self:count("postponed, late")
      else
        truncates = true
        marker = self:is("marker_falls") and frozen.marker or math.max(marker, frozen.marker)
      end
    end
  end
  step("FXS")
  if t.life ~= self.wipes then return end
  if truncates then
    self.feed[next_slot] = {}
    self:count("truncated")
  end
  self.frozen[old_slot] = { snapshot = self:snapshot(), marker = t.xid }
  table.insert(self.states, { by = t, incarnation = old.incarnation, slot = now_slot, marker = marker })
  self:commit(t)
end

--- Holds the table until the caller is done: waits for those who have written, and keeps the others out.
local function lock_cache(w, is_free)
  step("XKFS", function() return (is_free or not next(w.row_locks)) and not w.cache_lock end)
  local t = w:begin()
  w.cache_lock = t
  return t
end

--- TRUNCATE: for every snapshot the rows are gone once it is committed; the incarnation is a row like others.
function World:truncate()
  local t = lock_cache(self)
  step("XKFS")
  if t.life ~= self.wipes then return end
  local old = self:state(self:snapshot())
  if old and not self:is("truncate_is_silent") then
    self.incarnations = self.incarnations + 1
    table.insert(self.states, { by = t, incarnation = self.incarnations, slot = old.slot, marker = old.marker })
  end
  for _, versions in pairs(self.rows) do
    for _, version in ipairs(versions) do version.ended = version.ended or t end
  end
  self.rows = {}
  self:commit(t)
  self:count("truncated table")
end

-- The switch: a row of the catalog that holds the number of the transaction that turned it.

function World:switch(is_on)
  local t = lock_cache(self, self:is("switch_does_not_wait"))
  step("XKFS")
  if t.life ~= self.wipes then return end
  table.insert(self.switches, { by = t, is_on = is_on, since = is_on and t.xid or "off" })
  self:commit(t)
  self:count(is_on and "switched on" or "switched off")
end

-- A backup of a server whose tables are logged, so that the incarnation comes back with it.

local function copied(list)
  local copy = {}
  for i, item in ipairs(list) do
    copy[i] = {}
    for name, value in pairs(item) do copy[i][name] = value end
  end
  return copy
end

function World:back_up()
  local rows, feed = {}, {}
  for key, versions in pairs(self.rows) do rows[key] = copied(versions) end
  for slot = 0, 2 do feed[slot] = copied(self.feed[slot]) end
  self.backup = { rows = rows, feed = feed, states = copied(self.states), switches = copied(self.switches),
    next_xid = self.next_xid, originals = self.rows }
end

--- Another start of the server, as it was then: transactions that came later never were, and their numbers are used again.
function World:restore()
  step("XKFSPBTW")
  local backup, again = self.backup, {}
  self:wipe()
  local function by_again(t) -- the same transaction, which for everybody outside happens now
    if not again[t] then again[t] = { xid = t.xid, versions = {}, ended = {}, life = self.wipes, committed_at = self.now } end
    return again[t]
  end
  for key, versions in pairs(backup.rows) do
    for i, version in ipairs(versions) do
      if version.by.committed_at then
        local original = backup.originals[key][i]
        original.wiped_at, original.ended = nil, version.ended -- a copy of it is right again
        version.by, version.ended = by_again(version.by), version.ended and by_again(version.ended)
      end
    end
  end
  for slot = 0, 2 do
    for _, change in ipairs(backup.feed[slot]) do change.by = by_again(change.by) end
  end
  for _, list in ipairs { backup.states, backup.switches } do
    for _, row in ipairs(list) do row.by = by_again(row.by) end
  end
  self.rows, self.feed, self.states, self.switches = backup.rows, backup.feed, backup.states, backup.switches
  self.next_xid, self.starts, self.transactions = backup.next_xid, self.starts + 1, {}
  self:count("restored")
end

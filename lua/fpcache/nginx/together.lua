--- Sets that wait together travel together.
--
-- Each set alone is a transaction of its own for the server, and waits for the ones before.  So while one statement of a
-- namespace is on its way the sets that come meanwhile are gathered, and go with the next one: sorted by key, each key
-- once, each set with its own answer.  When such a statement fails for a reason that may be that of one of its rows, each set is
-- tried alone.
--
-- Who waits owns nothing here: nginx may take his coroutine away.  It is the answer to one statement that launches the next.
local core = require("fpcache.core")
local engine = require("fpcache.nginx.engine")
local phases = require("fpcache.nginx.phases")

local now = core.system.now

local MOST_ROWS, MOST_BYTES = 500, 1024 * 1024 -- of one statement
-- Errors after which nothing was written, and which may be the fault of one row.
local TRY_ALONE = { server = true, conflict = true, denied = true, invalid = true, schema = true }

local together = {}

---@class fpcache.nginx.Group the sets of one namespace over one pool
local Group = {}
Group.__index = Group

local function new_group(pool, statements, space)
  return setmetatable({ pool = pool, statements = statements, space = space, batch = core.batch(), is_flying = false,
    waiting = {}, by_key = {}, bytes = 0 }, Group)
end

--- Answers all sets of a statement.
local function answer_all(members, first, second)
  for i = 1, #members do engine.answer(members[i].seat, first, second) end
end

local function try_alone(members)
  for i = 1, #members do
    members[i].is_alone = true
    engine.answer(members[i].seat)
  end
end

--- Tells each set its version, from rows of key and version.
local function answer_each(members, rows)
  local versions = {}
  for i = 1, #rows, 2 do versions[rows[i]] = rows[i + 1] end
  for i = 1, #members do engine.answer(members[i].seat, true, versions[members[i].stored]) end
end

--- Sends what has been gathered, if anything.
local function launch(group)
  local members, latest = group.waiting, now()
  group.waiting, group.by_key, group.bytes, group.is_flying = {}, {}, 0, false
  group.batch:clear()
  for i = #members, 1, -1 do
    local member = members[i]
    if member.is_gone then
      table.remove(members, i)
    else
      latest = math.max(latest, member.deadline)
      group.batch:add_encoded(member.key, member.bytes, member.format, member.ttl)
    end
  end
  if #members == 0 then return end
  local function done(slot)
    local rows, err = slot[1], slot[2]
    if not slot.called then
      answer_all(members, nil, "memory: " .. tostring(rows))
    elseif rows then
      answer_each(members, rows)
    elseif #members > 1 and TRY_ALONE[err:match("^(%l+):")] then
      try_alone(members)
    else
      answer_all(members, nil, err)
    end
    launch(group)
  end
  local ok, err = engine.launch(group.pool, "rows", done, group.statements.set_together, latest - now(), group.space, group.batch)
  group.is_flying = ok == true
  if not ok then answer_all(members, nil, err) end
end

--- Stores a row as the statement `set` does.
---@param groups table of the caller's, by namespace
---@param pool userdata
---@param statements table
---@param timeout number seconds
---@return boolean? true, any version_or_err
function together.set(groups, pool, statements, timeout, space, key, stored, long, bytes, format, ttl)
  local refused = phases.refusal()
  if refused then return nil, refused end
  local group = groups[space]
  if not group or group.statements ~= statements or group.pool ~= pool then
    group = new_group(pool, statements, space)
    groups[space] = group
  end
  local size = #bytes + #key
  local has_room = #group.waiting < MOST_ROWS and group.bytes + size <= MOST_BYTES
  if has_room and not group.by_key[stored] then
    local member = { seat = engine.seat(), key = key, stored = stored, bytes = bytes, format = format, ttl = ttl,
      deadline = now() + timeout }
    group.waiting[#group.waiting + 1], group.by_key[stored], group.bytes = member, true, group.bytes + size
    if not group.is_flying then
      launch(group)
      engine.kick()
    end
    local is_done, first, second = engine.wait(member.seat, timeout)
    member.is_gone = true
    if not member.is_alone then return first, second end
    if not is_done then return nil, second end
  end
  return engine.call(pool, "row", nil, nil, nil, nil, statements.set, timeout, space, stored, long, bytes, format, ttl, nil)
end

return together

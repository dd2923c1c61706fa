--- Statements of a worker that wait without blocking it.
--
-- Each request has a slot, which belongs to this module and not to the coroutine that waits: nginx takes coroutines away
-- without running any Lua (client gone, thread killed).  Who drains the completion queue copies the answer into its slot and
-- frees the request at once; then he wakes the waiter, if there still is one.
local channel = require("fpcache.nginx.channel")
local core = require("fpcache.core")
local phases = require("fpcache.nginx.phases")
local semaphore = require("ngx.semaphore")
local vanished = require("fpcache.nginx.vanished")

local now, refusal = core.system.now, phases.refusal
local unpack = table.unpack or unpack -- luacheck: ignore 143

local MAX_OUTSTANDING = 10000
local PATIENCE = 1      -- seconds beyond the deadline, by which the pipeline answers itself
local POLL = 0.001      -- seconds between two looks for an answer where no channel tells
local KICK_EVERY = 32   -- requests that are submitted before the pipeline is woken in the midst of a turn
local MAX_SPARE = 1024  -- slots that are kept for later
local LATE = "timeout: no answer came within %g s"

local engine = { outstanding_limit = MAX_OUTSTANDING }

local slots, in_flight = {}, 0       -- by the id of the request
local spare, last_spare = {}, 0
local to_kick, submitted = {}, 0
local queue, bell_channel            -- made at the first call in a worker
local generation = core.fork_generation()
local counts = { requests = 0, polled = 0, abandoned = 0 }
local pins = setmetatable({}, { __mode = "k" }) -- those of transactions; see fpcache.pinned
local wake_dirs

--- The folders to try for the channel's socket.
---@param dir string? first
function engine.set_wake_dir(dir)
  wake_dirs = {}
  for _, name in ipairs { dir or false, core.system.getenv("TMPDIR") or false, "/dev/shm", "/tmp" } do
    if name then wake_dirs[#wake_dirs + 1] = name end
  end
end

local function keep(slot, called, ...)
  slot.called, slot.n = called, select("#", ...)
  slot[1], slot[2], slot[3], slot[4], slot[5], slot[6] = ...
  for i = 7, slot.n do slot[i] = select(i, ...) end
end

local function kick()
  for pool in next, to_kick do
    to_kick[pool] = nil
    pool:kick()
  end
  submitted = 0
end

--- Who waits for a slot may go on.
local function wake(slot)
  slot.is_done = true
  if slot.is_asleep then slot.semaphore:post(1) end
end

local function recycle(slot)
  if last_spare >= MAX_SPARE then return end
  for i = 1, slot.n do slot[i] = nil end
  slot.a, slot.b, slot.c, slot.d, slot.pin = nil, nil, nil, nil, nil
  last_spare = last_spare + 1
  spare[last_spare] = slot
end

--- Copies what has been answered into its slots.
local function drain()
  local next_id = queue.next
  while true do
    local id = next_id(queue)
    if not id then break end
    local slot = slots[id]
    if slot then
      slots[id], in_flight = nil, in_flight - 1
      keep(slot, pcall(queue[slot.method], queue, slot.a, slot.b, slot.c, slot.d))
      if slot.pin and slot.is_asleep and vanished.is_gone(slot) then
        slot.pin:close()
      else
        if slot.pin and slot.is_asleep then vanished.will_look(slot) end
        wake(slot)
      end
    end
  end
end

--- One warning for each worker.
local function warn_of_states()
  if core.process_note("warned of lua_code_cache") then return end
  core.process_note("warned of lua_code_cache", "yes")
  ngx.log(ngx.WARN, "fpcache: lua_code_cache is off, so each request has a Lua state, a cache and connections of its own, ",
    "and answers are looked for every ", POLL * 1000, " ms; this is for development only (see docs/nginx.md)")
end

--- Starts what this worker needs; in a fork of one that had it, anew.
function engine.start()
  if queue and generation == core.fork_generation() then return end
  generation = core.fork_generation()
  slots, in_flight, to_kick, submitted = {}, 0, {}, 0
  queue = assert(core.completions(engine.outstanding_limit))
  if not wake_dirs then engine.set_wake_dir() end
  bell_channel = channel.new {
    queue = queue, drain = drain, kick = kick, in_flight = function() return in_flight end, dirs = wake_dirs,
  }
  if not core.is_first_state() then
    warn_of_states() -- nobody would end our light threads
    return
  end
  local ok, err = bell_channel:start()
  if not ok and not ngx.worker.exiting() then
    ngx.log(ngx.WARN, "fpcache: no timer could be started, so answers are looked for every ", POLL * 1000, " ms: ", err)
  end
end

local function new_slot()
  local slot = spare[last_spare]
  if slot then
    spare[last_spare], last_spare = nil, last_spare - 1
    slot.is_done = false
    return slot
  end
  return { semaphore = false, is_done = false, is_asleep = false, serial = 0 }
end

--- Submits, waiting for room while too much is on its way.
---@return userdata? id, string? err
local function submit(pool, statement, timeout, ...)
  local deadline, pause
  while true do
    local id, err = pool:submit(queue, statement, timeout, ...)
    if id then return id end
    deadline, pause = deadline or now() + timeout, math.min((pause or POLL) * 1.5, 0.02)
    timeout = deadline - now()
    if not err:find("^busy:") or timeout <= pause then return nil, err end
    if not bell_channel.is_open then drain() end
    ngx.sleep(pause)
  end
end

--- Waits for the light thread to wake us.
local function sleep_until_done(slot, timeout)
  if not slot.semaphore then slot.semaphore = semaphore.new(0) end
  slot.is_asleep, slot.serial = true, slot.serial + 1
  local ok = slot.semaphore:wait(timeout + PATIENCE)
  slot.is_asleep = false
  if not ok then slot.semaphore = false end -- a late post would wake whoever uses it next
end

--- Looks for the answer ourselves.
local function poll_until_done(slot, timeout)
  local deadline = now() + timeout + PATIENCE
  counts.polled = counts.polled + 1
  drain()
  while not slot.is_done and now() < deadline do
    ngx.sleep(POLL)
    drain()
  end
end

--- Results of a slot that is done; values, since the slot may be used again at once.
local function results(slot)
  if slot.n <= 4 then
    local called, r1, r2, r3, r4 = slot.called, slot[1], slot[2], slot[3], slot[4]
    recycle(slot)
    if not called then error(r1, 0) end
    return r1, r2, r3, r4
  end
  if not slot.called then error(slot[1], 0) end
  return unpack(slot, 1, slot.n)
end

--- From now on the answer to `id` goes to a slot.
local function track(id, slot, method, pool)
  slot.method = method
  slots[id], in_flight = slot, in_flight + 1
  counts.requests = counts.requests + 1
  to_kick[pool], submitted = true, submitted + 1
end

local function wait(slot, timeout)
  if bell_channel.is_open then sleep_until_done(slot, timeout) else poll_until_done(slot, timeout) end
  return slot.is_done
end

--- Sends a statement and waits for its answer.
---@param pool userdata or a pin
---@param method string of the completion queue, which converts the answer; a to d are its arguments
---@param statement userdata
---@param timeout number seconds
---@param ... any of the statement
---@return any ... what the pool's method of that name returns
function engine.call(pool, method, a, b, c, d, statement, timeout, ...)
  local err = refusal()
  if err then return nil, err end
  engine.start()
  local was_idle = in_flight == 0
  local id
  id, err = submit(pool, statement, timeout, ...)
  if not id then return nil, err end
  local slot = new_slot()
  slot.a, slot.b, slot.c, slot.d, slot.pin = a, b, c, d, pins[pool] and pool
  track(id, slot, method, pool)
  if was_idle or submitted >= KICK_EVERY or not bell_channel:kick_later() then kick() end
  if wait(slot, timeout) then return results(slot) end
  slots[id], in_flight = nil, in_flight - 1
  counts.abandoned = counts.abandoned + 1
  queue:abandon(id)
  return nil, LATE:format(timeout)
end

--- The same over a pin.  A coroutine that vanishes while it waits takes the pin along.
function engine.call_for_one(pin, ...)
  pins[pin] = true
  return engine.call(pin, ...)
end

--- Counts of this worker: requests, in_flight, polled (waited without the channel), abandoned, channel ("open", "none"), lost.
---@return table
function engine.stats()
  return {
    requests = counts.requests, in_flight = in_flight, polled = counts.polled, abandoned = counts.abandoned,
    channel = bell_channel and bell_channel.is_open and "open" or "none", lost = bell_channel and bell_channel.lost or 0,
  }
end

return engine

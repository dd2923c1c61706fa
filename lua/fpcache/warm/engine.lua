--- The work of a warm-up: batches are read one after the other, and stored several at once.
--
-- A batch is stored whole or not at all.  The resume file says how far all of them are stored without a gap; what was
-- stored beyond that is stored once more after an interruption, which changes nothing.  Of a key that comes twice the
-- last record stays: a batch waits for those before it that have a key of its own.
local checkpoint = require("fpcache.warm.checkpoint")
local codec = require("fpcache.codec")
local core = require("fpcache.core")
local parallel = require("fpcache.parallel")
local scheduler = require("fpcache.scheduler")

local system = core.system

local engine = {}

local BATCH_BYTES = 16 * 1024 * 1024 -- of the source's text
local RETRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 8, 0.1, 10
local LOOK_S = 0.001 -- between two looks whether another batch is stored
local PASSING = { connect = true, timeout = true, unknown = true, busy = true, conflict = true, closed = false }
local COPY_PASSING = { conflict = true } -- what the server holds of the job ends with the connection

--- Notes a record that gives no entry; too many of them end the job.
function engine.complain(job, batch, line, why)
  job.state.bad, batch.bad = job.state.bad + 1, batch.bad + 1
  batch.complaints[batch.bad] = { source = batch.source_name, line = line, error = why }
  job.state.first_bad = job.state.first_bad or ("%s, line %d: %s"):format(batch.source_name, line, why)
  if job.state.bad > job.max_errors then
    error({ fatal = ("invalid: %d bad records are more than max_errors (%d); the last: %s, line %d: %s"):format(
      job.state.bad, job.max_errors, batch.source_name, line, why) })
  end
end

--- Waits so long that the rate holds.
local function pace(job)
  if not job.rate then return true end
  local due = job.begun + (job.state.read - job.read_before) / job.rate
  while true do
    local rest = due - system.now()
    if rest <= 0 then return true end
    local ok, err = scheduler.sleep(math.min(rest, 0.1))
    if not ok then return nil, err end
  end
end

-- --- reading ---

--- The batch has an entry with this key from now on.
local function hold(job, batch, key)
  local holder = job.holders[key]
  if holder and holder ~= batch then batch.after[holder] = true end
  job.holders[key] = batch
end

local function add(job, batch, record, line)
  local key, value, ttl = job.map(record)
  if key == nil then
    if value ~= nil then engine.complain(job, batch, line, value) end
  elseif type(key) ~= "string" or value == nil then
    engine.complain(job, batch, line, type(key) ~= "string" and "the key is no string" or "there is no value")
  else
    local n = batch.count + 1
    batch.count, batch.keys[n], batch.values[n], batch.lines[n], batch.ttls[n] = n, key, value, line, ttl or false
    if job.holders then hold(job, batch, key) end
  end
end

--- Reads up to a batch; false at the end of the source.
local function fill(job, source, batch)
  local state = job.state
  local from = source.progress and source:progress()
  while batch.read < job.batch do
    local record, line_or_err, line = source:next()
    if record == nil and line_or_err == nil then return false end
    state.read, batch.read = state.read + 1, batch.read + 1
    if record == nil then
      engine.complain(job, batch, line, line_or_err)
    else
      add(job, batch, record, line_or_err)
    end
    if from and source:progress() - from > BATCH_BYTES then return true end
  end
  return true
end

--- An empty batch, the last of those under way.
function engine.new_batch(job, source_name)
  local batch = { count = 0, read = 0, bad = 0, stored = 0, keys = {}, values = {}, ttls = {}, lines = {}, after = {},
    complaints = {}, source_name = source_name, index = job.index }
  job.last = job.last + 1
  job.batches[job.last] = batch
  return batch
end

--- The next batch; nil at the end of all sources, or when the job cannot go on.
local function read_batch(job)
  if job.failure then return nil end
  local ok, err = pace(job)
  if not ok then return nil, err end
  if job.copy then return job.copy:read(job) end
  while true do
    if not job.source then
      job.index = job.index + 1
      if not job.open(job.index) then return nil end
      job.source, err = job.open(job.index)()
      if not job.source then return nil, err end
      job.state.source = job.source.name
    end
    local source = job.source
    local batch = engine.new_batch(job, source.name)
    local more = fill(job, source, batch)
    batch.place = source.place and source:place()
    if source.progress then job.state.bytes, job.state.total_bytes = source:progress() end
    if not more then
      source:close()
      job.source = nil
    end
    if batch.read > 0 then return batch end
    batch.is_done = true
  end
end

-- --- storing ---

--- Waits for the batches before this one that have a key of its own.
local function wait_for_others(job, batch)
  for other in pairs(batch.after) do
    while not other.is_done do
      if job.failure then return nil, job.failure end
      local ok, err = scheduler.sleep(LOOK_S)
      if not ok then return nil, err end
    end
  end
  return true
end

local function drop(batch, i)
  for _, list in ipairs { batch.keys, batch.values, batch.ttls, batch.lines } do table.remove(list, i) end
  batch.count = batch.count - 1
end

local function attempt(job, batch)
  if job.copy then return job.copy:store(batch) end
  local i = 0
  return job.cache:set_many(function()
    i = i + 1
    if i <= batch.count then return batch.keys[i], batch.values[i], batch.ttls[i] or nil end
  end)
end

--- Stores a batch; one entry that cannot be stored is a bad record, and the others are stored.
local function store(job, batch)
  local pause, tries = FIRST_PAUSE_S, 0
  while batch.count > 0 do
    local stored, err = attempt(job, batch)
    if stored then
      batch.stored = stored
      return true
    end
    local item = err:find("^invalid: ") and tonumber(err:match("%(item (%d+)%)"))
    if item and item <= batch.count then
      engine.complain(job, batch, batch.lines[item], (err:gsub("^invalid: ", ""):gsub(" %(item %d+%)", "")))
      drop(batch, item)
    elseif (job.copy and COPY_PASSING or PASSING)[err:match("^%a+")] and tries < RETRIES then
      tries = tries + 1
      local ok, why = scheduler.sleep(pause)
      if not ok then return nil, why end
      pause = math.min(2 * pause, LONGEST_PAUSE_S)
    else
      return nil, err
    end
  end
  return true
end

--- Puts the bodies of URLs where these stand; one that does not come is a bad record.
local function load(job, batch)
  local failed = {}
  local ok, err = job.remote:load(batch.values, function(i, why) failed[#failed + 1] = { i, why } end)
  if not ok then return nil, err end
  table.sort(failed, function(a, b) return a[1] < b[1] end)
  for _, one in ipairs(failed) do engine.complain(job, batch, batch.lines[one[1]], one[2]) end
  for i = #failed, 1, -1 do drop(batch, failed[i][1]) end -- from the end, so that places stay right
  return true
end

-- --- the order of the ends ---

local function write_complaints(job, batch)
  if not job.error_file then return end
  for _, one in ipairs(batch.complaints) do job.error_file:write(assert(codec.json.encode(one)), "\n") end
  job.error_file:flush()
end

--- Counts what is stored without a gap, and keeps the place.
local function settle(job)
  local kept, moved = job.kept, nil
  while job.first <= job.last and job.batches[job.first].is_done do
    local batch = job.batches[job.first]
    job.batches[job.first], job.first = nil, job.first + 1
    kept.read, kept.stored, kept.bad = kept.read + batch.read, kept.stored + batch.stored, kept.bad + batch.bad
    write_complaints(job, batch)
    if batch.place then moved = batch end
  end
  if not moved or not job.resume or job.dry_run then return true end
  return checkpoint.write(job.resume, { names = job.names, source = moved.index, place = moved.place, read = kept.read,
    stored = kept.stored, bad = kept.bad, error_bytes = job.error_file and job.error_file:seek() })
end

local function release(job, batch)
  if not job.holders then return end
  for _, key in ipairs(batch.keys) do
    if job.holders[key] == batch then job.holders[key] = nil end
  end
end

local function process(job, batch)
  local ok, err = true, nil
  if job.dry_run then
    batch.stored = batch.count
  else
    if job.remote and job.loads then ok, err = load(job, batch) end
    if ok then ok, err = wait_for_others(job, batch) end
    if ok then ok, err = store(job, batch) end
  end
  if not ok then return nil, err end
  release(job, batch)
  batch.is_done, batch.keys, batch.values, batch.after = true, nil, nil, nil
  job.state.stored = job.state.stored + batch.stored
  return settle(job)
end

--- Calls, and keeps why the job cannot go on: a message, or what was raised.
local function guarded(job, call, ...)
  local called, answer, err = pcall(call, job, ...)
  if not called then
    if type(answer) == "table" and answer.fatal then
      err = answer.fatal
    else
      job.raised = job.raised or { answer }
      err = "raised: " .. tostring(answer)
    end
    answer = nil
  end
  if err then job.failure = job.failure or err end
  return answer
end

local function report(job)
  job.state.seconds = system.now() - job.begun
  if job.on_progress then job.on_progress(job.state) end
end

--- Does the job: reads job.open(1)(), job.open(2)() … and stores what job.map makes of their records.
---@return boolean? ok
---@return string? err
function engine.run(job)
  job.batches, job.first, job.last = {}, 1, 0
  job.kept = { read = job.state.read, stored = job.state.stored, bad = job.state.bad }
  if job.jobs > 1 then job.holders = {} end
  local function next_batch() return guarded(job, read_batch) end
  local function run(batch)
    guarded(job, process, batch)
    guarded(job, report)
    if job.remote then job.remote:pump() end
  end
  if job.jobs == 1 then
    for batch in next_batch do
      run(batch)
      if job.failure then break end
    end
  else
    local _, err = parallel.run { jobs = job.jobs, each = next_batch, run = run }
    if type(err) == "string" then job.failure = job.failure or err end
  end
  if job.source then job.source:close() end
  job.state.seconds = system.now() - job.begun
  if job.failure then -- what is known of those that were not stored in order
    for i = job.first, job.last do write_complaints(job, job.batches[i]) end
  end
  if job.raised then error(job.raised[1], 0) end
  if job.failure then return nil, job.failure end
  return true
end

return engine

--- Warm-ups: from records of any number to entries of the cache, in batches, with a bounded memory.
--
-- A batch is stored whole or not at all; after it the resume file is replaced.  So an interrupted job that goes on
-- repeats at most one batch, which changes nothing, and leaves nothing out.
local checkpoint = require("fpcache.warm.checkpoint")
local codec = require("fpcache.codec")
local core = require("fpcache.core")
local duration = require("fpcache.duration")
local lines = require("fpcache.warm.lines")
local options = require("fpcache.options")
local query = require("fpcache.warm.query")
local template = require("fpcache.warm.template")

local system = core.system

local warm = {}

local BATCH_BYTES = 16 * 1024 * 1024 -- of the source's text
local RETRIES, FIRST_PAUSE_S, LONGEST_PAUSE_S = 8, 0.1, 10
local PASSING = { connect = true, timeout = true, unknown = true, busy = true, conflict = true, closed = false }

local OPTIONS = {
  cache = { type = "table" },                   -- where the entries go
  source = { type = "string table function" },  -- file, list of files, iterator, or { sql = …, connection options }
  format = { type = "string" },                 -- "jsonl", "json", "csv", "tsv"; by the suffix when not given
  map = { type = "function" },                  -- record -> key, value, ttl; or nil, why for a bad one; nil alone: none
  key = { type = "string" },                    -- template, such as "product:{id}"; with map: none
  value = { type = "string" },                  -- template; default: the record
  ttl = { type = "number string" },             -- seconds, "5m", or a template
  batch = { type = "integer", default = 5000, check = options.between(1, 1000000, " records") },
  rate = { type = "number", check = options.positive }, -- records per second at most
  resume = { type = "string" },                 -- file that keeps the place
  errors = { type = "string" },                 -- file for bad records: one JSON object a line
  max_errors = { type = "integer", default = 100, check = options.not_negative },
  dry_run = { type = "boolean", default = false },
  on_progress = { type = "function" },          -- called after each batch with a fpcache.WarmState
}

---@class fpcache.WarmState
---@field read integer records read, those before an interruption included
---@field stored integer
---@field bad integer
---@field seconds number of this run
---@field bytes integer? read of the file at hand
---@field total_bytes integer? of the file at hand
---@field source string its name
---@field resumed boolean

--- Where values that a record cannot give are told, and counted.
local function complain(job, line, why)
  local state = job.state
  state.bad = state.bad + 1
  if job.error_file then
    job.error_file:write(assert(codec.json.encode({ source = state.source, line = line, error = why })), "\n")
    job.error_file:flush()
  end
  if state.bad > job.max_errors then
    error({ fatal = ("invalid: %d bad records are more than max_errors (%d); the last: %s, line %d: %s"):format(
      state.bad, job.max_errors, state.source, line, why) })
  end
end

--- The function from a record to key, value, ttl.
local function mapper(o, level)
  if o.map then
    if o.key or o.value then error("options.map: excludes key and value", level + 1) end
    local ttl = o.ttl
    if type(ttl) == "string" then
      local seconds, why = duration.parse(ttl)
      if not seconds then error("options.ttl: " .. why, level + 1) end
      ttl = seconds
    end
    return function(record)
      local key, value, own_ttl = o.map(record)
      if own_ttl == nil then own_ttl = ttl end
      return key, value, own_ttl
    end
  end
  if not o.key then error("options: key or map is needed", level + 1) end
  local key_of, value_of, ttl_of, err
  key_of, err = template.text(o.key)
  if not key_of then return nil, err end
  value_of, err = template.value(o.value)
  if not value_of then return nil, err end
  if type(o.ttl) == "string" then
    ttl_of, err = template.text(o.ttl)
    if not ttl_of then return nil, err end
  end
  return function(record)
    local key, why = key_of(record)
    if not key then return nil, why end
    local value
    value, why = value_of(record)
    if value == nil then return nil, why end
    local ttl = o.ttl
    if ttl_of then
      local text
      text, why = ttl_of(record)
      if not text then return nil, why end
      ttl = tonumber(text) or duration.parse(text)
      if not ttl then return nil, "the ttl is no duration" end
    end
    return key, value, ttl
  end
end

--- Waits so long that the rate holds.
local function pace(job)
  if not job.rate then return true end
  local due = job.begun + (job.state.read - job.read_before) / job.rate
  while true do
    local rest = due - system.now()
    if rest <= 0 then return true end
    if core.interrupted() then return nil, "interrupted: by a signal" end
    system.sleep(math.min(rest, 0.1))
  end
end

--- Stores a batch; one entry that cannot be stored is a bad record, and the others are stored.
local function store(job, batch)
  local pause, tries = FIRST_PAUSE_S, 0
  while batch.count > 0 do
    local i = 0
    local stored, err = job.cache:set_many(function()
      i = i + 1
      if i <= batch.count then return batch.keys[i], batch.values[i], batch.ttls[i] or nil end
    end)
    if stored then
      job.state.stored = job.state.stored + stored
      return true
    end
    local item = err:find("^invalid: ") and tonumber(err:match("%(item (%d+)%)"))
    if item and item <= batch.count then
      complain(job, batch.lines[item], (err:gsub("^invalid: ", ""):gsub(" %(item %d+%)", "")))
      for _, list in ipairs { batch.keys, batch.values, batch.ttls, batch.lines } do table.remove(list, item) end
      batch.count = batch.count - 1
    elseif PASSING[err:match("^%a+")] and tries < RETRIES then
      tries = tries + 1
      system.sleep(pause)
      if core.interrupted() then return nil, "interrupted: by a signal" end
      pause = math.min(2 * pause, LONGEST_PAUSE_S)
    else
      return nil, err
    end
  end
  return true
end

--- Reads up to a batch; more is false at the end of the source.
local function fill(job, source, batch)
  local state = job.state
  local from = source.progress and source:progress()
  while batch.count < job.batch do
    local record, line_or_err, line = source:next()
    if record == nil and line_or_err == nil then return false end
    state.read = state.read + 1
    if record == nil then
      complain(job, line, line_or_err)
    else
      local key, value, ttl = job.map(record)
      if key == nil then
        if value ~= nil then complain(job, line_or_err, value) end
      elseif type(key) ~= "string" or value == nil then
        complain(job, line_or_err, type(key) ~= "string" and "the key is no string" or "there is no value")
      else
        local n = batch.count + 1
        batch.count, batch.keys[n], batch.values[n], batch.lines[n] = n, key, value, line_or_err
        batch.ttls[n] = ttl or false
      end
    end
    if from and source:progress() - from > BATCH_BYTES then return true end
  end
  return true
end

local function report(job, source)
  local state = job.state
  state.seconds = system.now() - job.begun
  if source.progress then state.bytes, state.total_bytes = source:progress() end
  if job.on_progress then job.on_progress(state) end
end

local function save(job, index, source)
  if not job.resume or job.dry_run then return true end
  local state = job.state
  return checkpoint.write(job.resume, { names = job.names, source = index, place = source:place(),
    read = state.read, stored = state.stored, bad = state.bad })
end

local function run_source(job, index, source)
  job.state.source = source.name
  local more = true
  while more do
    local batch = { count = 0, keys = {}, values = {}, ttls = {}, lines = {} }
    more = fill(job, source, batch)
    local ok, err = true, nil
    if job.dry_run then
      job.state.stored = job.state.stored + batch.count
    else
      ok, err = store(job, batch)
    end
    if ok then ok, err = save(job, index, source) end
    if ok then ok, err = pace(job) end
    report(job, source)
    if not ok then return nil, err end
  end
  return true
end

--- An iterator of records as a source.
local function iterate(next_record)
  local count = 0
  return {
    name = "iterator",
    next = function()
      local record = next_record()
      if record == nil then return nil end
      count = count + 1
      return record, count
    end,
    close = function() end,
  }
end

--- What to open, by what the caller gave: a list of { name, open }.
local function openers(o, level)
  local source = o.source
  if type(source) == "function" then
    return { { name = "iterator", open = function() return iterate(source) end } }
  elseif type(source) == "table" and source.sql then
    local where = {}
    for name, value in pairs(source) do
      if name ~= "sql" then where[name] = value end
    end
    return { { name = "query", open = function() return query.open(source.sql, where) end } }
  end
  local list = {}
  for i, path in ipairs(type(source) == "table" and source or { source }) do
    if type(path) ~= "string" then error("options.source: a list of file names is expected", level + 1) end
    list[i] = { name = path, open = function() return lines.open(path, o.format) end }
  end
  if #list == 0 then error("options.source: a file, a list of files, an iterator or { sql = … } is needed", level + 1) end
  return list
end

local function run_all(job, list, from)
  for index = from and from.source or 1, #list do
    local source, err = list[index].open()
    if not source then return nil, err end
    local ok = true
    if from and index == from.source then
      if source.go_to then
        ok, err = source:go_to(from.place)
      else
        ok, err = nil, "invalid: an iterator cannot be resumed"
      end
    end
    local called, answer, why = true, ok, err
    if ok then called, answer, why = pcall(run_source, job, index, source) end
    source:close()
    if not called then
      if type(answer) == "table" and answer.fatal then return nil, answer.fatal end
      error(answer, 0)
    end
    if not answer then return nil, why end
  end
  return true
end

--- Stores what a source of records gives.
--
--     fpcache.warm{ cache = cache, source = "products.jsonl", key = "product:{id}", ttl = 3600 }
--     fpcache.warm{ cache = cache, source = { sql = "SELECT * FROM product ORDER BY id", connection_string = url },
--                   map = function(row) return "product:" .. row.id, row end }
--
-- A bad record (not to be read, without its fields, with a value that cannot be stored) is told in `errors` and counted; more
-- than `max_errors` end the job.  Failures that pass (a lost connection, a timeout) are tried again for about 25 s.
---@param opts table { cache, source, format, map | key, value, ttl, batch, rate, resume, errors, max_errors, dry_run,
-- on_progress }: docs/warm.md
---@return fpcache.WarmState? state when the job was done
---@return string? err
---@return fpcache.WarmState? state how far it came, when it was not done
function warm.run(opts)
  local o = options.read(OPTIONS, opts, 3)
  if not o.source then error("options.source: is needed", 3) end
  if not o.cache and not o.dry_run then error("options.cache: is needed", 3) end
  if type(o.source) == "function" and o.resume then error("options.resume: an iterator cannot be resumed", 3) end
  local list = openers(o, 3)
  local map, err = mapper(o, 3)
  if not map then return nil, err end
  local job = {
    cache = o.cache, map = map, batch = o.batch, rate = o.rate, resume = o.resume, dry_run = o.dry_run,
    max_errors = o.max_errors, on_progress = o.on_progress, names = {}, begun = system.now(),
    state = { read = 0, stored = 0, bad = 0, seconds = 0, source = list[1].name, resumed = false },
  }
  if o.rate then job.batch = math.max(1, math.min(o.batch, math.floor(o.rate / 5))) end -- an even flow
  for i, one in ipairs(list) do job.names[i] = one.name end
  local from
  if o.resume then
    from, err = checkpoint.read(o.resume, job.names)
    if err then return nil, err end
  end
  if from then
    local state = job.state
    state.read, state.stored, state.bad, state.resumed = from.read, from.stored, from.bad, true
  end
  job.read_before = job.state.read
  if o.errors then
    job.error_file, err = io.open(o.errors, from and "ab" or "wb")
    if not job.error_file then return nil, "invalid: cannot write " .. err end
  end
  local called, ok, why = pcall(run_all, job, list, from)
  if job.error_file then job.error_file:close() end
  if not called then error(ok, 0) end
  if not ok then return nil, why, job.state end
  if o.resume and not o.dry_run then checkpoint.remove(o.resume) end
  return job.state
end

return warm

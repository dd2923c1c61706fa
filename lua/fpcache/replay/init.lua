--- Plays traces of cache calls against settings, to choose sizes and policies before production.
local chance = require("fpcache.policy.chance")
local core = require("fpcache.core")
local options = require("fpcache.options")
local policies = require("fpcache.policy")
local setting = require("fpcache.replay.setting")
local trace = require("fpcache.replay.trace")

local replay = {}

local SIMULATED = { ttl = true, jitter = true, negative_ttl = true, stale_ttl = true, refresh_ahead = true, beta = true,
  sliding = true, near = true, lock = true }
local FAILURES = "is about loading that fails or hangs, and a trace tells of none"
local NOT_SIMULATED = {
  error_backoff = FAILURES, soft_timeout = FAILURES, hard_timeout = FAILURES, lock_timeout = FAILURES,
  tags = "gives names, and what is invalidated is told by the trace: its entries have the tags that were recorded",
}

local function share(value)
  if not (value > 0 and value <= 1) then return ("must be more than 0 and at most 1, got %s"):format(tostring(value)) end
end

local SETTING = {
  name = { type = "string" },
  near_entries = { type = "integer", default = 10000, check = options.not_negative }, -- 0: no near cache
  near_bytes = { type = "number", default = 32 * 1024 * 1024, check = options.positive },
  near_ttl = { type = "number", default = 60, check = options.positive },
  near_negative_entries = { type = "integer", default = 1000, check = options.not_negative },
  near_negative_ttl = { type = "number", default = 10, check = options.positive },
  filter = { type = "boolean", default = true },
  filter_capacity = { type = "integer", default = 1000000, check = options.positive }, -- cuckoo_capacity
  filter_fpr = { type = "number", default = 0.001, check = options.share },
  ttl = { type = "number", check = options.positive }, -- of everything that is stored, whatever the trace says
  policy = { type = "table" },                         -- the fields of fpcache.policy that are SIMULATED
  load_seconds = { type = "number", default = 0.05, check = options.not_negative }, -- of one load, where the trace does not tell
  processes = { type = "integer", default = 1, check = options.between(1, 1000, " processes") },
}

local OPTIONS = {
  traces = { type = "table" },                      -- paths; "-" is standard input
  settings = { type = "table" },                    -- a list of tables as above
  format = { type = "string" },                     -- of trace.FORMATS; else it is guessed
  columns = { type = "table" },                     -- of a csv
  sample = { type = "number", default = 1, check = share }, -- play this share of the keys, on caches of this share
  max_keys = { type = "integer", default = 4000000, check = options.positive }, -- in the models of all settings together
  max_errors = { type = "integer", default = 100, check = options.not_negative },
  limit = { type = "integer", check = options.positive },   -- calls
  on_progress = { type = "function" },              -- (calls), every 100,000
}

local READS = { get = true, fetch = true, exists = true }
local SEED = 20261 -- of the chance in jitter and beta: the same trace gives the same report

local function policy_of(given, level)
  if not given then return nil end
  for name in pairs(given) do
    if not SIMULATED[name] then
      local why = NOT_SIMULATED[name] and ": it " .. NOT_SIMULATED[name] or ", and is no field of a policy"
      error(("options.settings: policy.%s is not simulated%s"):format(tostring(name), why), level + 1)
    end
  end
  local ok, made = pcall(policies.new, given, 1)
  if not ok then error("options.settings: " .. tostring(made):gsub("^.-:%d+: ", ""), level + 1) end
  return made
end

local function name_of(o, policy)
  local parts = { o.near_entries > 0 and ("near %d, %.0f MB, %g s"):format(o.near_entries, o.near_bytes / 1048576, o.near_ttl)
    or "no near cache", o.filter and "filter" or "no filter" }
  if o.filter and o.filter_capacity ~= SETTING.filter_capacity.default then
    parts[2] = ("filter of %d"):format(o.filter_capacity)
  end
  if o.filter and o.filter_fpr ~= SETTING.filter_fpr.default then
    parts[2] = ("%s at %g"):format(parts[2], o.filter_fpr)
  end
  if o.near_entries > 0 then
    if o.near_negative_entries ~= SETTING.near_negative_entries.default then
      parts[1] = ("%s, %d absent"):format(parts[1], o.near_negative_entries)
    end
    if o.near_negative_ttl ~= SETTING.near_negative_ttl.default then
      parts[1] = ("%s, absent %g s"):format(parts[1], o.near_negative_ttl)
    end
  end
  if o.ttl then parts[#parts + 1] = ("ttl %g"):format(o.ttl) end
  local fields = {}
  for field, value in pairs(policy or {}) do fields[#fields + 1] = ("%s=%s"):format(field, tostring(value)) end
  table.sort(fields)
  if policy then parts[#parts + 1] = "policy " .. table.concat(fields, " ") end
  return table.concat(parts, ", ")
end

--- Whether the models have got too large, or the user wants to stop.
---@return boolean? ok, string? err
local function check(o, settings, state)
  local keys = 0
  for i = 1, #settings do keys = keys + settings[i].keys + settings[i].marks end
  if keys > o.max_keys then
    return nil, ("invalid: the trace has more keys than max_keys (%d over %d settings); play a sample of them, such as 0.1")
      :format(o.max_keys, #settings)
  end
  if core.interrupted() then return nil, "interrupted: the replay was stopped" end
  if o.on_progress and state.calls % 100000 == 0 then o.on_progress(state.calls) end
  return true
end

--- Plays one trace.
local function play(source, o, settings, state)
  local limit, fills = o.sample < 1 and o.sample * 2 ^ 32, source.fills
  while not (o.limit and state.calls >= o.limit) do
    local time, op, key, _, bytes, ttl, about = source:next()
    if not time then
      if not op then break end
      state.bad = state.bad + 1
      if state.bad > o.max_errors then
        return nil, ("invalid: %s, record %d: %s; more than %d bad records"):format(source.name, source:place(), op, o.max_errors)
      end
    elseif READS[op] then
      state.reads = state.reads + 1
    end
    if time and (not limit or trace.WHOLE[op] or trace.is_sampled(key, limit)) then
      state.calls = state.calls + 1
      state.first = state.first or time
      if time > (state.last or time - 1) then state.last = time end
      for i = 1, #settings do settings[i]:play(time, op, key, bytes, ttl, fills, about) end
      if state.calls % 1000 == 0 then
        local ok, err = check(o, settings, state)
        if not ok then return nil, err end
      end
    end
  end
  return true
end

--- Opens all of them, so that a mistake shows at once.
---@return fpcache.Trace[]? sources, string? err
local function open_all(o)
  local sources = {}
  for i, path in ipairs(o.traces) do
    local source, err = trace.open(path, o)
    if source and i > 1 and source.sample ~= sources[1].sample then
      err = ("invalid: %s was recorded with another sample than %s"):format(path, o.traces[1])
    end
    sources[i] = source
    if err then
      for _, one in ipairs(sources) do one:close() end
      return nil, err
    end
  end
  return sources
end

--- The settings as they are used: with defaults, policies, and names.
local function read_settings(settings, level)
  local wanted = {}
  for i, given in ipairs(settings or { {} }) do
    wanted[i] = options.read(SETTING, given, level + 1, "options.settings")
    wanted[i].policy = policy_of(given.policy, level + 1)
    wanted[i].name = given.name or name_of(wanted[i], given.policy)
  end
  return wanted
end

local PLAY_OPTIONS = {
  server = { type = "table" },                                            -- connection options of fpcache.new
  speed = { type = "number", default = 100, check = options.positive },   -- times as fast as the trace
}
for _, name in ipairs { "traces", "settings", "format", "columns", "sample", "max_errors", "limit" } do
  PLAY_OPTIONS[name] = OPTIONS[name]
end

--- Plays traces at a server: the calls are made, by real caches in a namespace of their own, which is empty afterwards.
---@param opts table { traces, settings, format, columns, sample, max_errors, limit, server, speed }
---@return table[]? measured of each setting; see replay/live.lua
---@return string? err
function replay.play(opts)
  local o = options.read(PLAY_OPTIONS, opts, 2)
  if not o.server then error("options.server: connection options are expected", 2) end
  local live, measured = require("fpcache.replay.live"), {}
  for i, one in ipairs(read_settings(o.settings, 2)) do
    local err
    measured[i], err = live.run { traces = o.traces, setting = one, connection = o.server, speed = o.speed, format = o.format,
      columns = o.columns, sample = o.sample, limit = o.limit, max_errors = o.max_errors }
    if not measured[i] then return nil, err end
  end
  return measured
end

--- Plays traces against settings.
---@param opts table { traces, settings, format, columns, sample, max_keys, max_errors, limit, on_progress }
---@return table? report { kind, calls, bad, seconds (of the trace), formats, settings = list of results }
---@return string? err
function replay.run(opts)
  local o = options.read(OPTIONS, opts, 2)
  if not o.traces or #o.traces == 0 then error("options.traces: a list of paths is expected", 2) end
  if o.format and not (" " .. table.concat(trace.FORMATS, " ") .. " "):find(" " .. o.format .. " ", 1, true) then
    error("options.format: one of " .. table.concat(trace.FORMATS, ", ") .. " is expected", 2)
  end
  local wanted = read_settings(o.settings, 2)
  local sources, err = open_all(o)
  if not sources then return nil, err end
  local settings, state, formats = {}, { calls = 0, reads = 0, bad = 0 }, {}
  for i, one in ipairs(wanted) do
    one.sample = o.sample * sources[1].sample
    settings[i], err = setting.new(one)
    if not settings[i] then break end
  end
  local ok = #settings == #wanted
  for i, source in ipairs(sources) do
    local called = true
    formats[i] = source.format
    if ok then called, ok, err = pcall(chance.seeded, SEED, play, source, o, settings, state) end
    source:close()
    if not called then
      if type(ok) ~= "table" or not ok.fatal then error(ok, 0) end
      ok, err = nil, ok.fatal
    end
  end
  local results = {}
  for i, one in ipairs(settings) do
    if o.sample < 1 then one:correct(state.reads * o.sample) end
    results[i] = one:result()
    one:close()
  end
  if not ok then return nil, err end
  return { kind = "fpcache-replay", calls = state.calls, bad = state.bad, seconds = (state.last or 0) - (state.first or 0),
    formats = formats, sample = o.sample * sources[1].sample, settings = results }
end

return replay

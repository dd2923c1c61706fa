--- Plays traces of cache calls against settings, to choose sizes and policies before production.
local core = require("fpcache.core")
local options = require("fpcache.options")
local policies = require("fpcache.policy")
local setting = require("fpcache.replay.setting")
local trace = require("fpcache.replay.trace")

local replay = {}

local SIMULATED = { ttl = true, stale_ttl = true, refresh_ahead = true, sliding = true }

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
  ttl = { type = "number", check = options.positive }, -- of everything that is stored, whatever the trace says
  policy = { type = "table" },                         -- ttl, stale_ttl, refresh_ahead, sliding of fpcache.policy
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

local function policy_of(given, level)
  if not given then return nil end
  for name in pairs(given) do
    if not SIMULATED[name] then
      error(("options.settings: policy.%s is not simulated (ttl, stale_ttl, refresh_ahead and sliding are)"):format(
        tostring(name)), level + 1)
    end
  end
  local ok, made = pcall(policies.new, given, 1)
  if not ok then error("options.settings: " .. tostring(made):gsub("^.-:%d+: ", ""), level + 1) end
  return made
end

local function name_of(o, policy)
  local parts = { o.near_entries > 0 and ("near %d, %.0f MB, %g s"):format(o.near_entries, o.near_bytes / 1048576, o.near_ttl)
    or "no near cache", o.filter and "filter" or "no filter" }
  if o.ttl then parts[#parts + 1] = ("ttl %g"):format(o.ttl) end
  local fields = {}
  for field, value in pairs(policy or {}) do fields[#fields + 1] = ("%s=%s"):format(field, tostring(value)) end
  table.sort(fields)
  if policy then parts[#parts + 1] = "policy " .. table.concat(fields, " ") end
  return table.concat(parts, ", ")
end

--- Whether a key is in the sample.
local function is_sampled(key, limit)
  return tonumber(core.disguise_key("fpcache replay", key):sub(1, 8), 16) < limit
end

--- Whether the models have got too large, or the user wants to stop.
---@return boolean? ok, string? err
local function check(o, settings, state)
  local keys = 0
  for i = 1, #settings do keys = keys + settings[i].keys end
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
    local time, op, key, _, bytes, ttl = source:next()
    if not time then
      if not op then break end
      state.bad = state.bad + 1
      if state.bad > o.max_errors then
        return nil, ("invalid: %s, record %d: %s; more than %d bad records"):format(source.name, source:place(), op, o.max_errors)
      end
    elseif op ~= "set" and op ~= "delete" then
      state.reads = state.reads + 1
    end
    if time and (not limit or is_sampled(key, limit)) then
      state.calls = state.calls + 1
      state.first = state.first or time
      if time > (state.last or time - 1) then state.last = time end
      for i = 1, #settings do settings[i]:play(time, op, key, bytes, ttl, fills) end
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
  local wanted = {}
  for i, given in ipairs(o.settings or { {} }) do
    wanted[i] = options.read(SETTING, given, 2, "options.settings")
    wanted[i].policy, wanted[i].name = policy_of(given.policy, 2), given.name or name_of(wanted[i], given.policy)
  end
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
    if ok then called, ok, err = pcall(play, source, o, settings, state) end
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

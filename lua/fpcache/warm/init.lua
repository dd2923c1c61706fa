--- Warm-ups: from records of any number to entries of the cache, in batches, with a bounded memory.
local checkpoint = require("fpcache.warm.checkpoint")
local duration = require("fpcache.duration")
local engine = require("fpcache.warm.engine")
local lines = require("fpcache.warm.lines")
local mapping = require("fpcache.warm.mapping")
local on_server = require("fpcache.warm.on_server")
local options = require("fpcache.options")
local query = require("fpcache.warm.query")
local remote = require("fpcache.warm.remote")
local system = require("fpcache.core").system

local warm = {}

local URL_BATCH = 64 -- records whose values come by HTTP: their bodies are in memory together

local OPTIONS = {
  cache = { type = "table" },                   -- where the entries go
  source = { type = "string table function" },  -- file or URL, a list, iterator, or { sql = …, connection options }
  format = { type = "string" },                 -- "jsonl", "json", "csv", "tsv", "lines", "deb822"; else by the suffix
  map = { type = "function" },                  -- record -> key, value, ttl; or nil, why for a bad one; nil alone: none
  on_server = { type = "boolean" },             -- { sql } alone, in the cache's database: the rows do not leave the server
  key = { type = "string" },                    -- template, such as "product:{id}"; with map: none
  value = { type = "string" },                  -- template; default: the record
  url = { type = "string" },                    -- template of the URL whose body is the value
  http = { type = "table" },                    -- how URLs are fetched: remote.OPTIONS
  ttl = { type = "number string" },             -- seconds, "5m", or a template
  jobs = { type = "integer", default = 4, check = options.between(1, 64, "") }, -- batches that are stored at once
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
---@field first_bad string? which was the first of this run, and why
---@field seconds number of this run
---@field bytes integer? read of the file at hand
---@field total_bytes integer? of the file at hand
---@field source string its name
---@field resumed boolean

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

--- What to open, by what the caller gave: a list of { name, url, open(fetched) }.
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
    if type(path) ~= "string" then error("options.source: a list of names of files is expected", level + 1) end
    if remote.is_url(path) then
      list[i] = { name = remote.shown(path), url = path, open = function(fetched) return fetched:open(i, o.format) end }
    else
      list[i] = { name = path, open = function() return lines.open(path, o.format) end }
    end
  end
  if #list == 0 then error("options.source: a file, a list of files, an iterator or { sql = … } is needed", level + 1) end
  return list
end

--- The function that opens the index-th source, at the place where an interrupted job goes on; nil beyond the last.
local function opener(list, fetched, from)
  return function(index)
    if not list[index] then return nil end
    return function()
      local source, err = list[index].open(fetched)
      if not source then return nil, err end
      if from and index == from.source then
        local ok
        ok, err = source:go_to(from.place)
        if not ok then
          source:close()
          return nil, err
        end
      end
      return source
    end
  end
end

--- Opens the file for bad records; of an interrupted job's it keeps what belongs to the records that are stored.
local function open_errors(path, from)
  local kept = ""
  if from then
    local file = io.open(path, "rb")
    kept = file and file:read(from.error_bytes or 0) or ""
    if file then file:close() end
  end
  local file, err = io.open(path, "wb")
  if not file then return nil, "invalid: cannot write " .. err end
  file:write(kept)
  file:flush()
  return file
end

--- Stores what a source of records gives.
--
--     fpcache.warm{ cache = cache, source = "products.jsonl", key = "product:{id}", ttl = 3600 }
--     fpcache.warm{ cache = cache, source = { sql = "SELECT * FROM product ORDER BY id", connection_string = url },
--                   map = function(row) return "product:" .. row.id, row end }
--
-- A bad record (not to be read, without its fields, with a value that cannot be stored) is told in `errors` and counted; more
-- than `max_errors` end the job.  Failures that pass (a lost connection, a timeout) are tried again for about 25 s.
---@param opts table { cache, source, format, map | key, value, url, ttl, jobs, batch, rate, resume, errors, max_errors, dry_run,
-- http, on_progress }: docs/warm.md
---@return fpcache.WarmState? state when the job was done
---@return string? err
---@return fpcache.WarmState? state how far it came, when it was not done
function warm.run(opts)
  local o = options.read(OPTIONS, opts, 3)
  if type(o.ttl) == "string" then o.ttl = duration.parse(o.ttl) or o.ttl end
  if not o.source then error("options.source: is needed", 3) end
  if not o.cache and not o.dry_run then error("options.cache: is needed", 3) end
  if type(o.source) == "function" and o.resume then error("options.resume: an iterator cannot be resumed", 3) end
  if o.on_server and not (type(o.source) == "table" and o.source.sql and next(o.source, next(o.source)) == nil) then
    error("options.on_server: belongs to a source of sql alone, which runs in the cache's database", 3)
  end
  local list = openers(o, 3)
  local map, err = mapping.new(o, 3)
  if not map then return nil, err end
  local job = {
    cache = o.cache, map = map, batch = o.batch, rate = o.rate, resume = o.resume, dry_run = o.dry_run, jobs = o.jobs,
    max_errors = o.max_errors, on_progress = o.on_progress, names = {}, begun = system.now(), loads = o.url ~= nil,
    state = { read = 0, stored = 0, bad = 0, seconds = 0, source = list[1].name, resumed = false },
  }
  if o.rate then job.batch = math.max(1, math.min(job.batch, math.floor(o.rate / 5))) end -- an even flow
  if o.url then job.batch = math.min(job.batch, URL_BATCH) end
  local urls, any = {}, o.url
  for i, one in ipairs(list) do
    job.names[i], urls[i] = one.name, one.url or false
    any = any or one.url
  end
  local from
  if o.resume then
    from, err = checkpoint.read(o.resume, job.names)
    if err then return nil, err end
  end
  if from then
    local state = job.state
    state.read, state.stored, state.bad, state.resumed = from.read, from.stored, from.bad, true
  end
  job.read_before, job.index = job.state.read, (from and from.source or 1) - 1
  if o.errors then
    job.error_file, err = open_errors(o.errors, from)
    if not job.error_file then return nil, err end
  end
  if any or o.http then job.remote = remote.new(o.http, urls, 3) end
  if o.on_server then
    job.copy, err = on_server.open(o.source.sql, o)
    if not job.copy then
      if job.error_file then job.error_file:close() end
      return nil, err
    end
    job.jobs, job.index = 1, 1
    if from then job.copy:go_to(from.place) end
  end
  job.open = opener(list, job.remote, from)
  local called, ok, why = pcall(engine.run, job)
  if job.remote then job.remote:close() end
  if job.copy then job.copy:close() end
  if job.error_file then job.error_file:close() end
  if not called then error(ok, 0) end
  if not ok then return nil, why, job.state end
  if o.resume and not o.dry_run then checkpoint.remove(o.resume) end
  return job.state
end

return warm

--- What nginx's workers can tell: a page for people, JSON, and text for Prometheus.
--
-- Each worker notes its numbers in a lua_shared_dict every few seconds, and worker 0 a sample of all of them, so that any
-- worker can answer for all, with the last minutes.  Without such a dict a worker answers for itself alone.
local answering = require("fpcache.nginx.answering")
local array_mt = require("fpcache.codec").array_mt
local core = require("fpcache.core")
local exposition = require("fpcache.exposition")
local options = require("fpcache.options")

---@class fpcache.nginx.Status
local Status = {}
Status.__index = Status

local status = {}

status.OPTIONS = {
  dict = { type = "string" },                                                      -- the name of a lua_shared_dict of 1 MiB
  interval = { type = "number", default = 2, check = options.between(0.1, 60, " seconds") },
}

local SAMPLES = 300          -- that are kept: ten minutes at 2 s
local FORGOTTEN_AFTER = 5    -- intervals without a sign of life
local FORMATS = { html = "text/html; charset=utf-8", json = "application/json", prometheus = exposition.CONTENT_TYPE }

--- What JSON can hold of a value.
local function plain(value)
  if type(value) == "table" then
    local copy = {}
    for key, field in pairs(value) do copy[key] = plain(field) end
    return copy
  end
  if type(value) == "number" and (value ~= value or math.abs(value) == math.huge) then return nil end
  local kind = type(value)
  if kind == "string" or kind == "number" or kind == "boolean" then return value end
  return tonumber(value) -- integers of 64 bits
end

--- This worker's numbers.
function Status:report()
  local caches, responses = {}, {}
  for name, cache in pairs(self.caches()) do
    local began = core.system.now()
    local stats, err = cache:stats()
    caches[name] = stats or { server_error = err }
    if stats and stats.server then caches[name].round_trip = core.system.now() - began end
  end
  for name, one in pairs(self.responses()) do
    responses[name] = { counts = one.counts, latency = one.latency, upstream = one.upstream_latency }
  end
  return plain {
    worker = ngx.worker.id() or 0, pid = ngx.worker.pid(), time = ngx.now(), since = self.since, caches = caches,
    responses = responses, engine = self.engine(),
  }
end

--- This worker's numbers as Prometheus scrapes them.
function Status:own_text()
  local worker = tostring(ngx.worker.id() or 0)
  local texts = {}
  for name, cache in pairs(self.caches()) do
    texts[#texts + 1] = cache:prometheus { labels = { worker = worker, cache = name } }
  end
  local lines, outcomes, latencies, upstream = {}, {}, {}, {}
  for name, one in pairs(self.responses()) do
    local labels = exposition.labels { worker = worker, responses = name }
    for outcome, count in pairs(one.counts) do
      outcomes[#outcomes + 1] = { exposition.labels { worker = worker, responses = name, outcome = outcome:lower() }, count }
    end
    latencies[#latencies + 1], upstream[#upstream + 1] = { labels, one.latency }, { labels, one.upstream_latency }
  end
  table.sort(outcomes, function(a, b) return a[1] < b[1] end)
  if #outcomes > 0 then
    exposition.add(lines, "responses_total", "counter", "Requests answered, by X-Cache; and what was purged.", outcomes)
    exposition.add_histogram(lines, "response_seconds", "Time to answer a request.", answering.BUCKETS, latencies)
    exposition.add_histogram(lines, "upstream_seconds", "Time the origin took.", answering.BUCKETS, upstream)
    texts[#texts + 1] = table.concat(lines, "\n")
  end
  return exposition.merge(texts)
end

local function add_histogram(total, one)
  for i, count in ipairs(one.counts) do total.counts[i] = total.counts[i] + count end
  total.sum, total.count = total.sum + one.sum, total.count + one.count
end

--- The numbers of several workers in one: counts are added up; of the table all say the same.
local function total_of(reports)
  local total = {
    workers = #reports, hits = 0, misses = 0, near_hits = 0, near_entries = 0, near_bytes = 0, outcomes = {},
    latency = answering.new_histogram(), upstream = answering.new_histogram(),
  }
  for _, report in ipairs(reports) do
    local rows, bytes = 0, 0
    for _, stats in pairs(report.caches) do
      local near, server = stats.near or {}, stats.server
      total.hits, total.misses = total.hits + (stats.hits or 0), total.misses + (stats.misses or 0)
      total.near_hits = total.near_hits + (near.hits or 0)
      total.near_entries, total.near_bytes = total.near_entries + (near.entries or 0), total.near_bytes + (near.bytes or 0)
      if server then
        rows, bytes = math.max(rows, server.rows), math.max(bytes, server.bytes)
        total.rows, total.bytes = math.max(total.rows or 0, rows), math.max(total.bytes or 0, bytes)
      end
      if stats.round_trip then total.round_trip = math.max(total.round_trip or 0, stats.round_trip) end
    end
    for _, one in pairs(report.responses) do
      for outcome, count in pairs(one.counts) do total.outcomes[outcome] = (total.outcomes[outcome] or 0) + count end
      add_histogram(total.latency, one.latency)
      add_histogram(total.upstream, one.upstream)
    end
  end
  return total
end

--- What the workers noted lately, by worker.
local function noted(self)
  local reports = setmetatable({}, array_mt)
  for id = 0, (ngx.worker.count() or 1) - 1 do
    local report = core.json_decode(self.dict:get("worker:" .. id) or "null")
    if type(report) == "table" then reports[#reports + 1] = report end
  end
  return reports
end

--- Notes this worker's numbers; worker 0 takes a sample.
local function note(self)
  local report = self:report()
  local keep, dict = self.interval * FORGOTTEN_AFTER, self.dict
  local ok, err = dict:set("worker:" .. report.worker, (core.json_encode(report)), keep)
  if ok then ok, err = dict:set("text:" .. report.worker, self:own_text(), keep) end
  if ok and report.worker == 0 then
    local sample = total_of(noted(self))
    sample.time = report.time
    local number = dict:incr("samples", 1, 0)
    ok, err = dict:set("sample:" .. number % SAMPLES, (core.json_encode(sample)))
  end
  if not ok and not self.warned then
    self.warned = true
    ngx.log(ngx.WARN, "fpcache: the status does not fit into lua_shared_dict ", self.dict_name, ": ", err)
  end
end

local function tick(premature, self)
  if premature or self.is_noting then return end
  self.is_noting = true -- a server that hangs shall not make these pile up
  local ok, err = pcall(note, self)
  self.is_noting = false
  if not ok then ngx.log(ngx.ERR, "fpcache: status: ", err) end
end

--- For init_worker_by_lua.
---@param opts table? status.OPTIONS
---@param sources table { caches = fun(), responses = fun(), engine = fun() }
---@param level integer? whose line wrong options blame
---@return fpcache.nginx.Status
function status.new(opts, sources, level)
  level = (level or 1) + 1
  local read = options.read(status.OPTIONS, opts, level)
  local self = setmetatable({
    caches = sources.caches, responses = sources.responses, engine = sources.engine, interval = read.interval,
    dict_name = read.dict, since = ngx.now(),
  }, Status)
  if read.dict then
    self.dict = ngx.shared[read.dict]
    if not self.dict then error(("options.dict: nginx.conf has no lua_shared_dict %s"):format(read.dict), level) end
    ngx.timer.at(0, tick, self)
    ngx.timer.every(read.interval, tick, self)
  end
  return self
end

--- The samples in order of time.
local function history(self)
  local list = setmetatable({}, array_mt)
  local last = self.dict:get("samples") or 0
  for number = math.max(1, last - SAMPLES + 1), last do
    local sample = core.json_decode(self.dict:get("sample:" .. number % SAMPLES) or "null")
    if type(sample) == "table" then list[#list + 1] = sample end
  end
  return list
end

--- All that JSON and the page show.
---@return table
function Status:read()
  local reports, samples = { self:report() }, setmetatable({}, array_mt)
  if self.dict then reports, samples = noted(self), history(self) end
  return {
    version = core.version, time = ngx.now(), interval = self.interval, scope = self.dict and "all" or "worker",
    buckets = answering.BUCKETS, workers = reports, total = plain(total_of(reports)), history = samples,
  }
end

--- The text for Prometheus.
---@return string
function Status:text()
  if not self.dict then return self:own_text() end
  local texts = {}
  for id = 0, (ngx.worker.count() or 1) - 1 do texts[#texts + 1] = self.dict:get("text:" .. id) end
  local lines = {}
  exposition.add(lines, "workers", "gauge", "Workers that noted their numbers lately.", { { "", #texts } })
  texts[#texts + 1] = table.concat(lines, "\n")
  return exposition.merge(texts)
end

--- Answers a request; for content_by_lua, behind your access rules.
---@param format "html"|"json"|"prometheus"|nil default: what the argument "format" of the request says, or html
function Status:serve(format)
  format = format or ngx.var.arg_format or "html"
  if not FORMATS[format] then
    ngx.status = 400
    ngx.header["Content-Type"] = "text/plain"
    return ngx.say("format: html, json or prometheus")
  end
  local body
  if format == "html" then
    body = require("fpcache.nginx.status_page")
    ngx.header["Content-Security-Policy"] = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
      .. "connect-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
  elseif format == "json" then
    body = core.json_encode(self:read())
  else
    body = self:text()
  end
  ngx.header["Content-Type"], ngx.header["Cache-Control"] = FORMATS[format], "no-store"
  ngx.header["Content-Length"] = #body
  ngx.print(body)
end

return status

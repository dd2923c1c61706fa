--- One look at a cache: the server's numbers, and what processes published; and what happened between two looks.
local connection = require("fpcache.connection")
local core = require("fpcache.core")
local doctor_statements = require("fpcache.statements.doctor")
local latency = require("fpcache.observe.latency")
local published = require("fpcache.top.published")
local sql = require("fpcache.sql")
local statements = require("fpcache.statements.top")

local SAMPLE_ROWS = 10000
local NAMESPACES_EVERY = 10 -- looks: they do not change fast

---@class fpcache.top.Sampler
local Sampler = {}
Sampler.__index = Sampler

local sample = {}

--- Opens a sampler, with one connection.
---@param o table options of fpcache.new as options.read() gives them for connection.OPTIONS
---@param dirs string[] folders and URLs of published caches
---@return fpcache.top.Sampler? sampler
---@return string? err
function sample.open(o, dirs)
  local pool, quoted = connection.open_few(o, 1, 2)
  if not pool then return nil, quoted end
  return setmetatable({ pool = pool, o = o, dirs = dirs, quoted = quoted, looks = 0 }, Sampler)
end

local function ask(conn, o, text, ...)
  local rows, err = conn:query(text, o.timeout, ...)
  if not rows then return nil, err end
  return rows
end

--- The biggest namespaces, estimated from some pages.
local function namespaces(self, conn, server)
  local share = math.min(1, SAMPLE_ROWS / math.max(server.rows or 0, 1))
  local rows = ask(conn, self.o, sql.fill(statements.namespaces, { schema = self.quoted }), ("%.9g"):format(100 * share))
  for _, row in ipairs(rows or {}) do
    row.entries, row.bytes = math.floor(row.entries / share), math.floor(row.bytes / share)
  end
  return rows
end

local function look_at_server(self)
  local conn, err = self.pool:acquire(self.o.timeout)
  if not conn then return nil, err end
  local rows
  rows, err = ask(conn, self.o, statements.server, self.o.schema)
  local server = rows and rows[1]
  if rows and not server then
    err = ("schema: there is no cache in schema %s; run `fpcache admin setup`"):format(self.o.schema)
  end
  if server then
    local feed = ask(conn, self.o, sql.fill(doctor_statements.feed, sql.feed_places(self.quoted))) -- nil: no right to see it
    server.feed = feed and feed[1]
    local evicted = ask(conn, self.o, sql.fill(statements.evicted, { schema = self.quoted }))
    server.evictions = evicted and evicted[1].total
    if self.looks % NAMESPACES_EVERY == 0 then self.namespaces = namespaces(self, conn, server) end
    server.namespaces, self.looks = self.namespaces, self.looks + 1
  end
  conn:close()
  return server, err
end

--- One look.
---@return table look { at, server or server_error, processes }
function Sampler:look()
  local look = { at = core.system.now(), wall = core.system.wall() }
  look.server, look.server_error = look_at_server(self)
  look.processes, look.publish_error = published.read(self.dirs)
  return look
end

function Sampler:close() self.pool:close() end

-- --- what happened in between ---

local function rate(after, before, seconds)
  if type(after) ~= "number" or type(before) ~= "number" or seconds <= 0 then return nil end
  return math.max(after - before, 0) / seconds
end

local function share(part, whole)
  return whole and whole > 0 and part / whole or nil
end

local SERVER_RATES = { "lookups", "inserts", "updates", "deletes", "evictions" }

local function server_between(after, before, seconds)
  local rates = { hot = share(after.hot_updates, after.updates), dead = share(after.dead, (after.rows or 0) + (after.dead or 0)) }
  for _, name in ipairs(SERVER_RATES) do rates[name] = rate(after[name], before and before[name], seconds) end
  local hit, read = after.blocks_hit, after.blocks_read
  if before then
    hit, read = (hit or 0) - (before.blocks_hit or 0), (read or 0) - (before.blocks_read or 0)
    local updates = (after.updates or 0) - (before.updates or 0)
    if updates > 0 then rates.hot = ((after.hot_updates or 0) - (before.hot_updates or 0)) / updates end
  end
  rates.in_memory = share(hit, (hit or 0) + (read or 0))
  return rates
end

local function number(table_, field) return table_ and tonumber(table_[field]) or 0 end

--- One process between two of its publications; since its start when there is one only.
local function process_between(after, before)
  local now, then_ = after.stats, before and before.at < after.at and before.stats or nil
  local seconds = then_ and after.at - before.at or nil
  local function grown(layer, field)
    local a = layer and now[layer] or now
    local b = then_ and (layer and then_[layer] or then_)
    return number(a, field) - (then_ and number(b, field) or 0)
  end
  local hits, misses = grown(nil, "hits"), grown(nil, "misses")
  local near, negative, absent = grown("near", "hits"), grown("near", "negative_hits"), grown("filter", "absent")
  local reads = hits + misses
  local counts = latency.between(now.events and now.events.latency or {}, then_ and then_.events and then_.events.latency)
  local pool, token = now.pool or {}, now.token
  local calls = now.events and grown("events", "calls") or reads + grown(nil, "sets") -- nobody counts more
  return {
    id = after.id, pid = after.pid, host = after.host, namespace = after.namespace, schema = after.schema, age = after.age,
    calls = seconds and calls / seconds, errors = seconds and grown("events", "errors") / seconds,
    reads = reads,
    hit_ratio = share(hits, reads), near_ratio = share(near, reads), absent_ratio = share(negative + absent, reads),
    saved = share(near + negative + absent, reads),
    p50 = latency.percentile(counts, 0.5), p99 = latency.percentile(counts, 0.99), latency = counts,
    near_bytes = now.near and now.near.bytes,
    evictions = seconds and grown("near", "evictions") / seconds,
    feed = now.feed and now.feed.state, lag = now.feed and now.feed.lag, filter = now.filter and now.filter.state,
    lent = pool.lent, idle = pool.idle, waiting = pool.waiting, breaker = now.policies and now.policies.breaker,
    token = token and { expires_in = token.expires_in, failures = token.failures, last_error = token.last_error } or nil,
  }
end

--- All processes as one.
local function together(processes)
  local all = { calls = 0, reads = 0, hits = 0, near = 0, absent = 0, counts = {} }
  for _, one in ipairs(processes) do
    all.calls, all.reads = all.calls + (one.calls or 0), all.reads + one.reads
    all.hits, all.near = all.hits + (one.hit_ratio or 0) * one.reads, all.near + (one.near_ratio or 0) * one.reads
    all.absent = all.absent + (one.absent_ratio or 0) * one.reads
    latency.sum(all.counts, one.latency)
    if one.lag then all.lag = math.max(all.lag or 0, one.lag) end
  end
  return { calls = all.calls, reads = all.reads, hit_ratio = share(all.hits, all.reads), near_ratio = share(all.near, all.reads),
    saved = share(all.near + all.absent, all.reads), p50 = latency.percentile(all.counts, 0.5),
    p95 = latency.percentile(all.counts, 0.95), p99 = latency.percentile(all.counts, 0.99), lag = all.lag }
end

--- What to show of a look, given the one before.
---@param after table
---@param before table?
---@return table seen { kind, at, server, rates, processes, together }
function sample.between(after, before)
  local seen = { kind = "fpcache-top", at = after.wall, server = after.server, server_error = after.server_error,
    publish_error = after.publish_error, processes = {} }
  if after.server then
    local old = before and before.server
    seen.rates = server_between(after.server, old, old and after.at - before.at or 0)
  end
  local known = {}
  for _, one in ipairs(before and before.processes or {}) do known[one.id] = one end
  for i, one in ipairs(after.processes or {}) do
    -- Between two publications there is nothing new: what is known is compared with the publication before.
    local old = known[one.id]
    one.last = old and (old.at < one.at and old or old.last) or nil
    if one.last then one.last.last = nil end
    seen.processes[i] = process_between(one, one.last)
  end
  if #seen.processes > 0 then seen.together = together(seen.processes) end
  return seen
end

return sample

--- A warm-up whose query and cache share a database: the rows never leave the server.
--
-- The query is read once, into a table of the session's own; from there bounded batches go into the cache, each a
-- statement that writes the change feed as set_many does.  What comes out is the same as by streaming; where it would not
-- be (a float in a key's text, a custom codec, sealed values), on_server.open() says why.
local announce = require("fpcache.announce")
local engine = require("fpcache.warm.engine")
local limits = require("fpcache.limits")
local statements = require("fpcache.statements.warm")
local template = require("fpcache.warm.template")

local on_server = {}

local READ_S = 3600 -- for the query
local OLDEST = 110000 -- sha256()

local Copy = {}
Copy.__index = Copy

--- Why this job is one for the client; nil: it is not.
local function reason_against(o)
  local cache = o.cache
  if not cache or o.dry_run then return "it stores nothing" end
  if o.map or o.url then return "map and url are the client's" end
  if type(o.ttl) == "string" then return "the ttl is a template" end
  if cache.codec then return "the cache has a codec, compresses or encrypts" end
  if cache.near or cache.feed ~= announce.none then return "the cache keeps layers in memory, which would not learn of it" end
  if cache.is_transaction then return "it is inside a transaction" end
end

local function parts_of(o)
  local key, err = template.parse(o.key)
  if not key then return nil, err end
  if not o.value then return key end
  local value
  value, err = template.parse(o.value)
  if not value then return nil, err end
  return key, value
end

local function prepare(self, text, o)
  local conn, timeout = self.conn, self.timeout
  local key, value = parts_of(o)
  if not key then return nil, value end
  if conn:server_version() < OLDEST then return nil, "invalid: not on the server: the server is older than PostgreSQL 11" end
  local ok, err = conn:script(statements.clean, timeout)
  if ok then ok, err = conn:query(statements.source .. text, timeout) end
  if not ok then return nil, err .. " (in the source's query)" end
  local columns
  columns, err = conn:query(statements.columns, timeout)
  if not columns then return nil, err end
  local fill, why = statements.fill(columns, key, value)
  if not fill then return nil, "invalid: not on the server: " .. why end
  ok, err = conn:query(statements.target, timeout)
  if ok then ok, err = conn:script(statements.begin, timeout) end
  if not ok then return nil, err end
  ok, err = conn:query(fill, READ_S, o.cache.max_key_bytes, o.cache.max_value_bytes)
  if not ok then
    conn:script("ROLLBACK", timeout)
    return nil, err .. " (in the source's query)"
  end
  ok, err = conn:script(statements.commit, timeout)
  if ok then ok, err = conn:query(statements.index, READ_S) end
  local rows
  if ok then rows, err = conn:query(statements.count, timeout) end
  if not rows then return nil, err end
  self.total = tonumber(rows[1].n)
  return true
end

--- Reads the query.
---@param text string SQL, one SELECT
---@param o table the job's options
---@return table? copy
---@return string? err "invalid: not on the server: why" when the client has to do it; nothing was stored
function on_server.open(text, o)
  local why = reason_against(o)
  if why then return nil, "invalid: not on the server: " .. why end
  local ok, ttl = limits.ttl(o.ttl, 4)
  if not ok then return nil, ttl end
  local cache = o.cache
  local conn, err = cache.db:acquire(cache.timeout)
  if not conn then return nil, err end
  local self = setmetatable({ cache = cache, conn = conn, timeout = cache.bulk_timeout, ttl = ttl, at = 0 }, Copy)
  ok, err = prepare(self, text, o)
  if ok then return self end
  self:close()
  return nil, err
end

function Copy:go_to(place)
  self.at = place.count
end

function Copy:close()
  if not self.conn:is_broken() then self.conn:script(statements.clean, self.timeout) end
  self.conn:close()
end

--- The next batch: rows after batch.from up to batch.to.  Engine's job.read_batch.
function Copy:read(job)
  if self.at >= self.total then return nil end
  local from, to = self.at, math.min(self.at + job.batch, self.total)
  local batch = engine.new_batch(job, "query")
  batch.from, batch.to, batch.read, batch.count = from, to, to - from, to - from
  batch.place = { count = to }
  self.at = to
  job.state.read = job.state.read + batch.read
  local rows, err = self.conn:query(statements.bad, self.timeout, from, to)
  if not rows then return nil, err end
  for _, row in ipairs(rows) do engine.complain(job, batch, tonumber(row.n), row.bad) end
  batch.count = batch.count - #rows
  return batch
end

--- Stores a batch.  Engine's job.store_batch.
function Copy:store(batch)
  if batch.count == 0 then return 0 end
  local cache = self.cache
  local ok, err = self.conn:run(cache.statements.warm_copy, self.timeout, cache.space, batch.from, batch.to, self.ttl)
  if not ok then return nil, err end
  return batch.count
end

return on_server

--- fpcache: a shared cache on PostgreSQL.
--
--     local fpcache = require("fpcache")
--     local cache = assert(fpcache.new{ connection_string = "postgresql://localhost/app" })
--     cache:set("user:1", { name = "Alice" }, 3600)
--     print(cache:get("user:1").name)
local announce = require("fpcache.announce")
local auth = require("fpcache.auth")
local codec = require("fpcache.codec")
local connection = require("fpcache.connection")
local core = require("fpcache.core")
local fetch = require("fpcache.fetch")
local layers = require("fpcache.layers")
local limits = require("fpcache.limits")
local observe = require("fpcache.observe")
local options = require("fpcache.options")
local parallel = require("fpcache.parallel")
local policies = require("fpcache.policy")
local scheduler = require("fpcache.scheduler")
local schema = require("fpcache.schema")
local sealing = require("fpcache.sealing")
local sql = require("fpcache.sql")
local statements = require("fpcache.statements")
local sweeper = require("fpcache.sweeper")
local touches = require("fpcache.touches")
local transport = require("fpcache.transport")
local Cache = require("fpcache.client")
require("fpcache.reading")
require("fpcache.bulk")
require("fpcache.bulk_reading")
require("fpcache.scan")
require("fpcache.tags")
require("fpcache.transaction")
require("fpcache.fetch_many")
require("fpcache.wrap")
require("fpcache.rates")
require("fpcache.stats")
require("fpcache.prometheus")

local fpcache = {
  _VERSION = core.version,
  null = codec.null,               -- a stored null; also cjson.null and ngx.null
  array_mt = codec.array_mt,       -- setmetatable({}, array_mt) is stored as []
  empty_array = codec.empty_array,
  CuckooFilter = require("fpcache.cuckoo_filter"),
  -- Many calls at once: docs/pipeline.md
  spawn = scheduler.spawn,
  await = scheduler.await,
  cancel = scheduler.cancel,
  sleep = scheduler.sleep,
  run = scheduler.run,
  parallel = parallel.run,
  step = scheduler.step,
  completions_fd = scheduler.fd,
  DatabricksTokenProvider = auth.DatabricksTokenProvider,
  waiting = require("fpcache.waiting"), -- where a scheduler of coroutines plugs in
}

fpcache.waiting.plug {
  sleep = scheduler.sleep, spawn = scheduler.spawn,
  is_task = function() return scheduler.current() ~= nil end,
}

--- A named way to load, keep and renew entries, for cache:fetch; see docs/policies.md.
---@param opts table
---@return fpcache.Policy
function fpcache.policy(opts)
  local made = policies.new(opts, 2)
  return made
end

local OPTIONS = {
  namespace = { type = "string", default = "", check = limits.namespace },
  parse_json = { type = "boolean", default = true }, -- false: JSON values come as their text
  codec = { type = "table userdata" },               -- encode/decode for tables; default: exact JSON
  max_key_bytes = { type = "integer", default = 1024 * 1024, check = options.between(1, 1000000000, " bytes") },
  -- One value of PostgreSQL holds less than 1 GB.
  max_value_bytes = { type = "integer", default = 64 * 1024 * 1024, check = options.between(1, 1000000000, " bytes") },
  breaker_failures = { type = "integer", default = 3, check = options.not_negative }, -- in a row; 0: fetch always asks
  breaker_pause = { type = "number", default = 1, check = options.positive },         -- seconds
}
for _, more in ipairs { connection.OPTIONS, layers.OPTIONS, sealing.OPTIONS, observe.OPTIONS } do
  for name, about in pairs(more) do OPTIONS[name] = about end
end
fpcache.OPTIONS = OPTIONS -- for who wants to look: { name = { type, default } }

--- Asks whether the schema is there and of our version.
---@return boolean? tells the feed is on, and our sessions say that they tell it
---@return string? err
local function check_schema(cache)
  local found, version, tells = cache.db:row(cache.statements.schema_version, cache.timeout)
  if found == nil then return nil, version end
  version = tonumber(version) or 0
  if version == schema.VERSION then return tonumber(tells) == 1 end
  if version == 0 then return nil, "schema: the tables are not set up; run `fpcache admin setup` on this database" end
  return nil, ("schema: the database has version %d and this fpcache needs %d; %s"):format(version, schema.VERSION,
    version < schema.VERSION and "run `fpcache admin upgrade`" or "install a newer fpcache")
end

--- Has a cache not write the change feed, which is switched off, or behind a pooler.  Its sessions do not claim that they do, so
-- while the feed is on, the table's triggers tell in their place.
---@return userdata? pool
---@return string? err
local function fall_silent(cache, o, quoted)
  cache.pool:close()
  o.silent = true
  local pool, err = connection.open(o, 3)
  if not pool then return nil, err end
  cache.db, cache.pool, cache.tells = transport.new(pool, o.maxconn), pool, false
  cache.statements = statements.new(quoted, false)
  return pool
end

--- Connects to a cache.  Opens `minconn` connections and checks the schema, so that a mistake shows here.
---@param opts table? every option: see README, "Options"
---@return fpcache.Cache? cache
---@return string? err
function fpcache.new(opts)
  local o = options.read(OPTIONS, opts, 2)
  if o.codec then codec.check(o.codec, 3) end
  local quoted, err = sql.quote_identifier(o.schema)
  if not quoted then return nil, err end
  local pool
  pool, err = connection.open(o, 2)
  if not pool then return nil, err end
  local cache = setmetatable({
    db = transport.new(pool, o.maxconn),
    pool = pool,
    feed = announce.none,
    look = announce.unknown,
    statements = statements.new(quoted, o.prepared),
    tells = o.prepared, -- our statements tell the feed; behind a transaction pooler the table's trigger does
    schema = o.schema,
    space = o.namespace,
    seed = core.feed_seed(o.namespace),
    codec = o.codec,
    parse_json = o.parse_json,
    timeout = o.timeout,
    bulk_timeout = math.max(o.bulk_timeout, o.timeout),
    max_key_bytes = o.max_key_bytes,
    max_value_bytes = o.max_value_bytes,
    flow = fetch.new_flow(o),
    counts = { hits = 0, misses = 0, sets = 0, absent = 0, false_positives = 0 },
  }, Cache)
  local tells
  tells, err = check_schema(cache)
  if tells == false and o.prepared then
    pool, err = fall_silent(cache, o, quoted)
    tells = pool and false
  end
  if tells == nil then
    cache.pool:close()
    return nil, err
  end
  local user
  if o.encrypt then -- what is encrypted is bound to the login
    local known
    known, user = pool:row(cache.statements.login, cache.timeout)
    if not known then
      pool:close()
      return nil, user
    end
  end
  cache.sealing, cache.user_codec = sealing.plan(o, user), o.codec
  cache.codec = sealing.codec(cache.sealing, o.codec, o.namespace)
  -- Uses are noted where something may be evicted.  Behind a transaction pooler the table's trigger would take them for changes.
  local found, has_quota = cache.db:row(cache.statements.has_quota, cache.timeout)
  if found and has_quota and o.prepared then cache.touches = touches.new(cache) end
  local feed, near, look = layers.open(o, quoted, pool)
  if not feed then
    pool:close()
    return nil, near
  end
  cache.feed, cache.near, cache.look = feed, near, look or announce.unknown
  local watched
  watched, err = observe.cache(cache, o)
  if not watched then cache:close() end
  return watched, err
end

--- A sweeper, which removes what has expired and evicts what is beyond a quota; see docs/quotas.md.
---@param opts table? those of new, and { every = 10 | "10s", duty = 0.25 }
---@return fpcache.Sweeper? sweeper with pass(), run(tell), stop() and close()
---@return string? err
function fpcache.sweeper(opts)
  local description, rest = {}, {}
  for name, about in pairs(OPTIONS) do description[name] = { type = about.type, check = about.check } end
  for name, about in pairs(sweeper.OPTIONS) do description[name] = about end
  local o = options.read(description, opts, 2)
  for name in pairs(OPTIONS) do rest[name] = o[name] end
  rest.feed, rest.minconn, rest.maxconn = false, 1, 1
  local cache, err = fpcache.new(rest)
  if not cache then return nil, err end
  return sweeper.new(cache, o)
end

--- The same cache, connections included, seen in another namespace.
---@param name string
---@return fpcache.Cache
function Cache:namespace(name)
  if type(name) ~= "string" then error(("bad namespace (string expected, got %s)"):format(type(name)), 2) end
  local reason = limits.namespace(name)
  if reason then error("bad namespace: " .. reason, 2) end
  local view = {}
  for field, value in pairs(self) do view[field] = value end
  view.space, view.seed = name, core.feed_seed(name)
  view.codec = sealing.codec(self.sealing, self.user_codec, name)
  return setmetatable(view, getmetatable(self))
end

--- Waits until everything that is committed now is known here: the feed is fresh, and the filter loaded.  For batch jobs
-- that begin with lookups, and for tests; nobody else needs to.
---@param timeout number? seconds, default bulk_timeout
---@return boolean? true
---@return string? err
function Cache:wait_ready(timeout)
  if timeout == nil then timeout = self.bulk_timeout end
  if type(timeout) ~= "number" then error(("bad timeout (number expected, got %s)"):format(type(timeout)), 2) end
  local ok, err = self.feed:wait_fresh(timeout)
  return ok, err
end

--- Closes the connections.  Later calls answer "closed: ...".  Repeatable.
function Cache:close()
  self.feed:close()
  self.pool:close()
end

Cache.__close = Cache.close

--- Installs or upgrades the schema; see fpcache.admin.
---@param opts table connection options and { schema, logged, grant, force }
---@return table? report, string? err
function fpcache.setup_cache(opts)
  return require("fpcache.admin").setup(opts)
end

--- Stores what a source of records gives: files, a query, an iterator; see fpcache.warm and docs/warm.md.
---@param opts table
---@return fpcache.WarmState? state, string? err, fpcache.WarmState? reached
function fpcache.warm(opts)
  local state, err, reached = require("fpcache.warm").run(opts)
  return state, err, reached
end

return fpcache

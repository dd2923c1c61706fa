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
local duration = require("fpcache.duration")
local fetch = require("fpcache.fetch")
local layers = require("fpcache.layers")
local later = require("fpcache.later")
local limits = require("fpcache.limits")
local loop = require("fpcache.loop")
local observe = require("fpcache.observe")
local opening = require("fpcache.opening")
local options = require("fpcache.options")
local parallel = require("fpcache.parallel")
local policies = require("fpcache.policy")
local probe = require("fpcache.policy.probe")
local sealing = require("fpcache.sealing")
local sql = require("fpcache.sql")
local statements = require("fpcache.statements")
local sweeper = require("fpcache.sweeper")
local transport = require("fpcache.transport")
local Cache = require("fpcache.client")
local tasks = loop.tasks
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
  spawn = tasks.spawn,
  await = tasks.await,
  cancel = tasks.cancel,
  sleep = tasks.sleep,
  run = tasks.run,
  parallel = parallel.run,
  step = tasks.step,
  completions_fd = tasks.fd,
  DatabricksTokenProvider = auth.DatabricksTokenProvider,
  waiting = require("fpcache.waiting"), -- where a scheduler of coroutines plugs in
}

fpcache.waiting.plug {
  sleep = tasks.sleep, spawn = loop.background, is_task = loop.can_wait,
}

--- A named way to load, keep and renew entries, for cache:fetch; see docs/policies.md.
---@param opts table
---@return fpcache.Policy
function fpcache.policy(opts)
  local made = policies.new(opts, 2)
  return made
end

local OPTIONS = options.join(connection.OPTIONS, layers.OPTIONS, sealing.OPTIONS, observe.OPTIONS, {
  namespace = { type = "string", default = "", check = limits.namespace },
  namespace_version = { type = "boolean", default = false }, -- true: clear{ at_once = true }, see docs/namespaces.md
  parse_json = { type = "boolean", default = true }, -- false: JSON values come as their text
  codec = { type = "table userdata" },               -- encode/decode for tables; default: exact JSON
  max_key_bytes = { type = "integer", default = 1024 * 1024, check = options.between(1, 1000000000, " bytes") },
  -- One value of PostgreSQL holds less than 1 GB.
  max_value_bytes = { type = "integer", default = 64 * 1024 * 1024, check = options.between(1, 1000000000, " bytes") },
  breaker_failures = { type = "integer", default = 3, check = options.not_negative }, -- in a row; 0: fetch always asks
  breaker_pause = { type = "duration", default = 1, check = options.positive },         -- seconds
})
fpcache.OPTIONS = OPTIONS -- for who wants to look: { name = { type, default } }

--- Connects to a cache.  Opens `minconn` connections and checks the schema, so that a mistake shows here.  In nginx's init_worker
-- it returns before that (see opening.lua).
---@param opts table? every option: see README, "Options"
---@return fpcache.Cache? cache
---@return string? err
function fpcache.new(opts)
  local o = options.read(OPTIONS, opts, 2)
  if o.codec then codec.check(o.codec, 3) end
  local quoted, err = sql.quote_identifier(o.schema)
  if not quoted then return nil, err end
  local defers
  defers, err = opening.defers()
  if defers == nil then return nil, err end
  local pool
  pool, err = connection.open(o, 2)
  if not pool then return nil, err end
  local cache = setmetatable({
    db = transport.new(pool),
    pool = pool,
    feed = announce.none,
    statements = statements.new(quoted, true, o.namespace_version, o.feed_listen),
    versioned = o.namespace_version,
    look = announce.unknown,
    tells = true, -- our statements tell the feed; who may not, or need not, is found out by asking (opening.lua)
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
    later = later.new(),
    counts = { hits = 0, misses = 0, sets = 0, absent = 0, false_positives = 0 },
  }, Cache)
  cache.flow.breaker:probe_by(function() return probe.start(cache) end)
  local ok
  if defers then
    ok, err = opening.defer(cache, o, quoted)
  else
    ok, err = opening.ask(cache, o, quoted)
  end
  if not ok then
    cache.pool:close()
    return nil, err
  end
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
  opening.add_view(self, view)
  return setmetatable(view, getmetatable(self))
end

--- Waits until everything that is committed now is known here: the feed is fresh, and the filter loaded.  For batch jobs
-- that begin with lookups, and for tests; nobody else needs to.
---@param timeout number|string|nil seconds, or "5s"; default bulk_timeout
---@return boolean? true
---@return string? err
function Cache:wait_ready(timeout)
  if timeout == nil then timeout = self.bulk_timeout end
  local reason
  timeout, reason = duration.seconds(timeout)
  if reason then error("bad timeout: " .. reason, 2) end
  if type(timeout) ~= "number" then error(("bad timeout (number expected, got %s)"):format(type(timeout)), 2) end
  local ok, err = layers.wait_ready(self.feed, timeout)
  return ok, err
end

--- Closes the connections.  Later calls answer "closed: ...".  Repeatable.
function Cache:close()
  opening.stop(self)
  self.flow.breaker:stop()
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

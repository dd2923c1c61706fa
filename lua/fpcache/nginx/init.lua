--- fpcache inside nginx and OpenResty.
--
--     init_worker_by_lua_block { require("fpcache.nginx").init_worker { connection_string = "postgresql://..." } }
--
--     local cache = require("fpcache.nginx").cache()      -- in any handler
--     local value, err, source = cache:get("key")         -- yields, never blocks
--
-- `require "fpcache"` gives the same calls; this module only keeps caches for the worker's handlers.  docs/nginx.md has the rest.
local core = require("fpcache.core")
local loop = require("fpcache.loop")

if not loop.is_nginx then error("fpcache.nginx works inside nginx's Lua only; elsewhere require(\"fpcache\")", 2) end

local engine = require("fpcache.nginx.engine")
local fpcache = require("fpcache")

local nginx = {}

local DEFAULT = "default"
local caches, failures = {}, {} -- by name

local function check_name(name, level)
  if name == nil then return DEFAULT end
  if type(name) ~= "string" then error(("bad name (string expected, got %s)"):format(type(name)), level + 1) end
  return name
end

-- With lua_code_cache off each request has a Lua state of its own, which did not run init_worker.
local NOTE, FUNCTIONS = "options of the cache ", "functions"

--- Leaves the options of a cache for other Lua states of this process.
local function leave_for_others(name, options)
  core.process_note(NOTE .. name, core.json_encode(options) or FUNCTIONS)
end

--- Opens a cache for this worker; for init_worker_by_lua.  Starts although the server may be down: the cache then opens by itself
-- when there is one (see docs/nginx.md).
---@param options table those of fpcache.new, and { name = "default", wake_dir = folder for the worker's own socket }
---@return fpcache.Cache? cache, string? err of wrong options; it is logged as well
function nginx.init_worker(options)
  if type(options) ~= "table" then error(("bad options (table expected, got %s)"):format(type(options)), 2) end
  local own = {}
  for key, value in pairs(options) do own[key] = value end
  local name, wake_dir = check_name(own.name, 2), own.wake_dir
  if wake_dir ~= nil and type(wake_dir) ~= "string" then
    error(("options.wake_dir: string is expected, got %s"):format(type(wake_dir)), 2)
  end
  own.name, own.wake_dir = nil, nil
  if caches[name] then error(("there is a cache called %q already"):format(name), 2) end
  if wake_dir then engine.set_wake_dir(wake_dir) end
  core.is_first_state() -- this state lives as long as the worker
  local cache, err = fpcache.new(own)
  if not cache then
    failures[name] = err
    ngx.log(ngx.ERR, "fpcache: the cache ", name, " cannot be used: ", err)
    return nil, err
  end
  leave_for_others(name, own)
  caches[name] = cache
  return cache
end

--- The worker's cache of that name.
---@param name string? default "default"
---@return fpcache.Cache? cache, string? err when init_worker opened none
function nginx.cache(name)
  local cache = caches[name or DEFAULT]
  if cache then return cache end
  name = check_name(name, 2)
  if failures[name] then return nil, failures[name] end
  local note = core.process_note(NOTE .. name)
  if note == FUNCTIONS then
    return nil, "invalid: with lua_code_cache off, options of init_worker that are functions do not reach the requests"
  end
  if not note then
    return nil, ("invalid: no cache is called %q; open it in init_worker_by_lua (see docs/nginx.md)"):format(name)
  end
  local err
  cache, err = fpcache.new(core.json_decode(note))
  if not cache then return nil, err end
  caches[name] = cache
  return cache
end

--- Counts of this worker's engine: requests, in_flight, polled, abandoned, channel, lost; see docs/nginx.md.
---@return table
function nginx.stats() return engine.stats() end

-- --- responses ---

local responses = {} -- by name

--- Sets up the caching of a location's responses; for init_worker_by_lua.  Options: docs/nginx_responses.md.
---@param options table { location = the origin's internal location, name = "default", cache = the worker's, ... }
---@return fpcache.nginx.Responses
function nginx.cache_response(options)
  local made = require("fpcache.nginx.response").new(options, 2, nginx.cache)
  if responses[made.name] then error(("there are responses called %q already"):format(made.name), 2) end
  responses[made.name] = made
  return made
end

--- What cache_response set up under that name; raises when it did not, which is a mistake in nginx.conf.
---@param name string? default "default"
---@return fpcache.nginx.Responses
function nginx.response(name)
  local found = responses[check_name(name, 2)]
  if not found then
    error(("no responses are called %q; set them up by cache_response in init_worker_by_lua"):format(name or DEFAULT), 2)
  end
  return found
end

-- --- status ---

local own_status

--- Notes what the status page, its JSON and Prometheus show; for init_worker_by_lua.  See docs/nginx_responses.md.
---@param options table? { dict = "name of a lua_shared_dict", interval = 2 seconds }
---@return fpcache.nginx.Status
function nginx.keep_status(options)
  own_status = require("fpcache.nginx.status").new(options, {
    caches = function() return caches end, responses = function() return responses end, engine = engine.stats,
  }, 2)
  return own_status
end

--- What keep_status keeps; without it, of this worker alone.
---@return fpcache.nginx.Status
function nginx.status()
  if not own_status then nginx.keep_status() end
  return own_status
end

return nginx

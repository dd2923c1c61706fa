--- What the locations of nginx.conf do.
local blocking_libpq = require("blocking_libpq")
local core = require("fpcache.core")
local nginx = require("fpcache.nginx")
local redis_client = require("redis_client")

local handlers = {}

local ROWS, HOT = 100000, 1000
local URL = os.getenv("BENCH_URL"):gsub("user=[^&]*", "user=app")
local VALUE = ("w"):rep(100)
local random = math.random

--- The text of the client's own statement.
local function text_of(name)
  local make = core.statement
  core.statement = function(text) return text end
  package.loaded["fpcache.statements"] = nil
  local texts = require("fpcache.statements").new('"public"', true)
  core.statement, package.loaded["fpcache.statements"] = make, nil
  return texts[name]
end

local near, shared, far, statement

function handlers.init_worker()
  statement = text_of("get")
  near = assert(nginx.init_worker { connection_string = URL, near_size = 2 * HOT })
  far = assert(nginx.init_worker { name = "far", connection_string = URL, feed = false })
  shared = assert(nginx.init_worker { name = "shared", connection_string = URL, near_size = 0, shared_dict = "fpcache",
    near_ttl = 3600 })
end

local function answer(value, err)
  if value == nil then
    ngx.log(ngx.ERR, err or "no value")
    return ngx.exit(500)
  end
  ngx.print(value)
end

local function any_key() return "key:" .. random(ROWS) end
local function hot_key() return "key:" .. random(HOT) end

function handlers.near() answer(near:get(hot_key())) end
function handlers.shared() answer(shared:get(hot_key())) end
function handlers.get() answer(far:get(any_key())) end
function handlers.libpq() answer(blocking_libpq.get(URL, statement, any_key())) end
function handlers.redis_get(path) answer(redis_client.call(path, "GET", any_key())) end
function handlers.redis_set(path) answer(redis_client.call(path, "SET", any_key(), VALUE)) end

function handlers.absent()
  local value, err, source = near:get("no:" .. random(ROWS))
  answer(value == nil and source or nil, err)
end

function handlers.set()
  local ok, err = far:set(any_key(), VALUE, 36000)
  answer(ok and "stored" or nil, err)
end

--- Fills Redis, and the layers.
function handlers.ready(path)
  assert(near:wait_ready(30))
  assert(shared:wait_ready(30))
  for i = 1, HOT do
    near:get("key:" .. i)
    shared:get("key:" .. i)
  end
  for i = 1, ROWS do assert(redis_client.call(path, "SET", "key:" .. i, ("v"):rep(100))) end
  ngx.print("ready")
end

return handlers

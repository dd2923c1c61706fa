--- Fills the table: 100,000 rows of 100 bytes, as a role that users have, under row-level security.
local admin = require("fpcache.admin")
local connection = require("fpcache.connection")
local fpcache = require("fpcache")
local options = require("fpcache.options")

local SUPER = os.getenv("BENCH_URL") or error("BENCH_URL is not set: use run.sh")
local ROWS = 100000

local pool = assert(connection.open(options.read(connection.OPTIONS, { connection_string = SUPER, bulk_timeout = 120 }, 1), 1))
local conn = assert(pool:acquire(5))
assert(conn:script("CREATE ROLE app LOGIN", 120))
assert(admin.setup({ connection_string = SUPER, grant = "app" }))
local cache = assert(fpcache.new({ connection_string = SUPER:gsub("user=[^&]*", "user=app"), feed = false }))
local i = 0
assert(cache:set_many(function()
  i = i + 1
  if i <= ROWS then return "key:" .. i, ("v"):rep(100) end
end, 36000))
cache:close()
assert(conn:script("VACUUM ANALYZE public.cache", 120))
conn:close()
pool:close()

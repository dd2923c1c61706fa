--- What the parts of this bench share: where the server is, SQL on it, and their results.
--
-- Runs on Lua 5.4 and LuaJIT; everything comes from run.sh by environment.
local codec = require("fpcache.codec")
local connection = require("fpcache.connection")
local options = require("fpcache.options")

local common = {}

function common.environment(name)
  return os.getenv(name) or error(name .. " is not set: use run.sh")
end

common.super = common.environment("BENCH_URL")
common.url = common.super:gsub("user=[^&]*", "user=app") -- a role as users have it: row-level security holds for it
common.is_quick = os.getenv("BENCH_QUICK") == "1"

function common.write_file(path, text)
  local file = assert(io.open(path, "w"))
  assert(file:write(text))
  file:close()
  return path
end

function common.read_file(path)
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  return text
end

--- Keeps what a part found, as a file of its own until all are joined.
function common.keep(name, results)
  common.write_file(("%s/%s.json"):format(common.environment("BENCH_TMP"), name), assert(codec.json.encode(results)))
end

--- A connection of the superuser: call it with SQL.
function common.superuser()
  local pool = assert(connection.open(options.read(connection.OPTIONS,
    { connection_string = common.super, bulk_timeout = 900 }, 1), 1))
  local conn = assert(pool:acquire(5))
  return function(text) assert(conn:script(text, 900)) end, conn
end

return common

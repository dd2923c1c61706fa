--- The server that the interpreter uses when none is named: FPCACHE_URL, else the private one, which is
-- made, started and set up on the way.
local connection = require("fpcache.connection")

local default_server = {}

--- Installs or upgrades the schema of a private server; everybody who reaches its socket may use it.
---@return boolean? ok, string? err
function default_server.set_up(url)
  local report, err = require("fpcache.admin").setup({ connection_string = url, grant = "public" })
  if not report then return nil, err end
  return true
end

local function start_local()
  local server, err = require("fpcache.local_server").new({
    log = function(line) io.stderr:write("fpcache: ", line, "\n") end,
    on_start = default_server.set_up,
  })
  if not server then return nil, err end
  return server:start()
end

--- From now on fpcache.new and the commands find a server when none is named.
function default_server.install()
  local from_environment, url = connection.default_url, nil
  connection.default_url = function()
    local err
    url = url or from_environment()
    if not url then url, err = start_local() end
    return url, err
  end
end

return default_server

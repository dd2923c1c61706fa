--- The server that the interpreter uses when none is named: FPCACHE_URL, else the private one, which is
-- made, started and set up on the way.
local connection = require("fpcache.connection")

local default_server = {}

--- Starts the private server and installs or upgrades its schema.
---@return string? url, string? err
function default_server.start_local()
  local local_server = require("fpcache.local_server")
  local server, err = local_server.new({
    log = function(message) io.stderr:write("fpcache: ", message, "\n") end,
  })
  if not server then return nil, err end
  local url
  url, err = server:start()
  if not url then return nil, err end
  local report
  report, err = require("fpcache.admin").setup({ connection_string = url, grant = "public" })
  if not report then return nil, err end
  return url
end

function default_server.install()
  local url
  connection.default_url = function()
    local err
    url = url or os.getenv("FPCACHE_URL")
    if not url then url, err = default_server.start_local() end
    return url, err
  end
end

return default_server

-- private_ca.lua -- a certificate authority for one run of the specs, and certificates of it.
--
--   local ca = private_ca.new(dir)        -- dir/ca.pem
--   ca:certificate("name")                -- dir/name.pem, dir/name.key, for localhost and 127.0.0.1
local core = require "fpcache.core"

local Ca = {}
Ca.__index = Ca

local private_ca = {}

local function openssl(...)
  local result = assert(core.run { argv = { "openssl", ... }, timeout = 60 })
  assert(result.status == 0, result.output)
end

--- Makes the authority in a folder that is there.
---@param dir string
---@return table ca with the field file
function private_ca.new(dir)
  local self = setmetatable({ dir = dir, file = dir .. "/ca.pem", key = dir .. "/ca.key" }, Ca)
  openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
    "-subj", "/CN=fpcache spec CA", "-keyout", self.key, "-out", self.file)
  return self
end

--- A certificate for `names` (default: localhost and 127.0.0.1).
---@param name string of the files
---@param names string? as subjectAltName wants it
---@return string certificate
---@return string key
function Ca:certificate(name, names)
  local base = self.dir .. "/" .. name
  local extensions = assert(io.open(base .. ".ext", "w"))
  extensions:write("subjectAltName=", names or "DNS:localhost,IP:127.0.0.1", "\n")
  extensions:close()
  openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=" .. name,
    "-keyout", base .. ".key", "-out", base .. ".csr")
  openssl("x509", "-req", "-in", base .. ".csr", "-CA", self.file, "-CAkey", self.key, "-CAcreateserial",
    "-days", "2", "-extfile", base .. ".ext", "-out", base .. ".pem")
  return base .. ".pem", base .. ".key"
end

return private_ca

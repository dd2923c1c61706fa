--- Where nginx's Lua may wait, and where it may not.
local core = require("fpcache.core")

local get_phase, isyieldable = ngx.get_phase, core.isyieldable

local phases = {}

-- A phase that is not known here is treated as one that cannot wait.  So are ssl_client_hello and ssl_session_fetch: an nginx
-- without the patches of OpenResty, such as Debian's, drops the connection of whoever yields there.
local WAITS = {
  rewrite = true, server_rewrite = true, access = true, content = true, timer = true, preread = true,
  ssl_cert = true,
}

--- Whether the caller may wait now.
---@return boolean
function phases.can_wait()
  return WAITS[get_phase()] == true and isyieldable()
end

--- Why the caller may not wait now; nil when he may.
---@return string? err
function phases.refusal()
  local phase = get_phase()
  if WAITS[phase] then
    if isyieldable() then return nil end
    return ("invalid: only the server knows the answer, and inside a C function (table.sort, string.gsub, a codec) nothing "
      .. "can wait for it (phase %s)"):format(phase)
  end
  return ("invalid: only the server knows the answer, and nginx's phase %s cannot wait for it (near cache, filter and "
    .. "set_later work in every phase; see docs/nginx.md)"):format(tostring(phase))
end

--- The phase, for messages.
---@return string
function phases.name() return tostring(get_phase()) end

return phases

--- The stored keys that begin with a prefix, as a range.
local core = require("fpcache.core")

local key_range = {}

-- More than any stored key: those have at most 1,056 bytes.
local AFTER_ALL = ("\255"):rep(core.KEY_INLINE + 64)

--- From `first` (included) to `last` (excluded).
---@param prefix string at most KEY_INLINE bytes
---@return string? first, string last_or_err
function key_range.of_prefix(prefix)
  if #prefix > core.KEY_INLINE then
    return nil, ("invalid: a prefix has at most %d bytes, got %d"):format(core.KEY_INLINE, #prefix)
  end
  local stem = prefix:gsub("\255+$", "")
  if stem == "" then return prefix, AFTER_ALL end
  return prefix, stem:sub(1, -2) .. string.char(stem:byte(-1) + 1)
end

return key_range

--- Numbers of bytes as people write and read them.
local sizes = {}

local UNITS = { [""] = 1, k = 1024, m = 1024 ^ 2, g = 1024 ^ 3, t = 1024 ^ 4 }

--- A number of bytes from a text such as 512MB.
---@param text string
---@return integer? bytes
---@return string? err
function sizes.read(text)
  local number, unit = text:lower():match("^(%d+%.?%d*)%s*([kmgt]?)i?b?$")
  if not number then return nil, text .. " is no size (such as 500000, 512MB, 2GB)" end
  return math.floor(tonumber(number) * UNITS[unit])
end

--- A number of bytes for people.
---@param count number
---@return string
function sizes.show(count)
  for _, unit in ipairs({ "bytes", "kB", "MB", "GB", "TB" }) do
    if count < 10000 or unit == "TB" then return ("%.0f %s"):format(count, unit) end
    count = count / 1024
  end
end

return sizes

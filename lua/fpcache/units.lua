--- Numbers of bytes, of seconds and of things as people write and read them.
local units = {}

local FACTORS = { [""] = 1, k = 1024, m = 1024 ^ 2, g = 1024 ^ 3, t = 1024 ^ 4 }

--- A number of bytes from a text such as 512MB.
---@param text string
---@return integer? bytes
---@return string? err
function units.read_bytes(text)
  local number, unit = text:lower():match("^(%d+%.?%d*)%s*([kmgt]?)i?b?$")
  if not number then return nil, text .. " is no size (such as 500000, 512MB, 2GB)" end
  return math.floor(tonumber(number) * FACTORS[unit])
end

---@param count number
---@return string
function units.bytes(count)
  for _, unit in ipairs({ "bytes", "kB", "MB", "GB", "TB" }) do
    if count < 10000 or unit == "TB" then return ("%.0f %s"):format(count, unit) end
    count = count / 1024
  end
end

--- Long times, in words.
---@param s number seconds
---@return string
function units.duration(s)
  if s < 120 then return ("%.0f s"):format(s) end
  if s < 7200 then return ("%.0f min"):format(s / 60) end
  if s < 172800 then return ("%.0f h"):format(s / 3600) end
  return ("%.0f days"):format(s / 86400)
end

--- Short times.
---@param s number seconds
---@return string
function units.time(s)
  if s < 1e-6 then return ("%.0f ns"):format(s * 1e9) end
  if s < 1e-3 then return ("%.3g µs"):format(s * 1e6) end
  if s < 1 then return ("%.3g ms"):format(s * 1e3) end
  return ("%.3g s"):format(s)
end

--- A number of things, such as 12.3k.
---@param count number
---@return string
function units.count(count)
  for _, unit in ipairs({ "", "k", "M", "G" }) do
    if count < 9999.5 or unit == "G" then
      if count >= 100 or count % 1 == 0 then return ("%.0f%s"):format(count, unit) end
      return ("%.1f%s"):format(count, unit)
    end
    count = count / 1000
  end
end

--- A share, such as 97.3 %.
---@param value number 0 to 1
---@return string
function units.share(value)
  return ("%.1f %%"):format(100 * value)
end

return units

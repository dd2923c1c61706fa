-- files.lua -- whole files, read and written.
local files = {}

--- The bytes of a file; nil and why, where there is none.
---@param path string
---@return string?
---@return string? err
function files.read(path)
  local file, err = io.open(path, "rb")
  if not file then return nil, err end
  local text = file:read("*a")
  file:close()
  return text
end

--- Writes a file, over an old one too; fails the spec when it cannot.
---@param path string
---@param text string
---@return string path
function files.write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(file:close())
  return path
end

return files

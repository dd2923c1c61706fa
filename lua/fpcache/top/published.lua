--- What the caches of other processes published into a folder (the option `publish`).
local codec = require("fpcache.codec")
local core = require("fpcache.core")

local system = core.system
local MAX_BYTES = 4 * 1024 * 1024 -- of one file
local FORGOTTEN_S = 3600          -- a file that is older is passed over

local published = {}

local function read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read(MAX_BYTES)
  file:close()
  local one = text and codec.json.decode(text)
  if type(one) ~= "table" or one.kind ~= "fpcache-process" or type(one.at) ~= "number" or type(one.stats) ~= "table" then
    return nil
  end
  return one
end

--- Whether the process that wrote it is there still; of other hosts nobody knows.
local function lives(one)
  if one.host ~= system.hostname() or type(one.pid) ~= "number" then return true end
  return system.stat(("/proc/%d"):format(one.pid)) ~= nil or not system.stat("/proc/self")
end

--- All that was published, in the order of the files' names.
---@param dirs string[]
---@return table[]? processes as written, with `id` (the file's name) and `age` in seconds
---@return string? err
function published.read(dirs)
  local list, now = {}, system.wall()
  for _, dir in ipairs(dirs) do
    local names, err = system.readdir(dir)
    if not names then return nil, err end
    table.sort(names)
    for _, name in ipairs(names) do
      local one = name:find("%.json$") and read(dir .. "/" .. name)
      if one and now - one.at < FORGOTTEN_S and lives(one) then
        one.id, one.age = dir .. "/" .. name, math.max(now - one.at, 0)
        list[#list + 1] = one
      end
    end
  end
  return list
end

return published

--- What the caches of other processes published: into a folder (the option `publish`), or by HTTP.
local codec = require("fpcache.codec")
local core = require("fpcache.core")
local scraped = require("fpcache.top.scraped")

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

--- Adds what a folder holds, in the order of its files' names.
---@return boolean? true, string? err
local function read_folder(dir, list)
  local names, err = system.readdir(dir)
  if not names then return nil, err end
  local now = system.wall()
  table.sort(names)
  for _, name in ipairs(names) do
    local one = name:find("%.json$") and read(dir .. "/" .. name)
    if one and now - one.at < FORGOTTEN_S and lives(one) then
      one.id, one.age = dir .. "/" .. name, math.max(now - one.at, 0)
      list[#list + 1] = one
    end
  end
  return true
end

--- All that was published.
---@param places string[] folders, and URLs (see scraped.lua)
---@return table[] processes as written, with `id` and `age` in seconds
---@return string? err of the first place that could not be read
function published.read(places)
  local list, urls, first_err = {}, {}, nil
  for _, place in ipairs(places) do
    if scraped.is_url(place) then
      urls[#urls + 1] = place
    else
      local ok, err = read_folder(place, list)
      if not ok then first_err = first_err or err end
    end
  end
  if #urls > 0 then
    local more, err = scraped.read(urls)
    for _, one in ipairs(more) do list[#list + 1] = one end
    first_err = first_err or err
  end
  return list, first_err
end

return published

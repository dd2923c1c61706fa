--- Where an interrupted job goes on: a small JSON file, replaced after each batch that is stored.
local codec = require("fpcache.codec")
local system = require("fpcache.core").system

local checkpoint = {}

local VERSION = 1

--- What the file says.
---@param path string
---@param names string[] the sources of this job
---@return table? state { source, place, counts }; nil alone when there is no such file
---@return string? err
function checkpoint.read(path, names)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  local state = codec.json.decode(text)
  if type(state) ~= "table" or state.version ~= VERSION or type(state.names) ~= "table" then
    return nil, ("invalid: %s is no resume file of this fpcache"):format(path)
  end
  local same = #state.names == #names
  for i, name in ipairs(names) do same = same and state.names[i] == name end
  if not same then
    return nil, ("invalid: %s belongs to a job with other sources; remove it to begin anew"):format(path)
  end
  return state
end

--- Replaces the file as a whole, so that a crash leaves the old one or the new one.
---@return boolean? ok, string? err
function checkpoint.write(path, state)
  state.version = VERSION
  local text = assert(codec.json.encode(state))
  local file, err = io.open(path .. ".new", "wb")
  if not file then return nil, "invalid: cannot write " .. err end
  file:write(text, "\n")
  local ok
  ok, err = file:close()
  if not ok then return nil, ("invalid: cannot write %s: %s"):format(path, err) end
  ok, err = system.rename(path .. ".new", path)
  if not ok then return nil, err end
  return true
end

function checkpoint.remove(path)
  os.remove(path)
end

return checkpoint

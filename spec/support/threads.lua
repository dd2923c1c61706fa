-- The threads of a process, by their names.
local system = require("fpcache.core").system

local threads = {}

--- How many threads of a process have that name.
---@param pid integer
---@param name string at most 15 letters
---@return integer
function threads.count(pid, name)
  local count = 0
  for _, task in ipairs(system.readdir(("/proc/%d/task"):format(pid))) do
    local file = io.open(("/proc/%d/task/%s/comm"):format(pid, task))
    if file then
      if file:read("*l") == name then count = count + 1 end
      file:close()
    end
  end
  return count
end

return threads

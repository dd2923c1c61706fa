--- Single flight among the processes of one host: a lock file for each key that is being loaded.
--
-- The lock ends with its holder, however that one ends, so there is no deadline to wait for.
local core = require("fpcache.core")

local host_lock = {}

local folder -- made at the first use

local function make_folder()
  if folder then return folder end
  local system = core.system
  local path = ("%s/fpcache-locks-%d"):format(system.getenv("TMPDIR") or "/tmp", system.getuid())
  system.mkdir(path, 448) -- 0700; it may be there
  local found = system.lstat(path)
  if not found or found.type ~= "directory" or found.uid ~= system.getuid() then
    return nil
  end
  folder = path
  return folder
end

-- Of a key and where it is; two that share a name only wait for each other.
local function name_of(space, key)
  local low, high = 5381, 52711
  local text = #space .. ":" .. space .. key
  for i = 1, #text do
    local byte = text:byte(i)
    low, high = (low * 33 + byte) % 4294967296, (high * 65599 + byte) % 4294967296
  end
  return ("%08x%08x"):format(low, high)
end

local NOBODY = { release = function() end } -- where locks cannot be kept: nobody is held up

--- Takes the lock of a key when nobody has it.
---@return table? lock with release(); nil when another process has it
function host_lock.try(space, key)
  local dir = make_folder()
  if not dir then return NOBODY end
  local path = dir .. "/" .. name_of(space, key)
  local lock, err = core.lock(path, 0)
  if not lock then return not err:find("^busy:") and NOBODY or nil end
  return {
    release = function()
      core.system.unlink(path) -- who waits for it notices and makes another
      lock:close()
    end,
  }
end

return host_lock

--- The slow calls of a cache: the last so many that took at least so long.
local options = require("fpcache.options")

local OPTIONS = {
  seconds = { type = "number", default = 0.1, check = options.not_negative }, -- 0: every call
  entries = { type = "integer", default = 128, check = options.between(1, 100000, " entries") },
}
local KEPT = { "name", "namespace", "key", "keys", "seconds", "at", "outcome", "source", "error", "transaction" }
local MAX_KEY = 200 -- bytes of a key that are kept

---@class fpcache.SlowLog
---@field seconds number
---@field count integer calls that were slow
local SlowLog = {}
SlowLog.__index = SlowLog

local slow_log = {}

local function read(given)
  if type(given) == "number" then given = { seconds = given } end
  return options.read(OPTIONS, given, 1, "slow_log")
end

slow_log.check = options.caught(function(given) read(given) end)

---@param given number|table|nil
---@return fpcache.SlowLog?
function slow_log.new(given)
  if given == nil then return nil end
  local o = read(given)
  return setmetatable({ seconds = o.seconds, entries = o.entries, count = 0 }, SlowLog)
end

--- Keeps what people want to know of a call.
function SlowLog:note(event)
  local entry = {}
  for _, field in ipairs(KEPT) do entry[field] = event[field] end
  if type(entry.key) == "string" then entry.key = entry.key:sub(1, MAX_KEY) else entry.key = nil end
  self[self.count % self.entries + 1] = entry
  self.count = self.count + 1
end

--- Those that are kept, the newest first.
---@return table[]
function SlowLog:list()
  local list = {}
  for i = self.count - 1, math.max(self.count - self.entries, 0), -1 do list[#list + 1] = self[i % self.entries + 1] end
  return list
end

return slow_log

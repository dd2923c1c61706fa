--- What a process publishes about its cache for `fpcache top` and `fpcache slowlog` of other processes: one file of JSON in a
-- folder, replaced as a whole now and then by a call of the cache, and removed by close().
--
--     { "kind": "fpcache-process", "pid", "host", "at", "every", "schema", "namespace", "stats", "slowlog" }
local codec = require("fpcache.codec")
local core = require("fpcache.core")
local options = require("fpcache.options")

local system = core.system
local OPTIONS = {
  dir = { type = "string" },                                            -- made where it is not there
  every = { type = "number", default = 5, check = options.positive },   -- seconds
}

---@class fpcache.Publisher
---@field last_error string?
local Publisher = {}
Publisher.__index = Publisher

local publisher = {}
local number = 0 -- of the caches of this process that publish
local read, check = options.table_or_string("publish", "dir", "the name of a folder", OPTIONS)

publisher.check = check

---@param given string|table
---@param cache fpcache.Cache the watched one
---@return fpcache.Publisher? publisher
---@return string? err
function publisher.new(given, cache)
  local o = read(given)
  local there = system.stat(o.dir)
  if not there then
    local ok, err = system.mkdir(o.dir, 493) -- 0755
    if not ok and not system.stat(o.dir) then return nil, err end
  end
  number = number + 1
  local self = setmetatable({ cache = cache, every = o.every, due = 0,
    path = ("%s/%d-%d.json"):format(o.dir, system.pid(), number) }, Publisher)
  local ok, err = self:publish()
  if not ok then return nil, err end
  return self
end

--- A copy without numbers that JSON has no words for: the lag of a feed that was never read is infinite.
local function finite(value)
  if type(value) ~= "table" then return value end
  local copy = setmetatable({}, getmetatable(value))
  for name, field in pairs(value) do
    if type(field) ~= "number" or (field == field and math.abs(field) ~= math.huge) then copy[name] = finite(field) end
  end
  return copy
end

--- Writes the file.
---@return boolean? true
---@return string? err
function Publisher:publish()
  local cache = self.cache
  local stats, err = cache:stats { server = false }
  if not stats then return nil, err end
  local slow = cache.watch.slow
  local text
  text, err = codec.json.encode {
    kind = "fpcache-process", pid = system.pid(), host = system.hostname(), at = system.wall(), every = self.every,
    schema = cache.schema, namespace = cache.space, stats = finite(stats),
    slowlog = setmetatable(slow and slow:list() or {}, codec.array_mt),
  }
  if not text then return nil, err end
  local file, reason = io.open(self.path .. ".new", "w")
  if not file then return nil, "invalid: cannot publish into " .. reason end
  local ok
  ok, reason = file:write(text, "\n")
  if file:close() and ok then return system.rename(self.path .. ".new", self.path) end
  return nil, ("invalid: cannot write %s: %s"):format(self.path, tostring(reason))
end

--- Publishes if it is time; what goes wrong is in stats().events.publish_error.
function Publisher:turn(now)
  if now < self.due then return end
  self.due = now + self.every
  local ok, err = self:publish()
  self.last_error = not ok and err or nil
end

function Publisher:close() os.remove(self.path) end

return publisher

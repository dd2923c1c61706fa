--- Touches: a sample of the hits, told to the server in bulk, so that what is used is not evicted.  Reads stay reads.
--
-- One for each cache object, shared by its namespace views; there is none where no quota is set.
local core = require("fpcache.core")

---@class fpcache.Touches
local Touches = {}
Touches.__index = Touches

local touches = {}

local EVERY = 16      -- hits at the server of which one is noted
local KEPT = 256      -- notes after which they are sent
local SECONDS = 10    -- or so long after the first

---@param cache fpcache.Cache
---@return fpcache.Touches
function touches.new(cache)
  return setmetatable({ cache = cache, countdown = EVERY, spaces = {}, kept = 0, now = core.system.now }, Touches)
end

--- Sends what is noted; what fails is forgotten, since it is a sample.
function Touches:send()
  local spaces, cache = self.spaces, self.cache
  self.spaces, self.kept, self.due = {}, 0, nil
  for space, keys in pairs(spaces) do
    local list = {}
    for key in pairs(keys) do list[#list + 1] = key end
    cache.db:run(cache.statements.touch_sampled, cache.timeout, space, list)
  end
end

--- Notes a hit of a stored key at the server, or not.
function Touches:hit(space, stored)
  self.countdown = self.countdown - 1
  if self.countdown > 0 then return end
  self.countdown = EVERY
  local keys = self.spaces[space]
  if not keys then
    keys = {}
    self.spaces[space] = keys
  end
  local now = self.now()
  self.due = self.due or now + SECONDS
  if not keys[stored] then
    keys[stored], self.kept = true, self.kept + 1
  end
  if self.kept >= KEPT or now >= self.due then self:send() end
end

--- Notes some of the stored keys that were asked for; those that are not there do no harm.
function Touches:hits(space, list)
  for i = 1, #list do self:hit(space, list[i]) end
end

touches.EVERY = EVERY

return touches

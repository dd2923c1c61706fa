--- The circuit breaker of a cache's server: after some failures in a row fetch does without the server, so that a dead
-- database makes nobody slower than having no cache.
--
-- closed: the server is asked.  open: it is not, for a pause.  After the pause one caller is let through (the probe): if he
-- succeeds it closes, else the next pause is twice as long, up to LONGEST pauses.
local LONGEST = 8

---@class fpcache.Breaker
---@field failures integer in a row
---@field opened integer how often it opened
local Breaker = {}
Breaker.__index = Breaker

local breaker = {}

-- Failures that say something about the server.  The others are the caller's, or of the value.
local COUNTED = {
  connect = true, auth = true, timeout = true, busy = true, unknown = true, server = true, schema = true, denied = true,
}

---@param limit integer failures in a row that open it; 0: never
---@param pause number seconds
---@param now fun(): number
---@return fpcache.Breaker
function breaker.new(limit, pause, now)
  return setmetatable({ limit = limit, pause = pause, now = now, failures = 0, opened = 0, open_until = nil, factor = 1 },
    Breaker)
end

--- Whether the server may be asked.  When a pause is over the first who asks gets true, and has to say how it went.
---@return boolean
function Breaker:lets_through()
  local open_until = self.open_until
  if not open_until then return true end
  local now = self.now()
  if now < open_until then return false end
  self.open_until = now + self.pause * self.factor -- the others wait for the probe
  return true
end

function Breaker:succeeded()
  self.failures, self.open_until, self.factor = 0, nil, 1
end

---@param err string "code: message"
function Breaker:failed(err)
  self.last_error = err
  if self.limit == 0 or not COUNTED[err:match("^(%l+):")] then return end
  self.failures = self.failures + 1
  if self.failures < self.limit then return end
  if self.open_until then
    self.factor = math.min(self.factor * 2, LONGEST)
  else
    self.opened = self.opened + 1
  end
  self.open_until = self.now() + self.pause * self.factor
end

--- "closed", "open", or "probing" when the pause is over.
---@return string
function Breaker:state()
  if not self.open_until then return "closed" end
  return self.now() < self.open_until and "open" or "probing"
end

return breaker

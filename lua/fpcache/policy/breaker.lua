--- The circuit breaker of a cache's server: after some failures in a row fetch does without the server, so that a dead
-- database makes nobody slower than having no cache.
--
-- closed: the server is asked.  open: it is not, for a pause.  After the pause a probe asks, for which nobody waits; where that
-- cannot be, one caller is let through.  If that succeeds it closes, else the next pause is twice as long, up to LONGEST
-- pauses.  After a probe the first caller's failure opens it again: what he asks for may fail where a probe does not.
local LONGEST = 8

---@class fpcache.Breaker
---@field failures integer in a row
---@field opened integer how often it opened
---@field open_until number? nil: closed
---@field last_error string?
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
  return setmetatable({ limit = limit, pause = pause, now = now, failures = 0, opened = 0, open_until = nil, factor = 1,
    is_trying = false, was_probed = false }, Breaker)
end

--- Says how to ask the server without waiting.
---@param start fun(): fpcache.Probe? nil: this cannot be now
function Breaker:probe_by(start) self.start_probe = start end

--- Heeds what the probe heard, if it has heard something.
local function hear(self)
  local ok, err = self.probe.answer()
  if ok == nil then return end
  self.probe = nil
  if not ok then return self:failed(err) end
  self.open_until, self.is_trying, self.failures, self.was_probed = nil, false, math.max(self.limit - 1, 1), true
end

--- Whether the server may be asked.  When a pause is over the first who asks gets true where no probe can be sent, and has to say
-- how it went.
---@return boolean
function Breaker:lets_through()
  local open_until = self.open_until
  if not open_until then return true end
  if self.probe then
    hear(self)
    return self.open_until == nil
  end
  local now = self.now()
  if now < open_until then return false end
  self.open_until, self.is_trying = now + self.pause * self.factor, true -- the others wait for the probe
  self.probe = self.start_probe and self.start_probe()
  return not self.probe
end

function Breaker:succeeded()
  self.failures, self.open_until, self.factor, self.is_trying, self.was_probed = 0, nil, 1, false, false
  self:stop()
end

--- Whether calls do without the server, so that who has something to tell it had better not.
---@return boolean
function Breaker:is_open() return self.open_until ~= nil end

--- What a call answers that cannot do without the server and is not let through.
---@return string err
function Breaker:refusal()
  return ("connect: the server is not asked for a moment, because it failed (%s)"):format(tostring(self.last_error))
end

--- Nobody will ask any more.
function Breaker:stop()
  local probe = self.probe
  self.probe = nil
  if probe then probe.stop() end
end

---@param err string "code: message"
function Breaker:failed(err)
  self.last_error = err
  if self.limit == 0 or not COUNTED[err:match("^(%l+):")] then return end
  self.failures = self.failures + 1
  if self.failures < self.limit then return end
  if self.open_until and not self.is_trying then return end -- of a call that began before it opened
  if self.open_until or self.was_probed then
    self.factor = math.min(self.factor * 2, LONGEST)
  else
    self.opened = self.opened + 1
  end
  self.open_until, self.is_trying, self.was_probed = self.now() + self.pause * self.factor, false, false
end

--- "closed", "open", or "probing" when the pause is over.
---@return string
function Breaker:state()
  if not self.open_until then return self.was_probed and "probing" or "closed" end
  return self.now() < self.open_until and not self.probe and "open" or "probing"
end

return breaker

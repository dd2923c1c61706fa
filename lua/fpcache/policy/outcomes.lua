--- What a loading that stored nothing leaves for those who wait for it in other processes: how it ended.
--
-- Who waits in the same process gets the result itself (flights.lua).  The others ask the server again and again, and would find
-- the lease free and load one after the other.  So who loaded leaves a mark in the row's column `validator`, which speaks of
-- nothing where no older value may be given.  A waiter has been told how the loading ended when he finds a mark that was not
-- there when he began to wait; an older one is no news of his.
local core = require("fpcache.core")
local leases = require("fpcache.policy.leases")

local PREFIX = "\0fpcache:" -- and what it says: a letter, the fence, and the error
local LONGEST = 500         -- bytes of an error

local LETTERS = { failed = "f", none = "n", alone = "a" }
local KINDS = { f = "failed", n = "none", a = "alone" }

---@alias fpcache.Outcome
---| "failed" it failed, and so would the next
---| "none" there is no value, which is not to be remembered
---| "alone" there is one, but it is not or cannot be stored: everybody has to load his own

local outcomes = {}

--- A mark, different from all others.
---@param outcome fpcache.Outcome
---@param fence integer of the lease
---@param err string? of "failed"; encrypted where values are
---@return string
function outcomes.mark(self, stored, outcome, fence, err)
  local bytes, format = "", "-"
  if err then
    bytes, format = core.value_encode(err:sub(1, LONGEST), self.codec, stored)
    if not bytes then bytes, format = "", "-" end
  end
  return PREFIX .. LETTERS[outcome] .. ("%.0f:"):format(fence) .. format .. bytes
end

--- A mark for all keys of a lease.  What only one key's value could be encrypted by does not say the error.
---@return string
function outcomes.mark_many(self, outcome, fence, err)
  return outcomes.mark(self, "", outcome, fence, not self.codec and err or nil)
end

--- The mark in an answer of the server.
---@param answer fpcache.Answer
---@return string? mark
local function mark_of(answer)
  local text = answer.validator
  return text and not answer.is_fresh and not answer.is_stale and text:sub(1, #PREFIX) == PREFIX and text or nil
end

--- What a mark says.
---@return fpcache.Outcome outcome
---@return string? err of "failed"
local function read(self, stored, mark)
  local letter, stop = mark:match("^(%l)[^:]*:()", #PREFIX + 1)
  local outcome = KINDS[letter] or "alone"
  if outcome ~= "failed" then return outcome end
  local format, err = mark:sub(stop, stop), nil
  if format ~= "-" then err = core.value_decode(mark:sub(stop + 1), format, self.codec, self.parse_json, stored) end
  return outcome, type(err) == "string" and err or "loader: it failed in another process, which could not say why"
end

--- How another process's loading ended, if the caller has waited for it and it stored nothing.
---@param call table of fetch; each of its answers has to be told of
---@param answer fpcache.Answer
---@return fpcache.Outcome? outcome nil: nothing is known
---@return string? err of "failed"
function outcomes.hear(self, call, answer)
  local mark = mark_of(answer)
  if call.seen == nil then call.seen = mark or false end -- of a loading before he came
  if not mark or mark == call.seen then return nil end
  call.seen = mark
  return read(self, call.stored, mark)
end

--- Ends a wait by what another process's loading came to.
---@return nil, string? err, string source
function outcomes.share(self, call, answer, err)
  if answer.granted and answer.fence ~= leases.NOTHING_STORED then -- the next who comes tries again
    leases.release(self, call.stored, answer.fence, 0)
  end
  return nil, err, "loader"
end

return outcomes

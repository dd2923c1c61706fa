--- Leases in PostgreSQL: what fetch asks of the server and tells it, each in one round trip (statements/policies.lua).
--
-- A lease is for who loads a key; it is named by its fence, a number drawn at random.  Storing by it is refused when it has been
-- overtaken: another lease was granted since, or the entry was written or deleted.
local announce = require("fpcache.announce")
local cancelled = require("fpcache.policy.cancelled")
local core = require("fpcache.core")

local leases = {}

---@class fpcache.Answer
---@field value any nil: none, or known to be absent
---@field bytes integer? of its encoded form, opened and unpacked
---@field is_fresh boolean it lives
---@field left number? seconds it lives; -1: without end
---@field is_absent boolean "there is none" was remembered
---@field is_stale boolean it has expired and may still be given
---@field is_remembered boolean? the server has not said it: see older.remembered
---@field kept number? seconds that it may be given as stale, or that it is known to be absent
---@field age number?
---@field cost number? seconds that loading it took
---@field validator string?
---@field granted boolean? nil: nothing to be loaded; true: by the caller; false: somebody does
---@field fence integer; leases.NOTHING_STORED: granted, and nothing loaded under it can be stored

-- The fence of a lease for a key that a transaction of a watched table is changing: what is loaded may be old by its COMMIT.
leases.NOTHING_STORED = -1

local ABSENT_FORMAT = "a"

--- Reads what the statements of fetch answer for one key.
---@return fpcache.Answer? answer, string? err
function leases.read(self, stored, bytes, format, left, stale_left, age, cost, validator, granted, fence)
  local value, err
  local is_fresh = left ~= nil
  if bytes ~= nil and format ~= ABSENT_FORMAT and (is_fresh or stale_left) then
    value, err = core.value_decode(bytes, format, self.codec, self.parse_json, stored)
    if value == nil and is_fresh then return nil, err end -- as get says it
  end
  return {
    value = value, bytes = value ~= nil and core.value_size(bytes, format) or nil, is_fresh = is_fresh, left = left,
    is_absent = format == ABSENT_FORMAT and stale_left ~= nil, kept = stale_left,
    is_stale = value ~= nil and not is_fresh,
    age = age, cost = cost, validator = validator, granted = granted, fence = fence,
  }
end

local function number_of(word) return word ~= "-" and tonumber(word) or nil end

local GRANTED = { ["true"] = true, ["false"] = false }

--- Reads what fpcache_missed() says: a line of words, and the value where it may be given.
---@return fpcache.Answer? answer, string? err
function leases.read_words(self, stored, text)
  local stop = text:find("\n", 1, true)
  local words = {}
  for word in text:sub(1, stop - 1):gmatch("%S+") do words[#words + 1] = word end
  local has_row = words[1] ~= "-"
  local last = words[8] or "" -- an empty validator is no word
  local validator = last ~= "-" and last:gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end) or nil
  return leases.read(self, stored, has_row and text:sub(stop + 1) or nil, has_row and words[1] or nil, number_of(words[2]),
    number_of(words[3]), number_of(words[4]), number_of(words[5]), validator, GRANTED[words[6]], tonumber(words[7]))
end

--- Stores by a lease; bytes and format nil: the value stays as it was and lives anew.
---@param ttl number? nil: without end; negative: a mark of absence
---@param kept number? seconds from now that fetch may give it
---@return boolean? stored false: the lease was overtaken
---@return string? err
function leases.store(self, stored, fence, bytes, format, ttl, kept, cost, validator, tags)
  local found, err = self.db:row(self.statements[tags and "fetch_store_tagged" or "fetch_store"], self.timeout, self.space,
    stored, bytes, format, ttl, kept, cost, validator, fence, tags)
  if found ~= nil or not announce.is_surely_undone(err) then self.feed:wrote(self.seed, stored) end
  if found == nil then return nil, err end
  return found
end

--- Notes that the server could not be told how a loading ended.
---@param err string
function leases.note(self, err)
  self.flow.last_error = err
  self.flow.breaker:failed(err)
end

--- Ends a lease without a value; nobody gets another for `pause` seconds.  Also in a task that is cancelled, soon.
---@param mark string? for those who wait, see outcomes.lua
function leases.release(self, stored, fence, pause, mark)
  cancelled.surely(function()
    return self.db:run(self.statements.fetch_release, self.timeout, self.space, stored, pause, fence, mark)
  end, function(err) leases.note(self, err) end)
end

--- Prolongs an entry.
function leases.slide(self, stored, ttl, kept)
  return self.db:run(self.statements.fetch_slide, self.timeout, self.space, stored, ttl, kept)
end

return leases

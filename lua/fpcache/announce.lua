--- What this process tells itself about its own changes, so that it reads its writes whichever layer answers.
--
-- A change is announced to the feed of the process after the server's answer and before the call returns; also when
-- nobody knows whether it was done.  Inside a transaction nothing is announced before COMMIT: a Pending stands
-- in the feed's place and collects.  It announces what a savepoint has undone too, which costs a reload and
-- falsifies nothing.
local core = require("fpcache.core")

-- Errors after which the server has surely not run the statement.
local NOT_DONE = {
  auth = true, busy = true, closed = true, connect = true, denied = true, invalid = true, schema = true,
}

local announce = {}

--- Whether a statement that failed with `err` surely changed nothing.
---@param err string "code: message"
function announce.is_surely_undone(err)
  return NOT_DONE[err:match("^(%l+):")] or false
end

--- Stands where a cache has no look() of its own (see fast_feed.bind_look): the feed is to be asked.
function announce.unknown() return nil end

--- Stands where a cache has no feed: knows nothing, keeps nothing.
local none = {}
announce.none = none

function none.look() return false end
function none.wrote() end
function none.wrote_keys() end
function none.wrote_batch() end
function none.wrote_all() end
function none.close() end
function none.wait_fresh() return nil, "invalid: this cache has no feed (feed = false, or neither near cache nor filter)" end
function none.stats() return { feed = "off", filter = "off" } end
function none.missed() end

---@class fpcache.Pending the feed as a transaction sees it
local Pending = {}
Pending.__index = Pending

--- Collects for a feed.
---@return fpcache.Pending
function announce.pending(feed)
  if feed == none then return none end
  return setmetatable({ feed = feed, keys = {}, hashes = {}, is_all = false }, Pending)
end

--- Nothing but the server is asked inside a transaction.
function Pending.look() return false end

function Pending.wait_fresh()
  return nil, "invalid: inside a transaction every answer is the server's"
end

function Pending:stats() return self.feed:stats() end

function Pending:wrote(seed, stored)
  local keys = self.keys
  keys[#keys + 1] = { seed, stored }
end

function Pending:wrote_keys(seed, stored)
  for i = 1, #stored do self:wrote(seed, stored[i]) end
end

--- Keeps 8 bytes a key; the batch itself is used again meanwhile.
function Pending:wrote_batch(seed, batch)
  local hashes = core.feed_hashes(seed, batch)
  if hashes then
    self.hashes[#self.hashes + 1] = hashes
  else
    self.is_all = true -- no memory for them
  end
end

function Pending:wrote_all() self.is_all = true end

--- After COMMIT: announces all of it.  Repeatable.
function Pending:publish()
  local feed = self.feed
  for _, pair in ipairs(self.keys) do feed:wrote(pair[1], pair[2]) end
  for _, hashes in ipairs(self.hashes) do feed:wrote_hashes(hashes) end
  if self.is_all then feed:wrote_all() end
  self.keys, self.hashes, self.is_all = {}, {}, false
end

function none.publish() end

return announce

--- Writes that nobody waits for: a bounded queue, emptied in the background.
--
-- For code that must not wait, such as nginx's log phase.  Neighbours in the queue that are alike travel in one statement.  What
-- does not fit is refused at once; what fails is counted and forgotten.  Where there is no background, a write is done at once.
local limits = require("fpcache.limits")
local loop = require("fpcache.loop")
local options = require("fpcache.options")
local Cache = require("fpcache.client")

local MAX_WRITES, MAX_BYTES = 10000, 32 * 1024 * 1024
local BATCH = 1000 -- writes in one statement

---@class fpcache.Later
---@field queued integer
---@field bytes integer of keys and texts that are queued
---@field done integer
---@field failed integer
---@field dropped integer refused, since the queue was full
local Later = {}
Later.__index = Later

local later = {}

--- The queue of a cache and its views.
---@return fpcache.Later
function later.new()
  return setmetatable({ first = 1, last = 0, queued = 0, bytes = 0, done = 0, failed = 0, dropped = 0, is_running = false },
    Later)
end

---@return table counts queued, bytes, done, failed, dropped, last_error
function Later:stats()
  return { queued = self.queued, bytes = self.bytes, done = self.done, failed = self.failed, dropped = self.dropped,
    last_error = self.last_error }
end

local function copy_of(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for k, v in next, value do copy[copy_of(k)] = copy_of(v) end
  return setmetatable(copy, getmetatable(value))
end

local function take(self)
  local entry = self[self.first]
  if not entry then return nil end
  self[self.first], self.first = nil, self.first + 1
  return entry
end

--- Whether two writes may travel together: plain ones of one kind, in one namespace (each request may have its own view of
-- it), with the same life.
local function are_alike(a, b)
  return not a.opts and not b.opts and a.is_delete == b.is_delete and a.cache.space == b.cache.space and a.ttl == b.ttl
end

--- The next writes that are alike; of a key that comes twice the last one counts.
local function take_batch(self)
  local lead = take(self)
  if not lead then return nil end
  local batch, bytes = { lead }, lead.bytes
  while #batch < BATCH and self[self.first] and are_alike(lead, self[self.first]) do
    local entry = take(self)
    batch[#batch + 1], bytes = entry, bytes + entry.bytes
  end
  return batch, bytes
end

local function write(batch)
  local lead = batch[1]
  local cache = lead.cache
  if #batch == 1 then
    if lead.is_delete then return cache:delete(lead.key) end
    return cache:set(lead.key, lead.value, lead.opts or lead.ttl)
  end
  local items = {}
  if lead.is_delete then
    for i = 1, #batch do items[i] = batch[i].key end
    return cache:delete_many(items)
  end
  for i = 1, #batch do items[batch[i].key] = batch[i].value end
  return cache:set_many(items, lead.ttl)
end

local function count(self, batch, called, result, err)
  if called and result ~= nil then
    self.done = self.done + #batch
  elseif #batch > 1 and called and err:find("^invalid:") then -- one that cannot be stored keeps no other from it
    for i = 1, #batch do
      local alone = { batch[i] }
      count(self, alone, pcall(write, alone))
    end
  else
    self.failed, self.last_error = self.failed + #batch, called and err or tostring(result)
  end
end

--- Empties the queue, a statement after the other.
local function run(self)
  while true do
    local batch, bytes = take_batch(self)
    if not batch then break end
    count(self, batch, pcall(write, batch))
    self.queued, self.bytes = self.queued - #batch, self.bytes - bytes
  end
  self.is_running = false
end

--- Queues a write.
---@return boolean? true, string? err
local function queue(self, entry)
  if entry.cache.is_transaction then return nil, "invalid: inside a transaction nothing is written later; use set or delete" end
  if loop.ends() then return nil, "closed: the worker ends, and nothing is written any more" end
  if self.queued >= MAX_WRITES or self.bytes + entry.bytes > MAX_BYTES then
    self.dropped = self.dropped + 1
    return nil, ("busy: %d writes of %d bytes wait already (this one was dropped)"):format(self.queued, self.bytes)
  end
  self.last = self.last + 1
  self[self.last], self.queued, self.bytes = entry, self.queued + 1, self.bytes + entry.bytes
  if not self.is_running then
    self.is_running = true
    if not loop.background(function() run(self) end) then run(self) end
  end
  return true
end

local SET_OPTIONS = { ttl = { type = "duration" }, expires_at = { type = "number" }, keep_ttl = { type = "boolean" },
  if_absent = { type = "boolean" }, if_present = { type = "boolean" }, tags = { type = "string table" } }

--- Stores a value soon, without waiting for it; works in every phase of nginx.  Whether it was stored is only counted
-- (cache:stats().later).  A table is copied, and may be changed afterwards.
---@param key string
---@param value any not nil
---@param opts number|table|nil ttl in seconds, or { ttl, expires_at, keep_ttl, if_absent, if_present, tags } as of set
---@return boolean? true it is queued
---@return string? err "busy: ..." when the queue is full: the write is dropped
function Cache:set_later(key, value, opts)
  if value == nil then error("bad value (nil cannot be stored; use fpcache.null, or delete_later the key)", 2) end
  local err = limits.key_error(key, self.max_key_bytes, 2)
  if err then return nil, err end
  local ttl
  if type(opts) == "table" then
    local read = options.read(SET_OPTIONS, opts, 2)
    if next(read) == "ttl" and next(read, "ttl") == nil then opts = read.ttl end -- the usual case
  end
  if type(opts) == "table" then
    opts = copy_of(opts)
  else
    local ok
    ok, ttl = limits.ttl(opts, 2)
    if not ok then return nil, ttl end
    opts = nil
  end
  local size = type(value) == "string" and #value or 0
  if size > self.max_value_bytes then
    return nil, ("invalid: a value of %d bytes exceeds max_value_bytes (%d)"):format(size, self.max_value_bytes)
  end
  return queue(self.later, { cache = self, key = key, value = copy_of(value), ttl = ttl, opts = opts, bytes = #key + size })
end

--- Deletes a key soon, as set_later stores one.
---@param key string
---@return boolean? true it is queued
---@return string? err
function Cache:delete_later(key)
  local err = limits.key_error(key, self.max_key_bytes, 2)
  if err then return nil, err end
  return queue(self.later, { cache = self, key = key, is_delete = true, bytes = #key })
end

return later

--- Calls that write many keys: one round trip for each batch of bounded size.
local announce = require("fpcache.announce")
local core = require("fpcache.core")
local flights = require("fpcache.policy.flights")
local limits = require("fpcache.limits")
local options = require("fpcache.options")
local Cache = require("fpcache.transaction")

local key_error, stored_key, check_ttl = limits.key_error, limits.stored_key, limits.ttl

local bulk = {}

local BATCH_ROWS = 10000
local BATCH_BYTES = 8 * 1024 * 1024

local SET_MANY_OPTIONS = {
  -- for all, or { key = seconds } with none for the others
  ttl = { type = "number string table", expected = "seconds, duration or table" },
  batch = { type = "integer", default = BATCH_ROWS, check = options.between(1, 1000000, "") }, -- rows in one statement
  tags = { type = "string table" }, -- of all of them
}

--- An iterator of key, value, ttl from what the caller gave.
local function source_of(items, level)
  if type(items) == "function" then return items end
  local meta = getmetatable(items)
  if type(meta) == "table" and meta.__call then return function() return items() end end -- such as a scan
  if type(items) == "table" then return next, items end
  error(("bad items (table or iterator expected, got %s)"):format(type(items)), level + 1)
end

--- Fills a batch from the source.  Errors name the key's place in the input, never its content.
---@return boolean? more false at the end of the source
---@return string? err
local function fill(self, batch, source, level)
  local ttls, default_ttl = source.ttls, source.ttl
  local max_key, max_value, codec = self.max_key_bytes, self.max_value_bytes, self.codec
  local rows = 0
  while rows < source.batch_rows and batch:bytes() < BATCH_BYTES do
    local key, value, ttl = source.next(source.state, source.key)
    if key == nil then return false end
    source.key, source.count, rows = key, source.count + 1, rows + 1
    local err = key_error(key, max_key, level + 1)
    if err then return nil, ("%s (item %d)"):format(err, source.count) end
    if value == nil then error(("bad value of item %d (nil cannot be stored)"):format(source.count), level + 1) end
    if ttl == nil then ttl = default_ttl end
    if ttls then ttl = ttls[key] end
    local ok, seconds = check_ttl(ttl, level + 1)
    if not ok then return nil, ("%s (item %d)"):format(seconds, source.count) end
    ok, err = batch:add(key, value, seconds, codec, max_value)
    if not ok then return nil, ("%s (item %d)"):format(err, source.count) end
    if source.count <= flights.MOST_KEYS then source.keys[source.count] = key end
  end
  return true
end

--- Fills and sorts the next batch while the server works on the last.  Whatever comes of it, the server's answer is
-- fetched, so that the connection can roll back and live on.
local function fill_and_receive(self, batch, source)
  local called, more, err = true, false, nil
  if source.has_more then
    called, more, err = pcall(fill, self, batch, source, 7) -- blames the caller of set_many
  end
  local sealed, why = batch:seal()
  local ok, reason = self.db:receive(self.bulk_timeout)
  if not called then error(more, 0) end
  if more == nil then return nil, err end
  if not sealed then return nil, why end
  if not ok then return nil, reason end
  source.has_more = more
  return true
end

--- Forgets the flights of what was written; beyond so many keys those of the namespace.
local function forget_flights(self, source)
  local all = self.flow.flights
  if source.count > flights.MOST_KEYS then return flights.forget(all, self.space) end
  if not all.pending and next(all) == nil then return end
  for _, key in ipairs(source.keys) do flights.forget(all, self.space, (stored_key(key, self.max_key_bytes, 2))) end
end

--- Sends batches one after the other in a transaction.
local function send_batches(self, batch, source)
  while batch:rows() > 0 do
    local ok, err = self.db:send(source.statement, self.bulk_timeout, self.space, batch, source.tags)
    if not ok then return nil, err end
    self.feed:wrote_batch(self.seed, batch) -- announced after COMMIT
    batch:clear()
    ok, err = fill_and_receive(self, batch, source)
    if not ok then return nil, err end
  end
  forget_flights(self, source) -- after COMMIT
  return true
end

--- Stores many values: all or none of a call.
---@param items table|function { key = value }, or an iterator of key, value[, ttl in seconds or as "5m"]
---@param opts number|string|table|nil ttl in seconds or as "5m", or { ttl = one | { key = one }, batch = rows, tags = list }
---@return integer? count items taken (of a key that comes twice the last value stays)
---@return string? err
function Cache:set_many(items, opts)
  if type(opts) ~= "table" then opts = { ttl = opts } end
  local read = options.read(SET_MANY_OPTIONS, opts, 2)
  local source = { batch_rows = read.batch, count = 0, keys = {}, has_more = true }
  source.next, source.state = source_of(items, 2)
  if read.tags ~= nil then
    local tags, problem = limits.tags(read.tags, 2)
    if not tags then return nil, problem end
    if #tags > 0 then source.tags = tags end
  end
  source.statement = self.statements[source.tags and "set_many_tagged" or "set_many"]
  if type(read.ttl) == "table" then source.ttls = read.ttl else source.ttl = read.ttl end
  local batch = core.batch()
  local more, err = fill(self, batch, source, 2)
  local ok = more ~= nil
  if more == false then -- it all fits: one statement is its own transaction
    if batch:rows() > 0 then
      ok, err = self.db:run(source.statement, self.bulk_timeout, self.space, batch, source.tags)
      if ok or not announce.is_surely_undone(err) then
        self.feed:wrote_batch(self.seed, batch)
        forget_flights(self, source)
      end
    end
  elseif more then -- in a transaction of the caller's: a savepoint
    ok, err = self:transaction(send_batches, batch, source)
  end
  batch:close()
  if not ok then return nil, err end
  self.counts.sets = self.counts.sets + source.count
  return source.count
end

--- The stored keys for a list: a new list, the usual short key without a call.
function bulk.stored_keys(self, keys, level)
  if type(keys) ~= "table" then error(("bad keys (list expected, got %s)"):format(type(keys)), level + 1) end
  local stored, max = {}, math.min(self.max_key_bytes, core.KEY_INLINE)
  for i = 1, #keys do
    local key = keys[i]
    if type(key) ~= "string" or #key > max or key == "" then
      local err
      key, err = stored_key(key, self.max_key_bytes, level + 1)
      if not key then return nil, ("%s (key %d)"):format(err, i) end
    end
    stored[i] = key
  end
  return stored
end

--- Calls `run` with slices of the list of at most BATCH_ROWS keys.
function bulk.each_slice(stored, run)
  if #stored <= BATCH_ROWS then return run(stored) end
  for first = 1, #stored, BATCH_ROWS do
    local slice = {} -- copied by hand: LuaJIT unpacks only some thousands
    for i = first, math.min(first + BATCH_ROWS - 1, #stored) do slice[#slice + 1] = stored[i] end
    local ok, err = run(slice)
    if not ok then return nil, err end
  end
  return true
end

--- Those that the filter does not know to be absent.
local function maybe_present(self, stored)
  local rest = {}
  for i = 1, #stored do
    if not self.feed:look(self.seed, stored[i]) then rest[#rest + 1] = stored[i] end
  end
  return rest
end

local DELETE_MANY_OPTIONS = { near = { type = "boolean", default = false } }

--- Deletes many keys, as delete does one.
---@param keys string[]
---@param opts table? { near = true }: those that the filter knows to be absent cost nothing; see delete
---@return integer? deleted how many there were
---@return string? err
function Cache:delete_many(keys, opts)
  local read = options.read(DELETE_MANY_OPTIONS, opts, 2)
  local stored, err = bulk.stored_keys(self, keys, 2)
  if not stored then return nil, err end
  if read.near then stored = maybe_present(self, stored) end
  if #stored == 0 then return 0 end
  local deleted = 0
  local ok
  ok, err = bulk.each_slice(stored, function(slice)
    local found, count = self.db:row(self.statements.delete_many, self.bulk_timeout, self.space, slice)
    if found or not announce.is_surely_undone(count) then
      self.feed:wrote_keys(self.seed, slice)
      for _, key in ipairs(slice) do flights.forget(self.flow.flights, self.space, key) end
    end
    if not found then return nil, count end
    deleted = deleted + count
    return true
  end)
  if not ok then return nil, err end
  return deleted
end

local CLEAR_OPTIONS = {
  all = { type = "boolean" },     -- every namespace of this user
  at_once = { type = "boolean" }, -- in the same short time however much there is; for caches with namespace_version
}

--- Deletes everything of this namespace.
---@param opts table? { all = true } for every namespace of this user; { at_once = true }: one row is written and nothing is
--- deleted; what there was is not there any more, and a sweep takes its space back (docs/namespaces.md)
---@return integer? deleted 0 with at_once, which does not count
---@return string? err
function Cache:clear(opts)
  local read = options.read(CLEAR_OPTIONS, opts, 2)
  local deleted, err
  if read.at_once then
    if read.all then error("options: at_once and all exclude each other", 2) end
    if not self.versioned then
      return nil, "invalid: this cache was opened without namespace_version = true, which at_once needs"
    end
    deleted, err = self.db:run(self.statements.clear_at_once, self.timeout, self.space)
    deleted = deleted and 0
  elseif read.all then
    deleted, err = self.db:run(self.statements.clear_all, self.bulk_timeout)
  else
    deleted, err = self.db:run(self.statements.clear, self.bulk_timeout, self.space)
  end
  if deleted or not announce.is_surely_undone(err) then
    self.feed:wrote_all()
    flights.forget(self.flow.flights, not read.all and self.space or nil)
  end
  if not deleted then return nil, err end
  if self.near then self.near:clear() end -- nothing in it is valid any more: the memory
  return deleted
end

return bulk

--- Reading many keys: the server is asked, in one round trip for each batch, for what neither the near cache nor the
-- filter answers.
local announce = require("fpcache.announce")
local bulk = require("fpcache.bulk")
local core = require("fpcache.core")
local layers = require("fpcache.layers")
local near_cache = require("fpcache.near")
local options = require("fpcache.options")
local Cache = require("fpcache.client")

local now, ABSENT = core.system.now, near_cache.ABSENT

local GET_MANY_OPTIONS = {
  parse_json = { type = "boolean" },
  near = { type = "boolean", default = true }, -- false: asks the server for each of them
}

--- What is still to be asked for.  Lists of the same length, but `spots` and `stamps` may have gaps.
local function new_question()
  return { keys = {}, stored = {}, spots = {}, stamps = {} }
end

--- Answers what can be answered here into `values`.
---@return table question
local function ask_nearby(self, keys, stored, near, values)
  local question, count, space = new_question(), 0, self.space
  for i = 1, #keys do
    local key, value = keys[i], nil
    if near then value = near:get(space, key) end
    if value ~= nil then
      if value ~= ABSENT then values[key] = value end
    else
      local absent, spot, stamp = self.feed:look(self.seed, stored[i])
      local shared = stamp and self.shared
      if shared and not absent then value = shared:find(self, stored[i], spot) end
      if absent then
        self.counts.absent = self.counts.absent + 1
      elseif value == ABSENT then
        self.counts.misses = self.counts.misses + 1
      elseif value ~= nil then
        values[key], self.counts.hits = value, self.counts.hits + 1
      else
        count = count + 1
        question.keys[count], question.stored[count] = key, stored[i]
        question.spots[count], question.stamps[count] = spot, stamp
      end
    end
  end
  return question
end

--- Keeps the server's answers, and that it had none.
local function keep(self, near, question, first, last, asked_at, found, ttls, sizes)
  local space, shared = self.space, self.shared
  for i = first, last do
    local key, spot, stamp = question.keys[i], question.spots[i], question.stamps[i]
    if stamp and found[key] ~= nil then
      if shared then shared:keep(self, question.stored[i], found[key], asked_at, ttls[key]) end
      near:put(space, key, found[key], sizes[key], asked_at, ttls[key], spot, stamp)
    elseif stamp then
      near:put_absent(space, key, asked_at, spot, stamp)
    end
  end
end

--- How many of the keys the server did not have although the filter could have known.
local function count_in_vain(question, first, last, found)
  local count = 0
  for i = first, last do
    if question.stamps[i] and found[question.keys[i]] == nil then count = count + 1 end
  end
  return count
end

--- Asks the server and adds what it has to `values`.
---@return table? values, integer|string hits_or_err
local function ask_server(self, question, near, parse_json, values)
  local statement = near and self.statements.get_many_with_ttl or self.statements.get_many
  local hits, done = 0, 0
  local ok, err = bulk.each_slice(question.stored, function(slice)
    local asked_at = now()
    local found, rows, ttls, sizes = self.db:map(statement, self.bulk_timeout, self.codec, parse_json, self.space, slice)
    if not found then return nil, rows end
    local in_vain = question.stamps and count_in_vain(question, done + 1, done + #slice, found) or 0
    if in_vain > 0 then layers.asked_in_vain(self, in_vain) end
    if near then keep(self, near, question, done + 1, done + #slice, asked_at, found, ttls, sizes) end
    hits, done = hits + rows, done + #slice
    if self.touches then self.touches:hits(self.space, slice) end
    if next(values) == nil then
      values = found
    else
      for key, value in next, found do values[key] = value end
    end
    return true
  end)
  if not ok then return nil, err end
  return values, hits
end

--- The values of many keys.
---@param keys string[]
---@param opts table? { parse_json = false }, { near = false } as in get
---@return table? values { key = value } of those that exist; tables may be shared, see docs/near.md
---@return string? err
function Cache:get_many(keys, opts)
  local read = options.read(GET_MANY_OPTIONS, opts, 2)
  local parse_json, near = read.parse_json, self.near
  if parse_json == nil then parse_json = self.parse_json end
  local stored, err = bulk.stored_keys(self, keys, 2)
  if not stored then return nil, err end
  local values = {}
  local question = { stored = stored }
  if not read.near or parse_json ~= self.parse_json then near = nil end
  if read.near and self.feed ~= announce.none then question = ask_nearby(self, keys, stored, near, values) end
  local asked = #question.stored
  if asked == 0 then return values end
  local all, hits = ask_server(self, question, near, parse_json, values)
  if not all then return nil, hits end
  local counts = self.counts
  counts.hits, counts.misses = counts.hits + hits, counts.misses + math.max(asked - hits, 0)
  return all
end

return Cache

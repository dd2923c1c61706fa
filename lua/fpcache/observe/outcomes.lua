--- What the calls of a cache came to, read from their results.
--
-- Each function gets the event, the call's first arguments and its results; results of calls that failed do not come here.
local outcomes = {}

--- Found or not, and who answered.
local function found(event, _, value, _, source)
  event.outcome = value ~= nil and "hit" or "miss"
  event.source = source
end

local function fetched(event, _, value, _, source)
  event.outcome = source == "loader" and "loaded" or source == "stale" and "stale" or value ~= nil and "hit" or "miss"
  event.source = source
end

local function is_there(event, _, answer)
  event.outcome = answer and answer ~= -2 and "hit" or "miss"
end

--- Done, or refused by a condition or for want of a key.
local function done(event, _, answer)
  event.outcome = answer == false and "refused" or "done"
end

local function returned(event, _, value)
  event.outcome = value ~= nil and "hit" or "miss"
end

--- A number of keys that the call was about.
local function counted(event, _, count)
  event.outcome, event.count = "done", tonumber(count)
end

local function many_found(event, keys, values)
  local hits = 0
  for _ in next, values do hits = hits + 1 end
  event.outcome, event.keys, event.count = "done", #keys, hits
end

--- Some may not have been answered.
local function many_fetched(event, keys, values, err)
  many_found(event, keys, values)
  if err then event.error, event.code = err, err:match("^(%l+):") end
end

local function many_done(event, keys, count)
  event.outcome, event.keys, event.count = "done", #keys, tonumber(count)
end

-- name of the call = how it went.  Those in `keyed` have a key as their first argument.
outcomes.KEYED = {
  get = found, entry = returned, exists = is_there, ttl = is_there, fetch = fetched,
  set = done, add = done, replace = done, cas = done, get_set = returned, get_delete = returned,
  delete = done, expire = done, touch = done, persist = done, incr = done, decr = done, tags = done,
}
outcomes.OTHERS = {
  get_many = many_found, fetch_many = many_fetched, delete_many = many_done, set_many = counted,
  keys = function(event, _, list) event.outcome, event.count = "done", #list end,
  count = counted, clear = counted, cleanup = counted, invalidate_tag = counted,
  ping = done, transaction = done,
}

--- Bytes of a page of rows.
function outcomes.bytes_of(rows)
  local bytes = 0
  for _, field in next, rows do
    if type(field) == "string" then bytes = bytes + #field end
  end
  return bytes
end

-- The calls whose second argument is a value that is stored.
local STORES = { set = true, add = true, replace = true, get_set = true }

--- The encoded size of what was read or stored, where that costs nothing to know: texts, and what the near cache holds.
---@param cache table
---@param name string of the call
---@param key string
---@param given any second argument
---@param answer any first result
---@return integer? bytes
function outcomes.bytes(cache, name, key, given, answer)
  local value = STORES[name] and given or answer
  if name == "cas" or value == nil then return nil end
  if type(value) == "string" then return #value end
  if STORES[name] or not (name == "get" or name == "fetch") or not cache.near then return nil end
  return cache.near:bytes_of(cache.space, key)
end

return outcomes

#!/usr/bin/env fpcache
-- warmup.lua -- warms a shared cache with real data and reads it back.
--
--     fpcache examples/warmup.lua                        with the private server, or FPCACHE_URL
--     FPCACHE_URL=postgresql://me@host/db fpcache examples/warmup.lua
--
-- The data: the ISO lists of Debian's package iso-codes (languages, countries, their subdivisions, currencies,
-- scripts), and, where there is one, this machine's index of Debian packages.  Both are streamed: never more than one
-- batch is in memory, however long the source.
local codec = require("fpcache.codec")
local now = require("fpcache.core").system.now -- seconds, monotonic
local fpcache = require("fpcache")

local ISO_FOLDER = "/usr/share/iso-codes/json"
local HOUR = 3600 -- seconds

-- file, name of its list, what identifies a record
local ISO_LISTS = {
  { "iso_639-3", "639-3", "alpha_3", "language" },
  { "iso_639-5", "639-5", "alpha_3", "language-family" },
  { "iso_3166-1", "3166-1", "alpha_2", "country" },
  { "iso_3166-2", "3166-2", "code", "subdivision" },
  { "iso_3166-3", "3166-3", "alpha_4", "former-country" },
  { "iso_4217", "4217", "alpha_3", "currency" },
  { "iso_15924", "15924", "alpha_4", "script" },
}

--- An iterator of key, record over the ISO lists, a file at a time.
local function iso_records()
  return coroutine.wrap(function()
    for _, list in ipairs(ISO_LISTS) do
      local name, field, id, kind = table.unpack(list)
      local file <close> = assert(io.open(("%s/%s.json"):format(ISO_FOLDER, name)))
      local records = assert(codec.json.decode(file:read("a")))[field]
      for _, record in ipairs(records) do coroutine.yield(("iso:%s:%s"):format(kind, record[id]), record) end
    end
  end)
end

--- An iterator of key, record over the machine's package index; nothing when it has none.
local function package_records()
  return coroutine.wrap(function()
    local pipe = io.popen("apt-cache dumpavail 2>/dev/null")
    if not pipe then return end
    local record, field = {}, nil
    for line in pipe:lines() do
      local name, text = line:match("^([%w-]+):%s*(.*)$")
      if name then
        record[name], field = text, name
      elseif line == "" and record.Package then
        coroutine.yield("deb:" .. record.Package, record)
        record = {}
      elseif field then
        record[field] = record[field] .. "\n" .. line -- a continued line
      end
    end
    if record.Package then coroutine.yield("deb:" .. record.Package, record) end
    pipe:close()
  end)
end

local function is_same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not is_same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

--- Writes everything that `records` gives, remembers every hundredth for comparison, and says how long it took.
local function warm(cache, what, records)
  local samples, seen = {}, 0
  local started = now()
  local count = assert(cache:set_many(function()
    local key, record = records()
    seen = seen + 1
    if key and seen % 100 == 0 then samples[key] = record end
    return key, record
  end, HOUR))
  local seconds = now() - started
  print(("%-18s %8d records %8.2f s %10.0f records/s"):format(what, count, seconds, count / seconds))
  return samples, count
end

--- Reads the samples back and compares them with the source.
local function compare(cache, samples)
  local keys = {}
  for key in pairs(samples) do keys[#keys + 1] = key end
  local found = assert(cache:get_many(keys))
  for key, record in pairs(samples) do
    assert(is_same(found[key], record), "not what was written: " .. key)
  end
  return #keys
end

--- Cache-aside: look up, load what is missing, keep it.
local function cache_aside(cache, lookups)
  local hits, misses = 0, 0
  for i = 1, lookups do
    local key = ("square:%d"):format(math.random(1, lookups // 4))
    local value, err = cache:get(key)
    if err then error(err) end
    if value == nil then
      misses = misses + 1
      local number = tonumber(key:match("%d+$"))
      value = { of = number, is = number * number } -- stands for the slow origin
      assert(cache:set(key, value, HOUR))
    else
      hits = hits + 1
      assert(value.is == value.of * value.of, i)
    end
  end
  return hits, misses
end

local cache <close> = assert(fpcache.new{ namespace = "warmup" })
assert(cache:delete_many(assert(cache:keys("square:")))) -- so that the loop below starts cold

local samples, iso_count = warm(cache, "ISO lists", iso_records())
local package_samples, package_count = warm(cache, "Debian packages", package_records())
if package_count == 0 then print("                   (this machine has no package index: apt-get update makes one)") end
local compared = compare(cache, samples) + compare(cache, package_samples)
local hits, misses = cache_aside(cache, 2000)

local flag = assert(cache:get("iso:country:JP"))
print(("one of them        %s %s"):format(flag.flag, flag.name))
local stats = assert(cache:stats())
print(("read back          %8d samples, all equal"):format(compared))
print(("cache-aside        %8d hits %8d misses"):format(hits, misses))
print(("in the cache       %8d keys from %d records"):format(assert(cache:count()), iso_count + package_count + misses))
print(("on the server      %8d bytes, UNLOGGED %s"):format(stats.server.bytes, stats.server.unlogged and "yes" or "no"))

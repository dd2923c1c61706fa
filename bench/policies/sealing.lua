-- sealing.lua -- Question: what do compression and encryption cost: in one encoding and decoding, and in a set and a get?
--
-- Text of words drawn by chance (fixed seed), which compresses about as English does.  All sides in turn; medians.
local core = require("fpcache.core")
local fpcache = require("fpcache")
local rounds = require("rounds")

local quick = os.getenv("BENCH_QUICK") == "1"
local now = core.system.now
local KEYS = { k = ("0123456789abcdef"):rep(4) }

local words, state = {}, 20261123
local function draw(n)
  state = state * 16807 % 2147483647
  return state % n + 1
end
for i = 1, 400 do
  local letters = {}
  for j = 1, draw(8) + 1 do letters[j] = ("etaoinshrdlucmfw"):sub(draw(16), -1):sub(1, 1) end
  words[i] = table.concat(letters)
end
local function text(bytes)
  local list, size = {}, 0
  while size < bytes do
    local word = words[math.ceil(400 * (draw(1000) / 1000) ^ 3)]
    list[#list + 1], size = word, size + #word + 1
  end
  return table.concat(list, " "):sub(1, bytes)
end

local KINDS = {
  { name = "plain", opts = {} },
  { name = "compressed", opts = { compress = { above = 1 } } },
  { name = "encrypted", opts = { encrypt = { keys = KEYS } } },
  { name = "both", opts = { compress = { above = 1 }, encrypt = { keys = KEYS } } },
}
for _, kind in ipairs(KINDS) do
  kind.opts.feed, kind.opts.namespace = false, kind.name
  kind.cache = assert(fpcache.new(kind.opts))
end

local function timed(count, call)
  return function()
    local started = now()
    for _ = 1, count do call() end
    return (now() - started) / count * 1e6
  end
end

for _, bytes in ipairs { 200, 2000, 12000 } do
  local value, sides = text(bytes), { encode = {}, decode = {}, set = {}, get = {} }
  for _, kind in ipairs(KINDS) do
    local cache, name = kind.cache, kind.name
    local stored, format = assert(core.value_encode(value, cache.codec, "k"))
    kind.stored = #stored
    assert(cache:set("k", value) and cache:get("k") == value)
    local count, calls = quick and 200 or 1000, quick and 100 or 300
    table.insert(sides.encode, { name = name, measure = timed(count, function() core.value_encode(value, cache.codec, "k") end) })
    table.insert(sides.decode, { name = name, measure = timed(count, function()
      core.value_decode(stored, format, cache.codec, true, "k")
    end) })
    table.insert(sides.set, { name = name, measure = timed(calls, function() cache:set("k", value) end) })
    table.insert(sides.get, { name = name, measure = timed(calls, function() cache:get("k") end) })
  end
  local results = {}
  for what, list in pairs(sides) do results[what] = rounds.run(list, quick and 5 or 21) end
  for _, kind in ipairs(KINDS) do
    local function median(what) return results[what][kind.name].median end
    print(("%6d bytes  %-10s stored %6d   encode %6.1f us   decode %6.1f us   set %6.1f us x %.2f   get %6.1f us x %.2f"):format(
      bytes, kind.name, kind.stored, median "encode", median "decode", median "set", median "set" / results.set.plain.median,
      median "get", median "get" / results.get.plain.median))
  end
end
for _, kind in ipairs(KINDS) do kind.cache:close() end

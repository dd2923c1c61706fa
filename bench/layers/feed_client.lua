--- Question: what does telling the feed cost a `set` as a program makes it, through the client?
--
-- feed_cost.lua asks the server's side of it alone.  Here two schemas of one database, in one of which the feed is switched off
-- (`fpcache admin feed off`), take turns: one `set` after the other, and `set`s of 64 tasks, which travel merged.  Caches
-- as they are by default: where the feed is on, its reader runs beside.
local common = require("common")
local admin = require("fpcache.admin")
local fpcache = require("fpcache")
local now = require("fpcache.core").system.now
local rounds = require("rounds")

local ROUNDS = common.is_quick and 5 or 25
local KEYS, TASKS, TTL = 10000, 64, 3600
local CALLS = { one = 4000, many = 20000 } -- in a round
local BAR = 0.85
local VALUE = ("x"):rep(100)

local function open(schema, is_on)
  assert(admin.setup({ connection_string = common.super, schema = schema, grant = "app" }))
  if not is_on then assert(admin.switch_feed({ connection_string = common.super, schema = schema }, false)) end
  local cache = assert(fpcache.new({ connection_string = common.url, schema = schema, maxconn = 2 }))
  local items = {}
  for i = 1, KEYS do items["key:" .. i] = VALUE end
  assert(cache:set_many(items, TTL))
  return cache
end

local function one(cache)
  for _ = 1, CALLS.one do assert(cache:set("key:" .. math.random(KEYS), VALUE, TTL)) end
  return CALLS.one
end

local function many(cache)
  local left = CALLS.many
  local function task()
    while left > 0 do
      left = left - 1
      assert(cache:set("key:" .. math.random(KEYS), VALUE, TTL))
    end
  end
  for _ = 1, TASKS do fpcache.spawn(task) end
  assert(fpcache.run())
  return CALLS.many
end

local telling, silent = open("feed_on", true), open("feed_off", false)
assert(telling.tells and not silent.tells, "both sides are the same")

local results = { rounds = ROUNDS, calls = CALLS, tasks = TASKS }
for _, work in ipairs { { "one at a time", one }, { TASKS .. " tasks", many } } do
  local name, run = work[1], work[2]
  local function side(what, cache)
    return { name = what, measure = function()
      local start = now()
      return run(cache) / (now() - start)
    end }
  end
  local rates = rounds.run({ side("on", telling), side("off", silent) }, ROUNDS)
  local each = {}
  for i = 1, ROUNDS do each[i] = rates.on.all[i] / rates.off.all[i] end
  table.sort(each)
  local ratio = rounds.median(each)
  print(("set, %-14s feed on %.0f/s, switched off %.0f/s: %.3f (half of the rounds %.2f to %.2f), bar %.2f: %s"):format(name,
    rates.on.median, rates.off.median, ratio, each[(ROUNDS + 3) // 4], each[(3 * ROUNDS + 1) // 4], BAR,
    ratio >= BAR and "reached" or "MISSED"))
  results[name] = { on = rates.on, off = rates.off, ratio = ratio, bar = BAR }
end
telling:close()
silent:close()
common.keep("feed_client", results)

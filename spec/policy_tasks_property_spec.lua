-- policy_tasks_property_spec.lua -- random policies among coroutines: near caches, timeouts, loadings that take time, a server
-- that comes and goes, against a model of what fetch promises.  The clock is the spec's; the database is aged along with it.
local connection = require "fpcache.connection"
local system = require("fpcache.core").system
local database = require "support.database"
local draws = require "support.draws"
local fpcache = require "fpcache"
local layers = require "support.layers"
local options = require "fpcache.options"
local tasks = require "support.tasks"
local waiting = require "fpcache.waiting"

local SEED, SCENES, ROUNDS = draws.seed(20261261), 8, 6
local KEYS = { "a", "b" }
local UNIT, SLACK = 4, 8 -- seconds: what the machine takes must be little beside what the spec's clock says

describe("random policies among coroutines", function()
  local db, clock, pool, superuser
  local draw, chance, random = draws.new(SEED)
  setup(function() db = database.new() end)
  before_each(function()
    pool = assert(connection.open(options.read(connection.OPTIONS, { connection_string = db.url }, 1), 1))
    superuser = assert(pool:acquire(10))
  end)
  after_each(function()
    if clock then clock:close() end
    superuser:close()
    pool:close()
    db:sql("GRANT SELECT ON cache TO public")
    db:close_all()
  end)


  local function random_policy()
    local opts = { ttl = (draw(50) + 10) * UNIT, lock = ({ "process", "host", "cluster" })[draw(3)],
      lock_timeout = draw(15) * UNIT, near = chance(60) }
    if chance(60) then opts.stale_ttl = (draw(60) + 5) * UNIT end
    if chance(40) then opts.negative_ttl = draw(30) * UNIT end
    if chance(15) then
      opts.sliding = true
    else
      if chance(30) then opts.jitter = draw(9) / 10 end
      if chance(40) then opts.refresh_ahead = draw(9) / 10 end
      if chance(30) then opts.beta = draw(3) end
    end
    local has_old = opts.stale_ttl or opts.refresh_ahead or opts.beta
    if chance(50) and has_old then opts.error_backoff = draw(20) * UNIT end
    if chance(30) then opts.tags = { "any" } end
    opts.hard_timeout = (draw(10) + (chance(50) and 4 or 10)) * UNIT
    if chance(50) and has_old then opts.soft_timeout = draw(3) * UNIT end
    return fpcache.policy(opts), opts.hard_timeout
  end

  local scene -- what is going on, and what the model knows

  --- Time passes for what is kept in this process and in the database, where the real time has passed already.
  local function pass(seconds)
    local now = system.now()
    scene.owed, scene.real = scene.owed + seconds - (now - scene.real), now
    if math.abs(scene.owed) < 1 then return end
    layers.age(scene.cache, scene.owed)
    assert(superuser:script(database.aging(scene.owed), 30)) -- psql takes too long for each step
    scene.owed = 0
  end

  local function is_closed() return scene.cache:stats { server = false }.policies.breaker == "closed" end

  --- What the model has of a key that a fetch which begins now must not do without.
  local function surely_old(key)
    local last, policy = scene.last[key], scene.policy
    if scene.is_shaky or not last or last.value == nil or not policy.stale_ttl then return false end
    return clock.time - last.at < policy.ttl * (1 - policy.jitter) + policy.stale_ttl - 2 * SLACK
  end

  local function fetch(key)
    local policy, began, had_old = scene.policy, clock.time, surely_old(key)
    local value, err, source = scene.cache:fetch(key, policy, function()
      local run, deleted = scene.running[key], scene.deleted[key]
      local is_sure = run == nil and scene.is_up and clock.time == began -- else it may have no lease
      assert.is_true(scene.is_shaky or run == nil or (scene.deleted[key] or -1) >= run -- that one has been overtaken
        or clock.time - run > policy.hard_timeout - SLACK
        or clock.time - began > policy.lock_timeout - SLACK, "two load at once")
      local began_at = clock.time
      scene.running[key], scene.loading[key] = began_at, scene.loading[key] or began_at
      local failed = chance(30)
      waiting.sleep((draw(8) - 1) * UNIT)
      is_sure = is_sure and scene.running[key] == began_at and deleted == scene.deleted[key]
      scene.running[key] = nil
      if failed then
        scene.failed[key] = clock.time
        return nil, "origin: down"
      end
      scene.version = scene.version + 1
      local record = { key = key, at = clock.time, value = chance(85) and ("%s %d"):format(key, scene.version) or nil }
      if record.value then scene.records[record.value] = record else scene.absent[key] = clock.time end
      scene.last[key] = is_sure and record or nil -- it had the lease, and nobody else loaded or deleted meanwhile
      return record.value
    end)
    local took = clock.time - began
    if had_old then assert.is_true(took <= (policy.soft_timeout or 0) + SLACK, "an older value was given late") end
    if err then
      if err:find("^timeout: loading took longer than hard_timeout") then
        -- who waits for another's loading gets its error
        assert.is_true(scene.hard_timeout ~= nil and clock.time - (scene.loading[key] or clock.time) >= scene.hard_timeout - 0.1)
      else
        assert.equal("origin: down", err)
        assert.is_true((scene.failed[key] or -1) >= began, "an error of nobody's loading")
      end
      assert.is_false(had_old, "an error while an older value was allowed")
      return
    end
    if value == nil then
      local allowed = source == "loader" and 0 or policy.negative_ttl
      assert.is_true(scene.absent[key] ~= nil and allowed ~= nil and began - scene.absent[key] <= allowed + SLACK,
        "absent, without anybody having said so")
      return
    end
    local record = assert(scene.records[value], "a value that was never loaded")
    assert.equal(key, record.key)
    local age = clock.time - record.at
    if source == "loader" then
      assert.is_true(record.at >= began, "an old value as a new one")
      return
    end
    local ends = policy.ttl
    if source == "stale" then ends = ends + assert(policy.stale_ttl) else assert.is_true(source == "db" or source == "near") end
    assert.is_true(source ~= "near" or policy.near, "the near cache, against the policy")
    assert.is_true(policy.sliding or age <= ends + took + SLACK, "too old")
    local deleted = scene.deleted[key]
    assert.is_false(deleted ~= nil and record.at < deleted and deleted < began, "it had been deleted before")
  end

  local function set_up(is_up)
    if scene.is_up == is_up then return end
    scene.is_up = is_up
    assert(superuser:script(is_up and "GRANT SELECT ON cache TO public" or "REVOKE SELECT ON cache FROM public", 30))
  end

  --- One round: some coroutines fetch at random moments; perhaps one deletes.
  local function round()
    set_up(not (scene.is_shaky and chance(40)))
    for _ = 1, draw(6) do
      local key, start = KEYS[draw(#KEYS)], draw(40) / 10 * UNIT
      clock:spawn(function()
        waiting.sleep(start)
        fetch(key)
      end)
    end
    if scene.is_up and chance(30) then
      local key, start = KEYS[draw(#KEYS)], draw(40) / 10 * UNIT
      clock:spawn(function()
        waiting.sleep(start)
        if scene.policy.tags and chance(50) then
          assert(scene.cache:invalidate_tag "any")
          for _, each in ipairs(KEYS) do scene.deleted[each], scene.last[each] = clock.time, nil end
        else
          assert(scene.cache:delete(key) ~= nil)
          scene.deleted[key], scene.last[key] = clock.time, nil
        end
      end)
    end
    clock:run()
    if chance(60) then
      local seconds = draw(30) * UNIT
      clock.time = clock.time + seconds
      pass(seconds)
    end
  end

  it("never give what is too old, late, deleted or of nobody, and load one at a time", function()
    random.state = SEED
    for number = 1, SCENES do
      db:sql("TRUNCATE cache, fpcache_tags")
      local before = random.state
      scene = { owed = 0, real = system.now(), records = {}, last = {}, deleted = {}, failed = {}, absent = {}, running = {},
        loading = {}, version = 0, is_up = true }
      scene.policy, scene.hard_timeout = random_policy()
      scene.is_shaky = chance(40) -- the server comes and goes, and who finds it gone loads on his own
      clock = tasks.new { fake = true, moved = function(seconds) pass(seconds) end }
      scene.cache = layers.open(db, { breaker_pause = 2 })
      for step = 1, ROUNDS do
        local ok, problem = pcall(round)
        if not ok then
          error(("seed %d (scene's own %d), scene %d, round %d: %s"):format(SEED, before, number, step, tostring(problem)), 0)
        end
      end
      -- When the server is back the breaker closes, however far it was.
      set_up(true)
      clock.time = clock.time + 8 * 2 + 1 -- the longest pause of all
      pass(17)
      clock:spawn(function() scene.cache:fetch("other", { near = false }, function() return 1 end) end)
      clock:run()
      assert.is_true(is_closed())
      clock:close()
      clock = nil
      scene.cache:close()
    end
  end)
end)

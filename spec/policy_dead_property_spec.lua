-- Random policies and a server that is lost, for longer than values live, and comes back; origins that are up and down: against a
-- model of what fetch gives from memory.  Time passes by layers.age() for the near cache, the feed loses touch in earnest.
local database = require "support.database"
local draws = require "support.draws"
local fpcache = require "fpcache"
local layers = require "support.layers"
local tasks = require "support.tasks"

local SEED, SCENES, STEPS = draws.seed(20261124), 4, 40
local KEYS = { "a", "b", "c", "d" }
local NEAR_TTL, SLACK = 200, 30 -- seconds; the machine may be slow

describe("random policies without their server", function()
  local db, clock
  local draw, chance, random = draws.new(SEED)
  setup(function() db = database.new() end)
  after_each(function()
    if clock then clock:close() end
    clock = nil
    db:let_in()
    db:close_all()
  end)

  local function random_policy()
    local opts = { ttl = 100 * draw(5), lock = ({ "process", "host", "cluster" })[draw(3)], near = not chance(15) }
    if chance(80) then opts.stale_ttl = 100 * draw(5) end
    if chance(40) then opts.negative_ttl = 100 end
    if chance(20) then
      opts.sliding = true
    else
      if chance(30) then opts.refresh_ahead = 0.5 end
      if chance(30) then opts.jitter = 0.2 end
    end
    if opts.stale_ttl and chance(70) then opts.error_backoff = 50 * draw(3) end
    if opts.stale_ttl and chance(30) then opts.soft_timeout = 1 end
    if chance(30) then opts.tags = { "any" } end
    return fpcache.policy(opts)
  end

  local scene -- what is going on, and what the model knows

  --- Asks for one key, by either function.
  local function ask(key, load)
    if not scene.many then return scene.cache:fetch(key, scene.policy, load) end
    local values, err, sources = scene.cache:fetch_many({ key }, scene.policy, function()
      local value, reason = load()
      if reason then return nil, reason end
      return { [key] = value }
    end)
    return values and values[key], err, values and sources[key] or "loader"
  end

  --- Has each key loaded, and in the near cache where the policy lets it be there.
  local function fill()
    for _, key in ipairs(KEYS) do
      scene.model[key] = { value = key .. " 1", at = scene.now }
      assert.equal(key .. " 1", (ask(key, function() return key .. " 1" end)))
    end
    assert(scene.cache:wait_ready(20))
    for _, key in ipairs(KEYS) do
      assert.is_truthy(database.eventually(function()
        local value, err, source = ask(key, error)
        assert.same({ key .. " 1" }, { value, err })
        return source == (scene.policy.near and "near" or "db")
      end))
      if chance(20) then -- it goes before the server does
        assert(scene.cache:delete(key))
        scene.model[key] = nil
      end
    end
  end

  --- One fetch without the server.
  local function check(key)
    local policy, known, loads, is_up = scene.policy, scene.model[key], 0, chance(40)
    scene.version = scene.version + 1
    local fresh = is_up and chance(85) and ("%s %d"):format(key, scene.version) or nil
    local value, err, source = ask(key, function()
      loads = loads + 1
      if not is_up then return nil, "origin: down" end
      return fresh
    end)
    local age = known and scene.now - known.at
    local span = policy.near and policy.stale_ttl and policy.ttl + policy.stale_ttl or nil
    local least = span and span - policy.ttl * policy.jitter
    if source == "stale" then
      assert.is_truthy(known and span, "nothing may be given")
      assert.equal(known.value, value)
      assert.is_nil(err)
      assert.is_true(age <= span + SLACK, "too stale")
      assert.is_true(loads == 0 or not is_up, "the origin has an answer")
      assert.is_true(loads == 0 or (known.spared or -1) <= scene.now + SLACK, "the origin is not spared")
      if loads > 0 then known.spared = scene.now + policy.error_backoff end
      assert.is_true(loads > 0 or age <= math.min(NEAR_TTL, policy.ttl) + SLACK or scene.now <= (known.spared or -1) + SLACK,
        "nobody asked the origin")
      return
    end
    assert.equal("loader", source)
    assert.equal(1, loads)
    assert.same({ fresh, not is_up and "origin: down" or nil }, { value, err })
    local was_allowed = known ~= nil and least ~= nil and age < least - SLACK
    assert.is_false(not is_up and was_allowed, "an error while a stale value was allowed")
    if is_up and fresh == nil then scene.model[key] = nil end
  end

  --- Loses the server, and has time pass; what is asked for meanwhile.
  local function dead()
    db:cut_off()
    assert.is_truthy(database.eventually(function()
      return scene.cache:stats({ server = false }).near.state == "stale"
    end))
    for _ = 1, STEPS do
      if chance(30) then
        local seconds = draw(120)
        layers.age(scene.cache, seconds)
        scene.now = scene.now + seconds
      end
      local key = KEYS[draw(#KEYS)]
      assert.is_nil((scene.cache.near:get("", key)), "get must not have it")
      check(key)
    end
    db:let_in()
  end

  --- The server is there again, and all is as if nothing had been.
  local function back()
    assert.is_truthy(database.eventually(function() return scene.cache:wait_ready(1) end))
    db:sql("TRUNCATE cache")
    assert(scene.cache:wait_ready(20))
    assert.is_truthy(database.eventually(function()
      local value, err, source = ask("back", function() return 1 end)
      assert.same({ 1 }, { value, err })
      return source == "db" or source == "near"
    end))
    assert.equal("closed", scene.cache:stats({ server = false }).policies.breaker)
    for _, key in ipairs(KEYS) do
      local value, err, source = ask(key, function() return nil, "origin: down" end)
      assert.same({ nil, "origin: down", "loader" }, { value, err, source }, "what is remembered is for a dead server only")
    end
  end

  it("give what is remembered for as long as it is allowed, and never what is not", function()
    random.state = SEED
    for number = 1, SCENES do
      db:sql("TRUNCATE cache, fpcache_tags")
      local before = random.state
      scene = { now = 0, model = {}, version = 1, many = chance(40), policy = random_policy() }
      scene.cache = layers.open(db, { near_ttl = NEAR_TTL, breaker_pause = 0.05, timeout = 5, connect_timeout = 5,
        max_staleness = 0.2 })
      local is_task = chance(40)
      if is_task then clock = tasks.new() end
      local function phases()
        fill()
        dead()
        back()
      end
      local ok, problem = pcall(function()
        if is_task then clock:call(phases) else phases() end
      end)
      if not ok then
        error(("seed %d (scene's own %d), scene %d: %s"):format(SEED, before, number, tostring(problem)), 0)
      end
      if clock then clock:close() end
      clock = nil
      scene.cache:close()
    end
  end)
end)

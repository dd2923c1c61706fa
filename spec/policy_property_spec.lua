-- Random policies, origins and passing time against a model of what fetch promises.
local core = require "fpcache.core"
local database = require "support.database"
local draws = require "support.draws"
local fpcache = require "fpcache"

local SEED, SCENES, STEPS = draws.seed(20261123), 25, 40
local KEYS = { "a", "b" }

describe("random policies", function()
  local db
  setup(function() db = database.new() end)
  after_each(function() db:close_all() end)

  local draw, chance = draws.new(SEED)

  local function random_policy()
    local opts = { ttl = draw(50) + 10, lock = ({ "process", "host", "cluster" })[draw(3)], lock_timeout = 0.01 }
    if chance(50) then opts.stale_ttl = draw(100) end
    if chance(40) then opts.negative_ttl = draw(30) end
    if chance(15) then
      opts.sliding = true
    else
      if chance(30) then opts.jitter = draw(9) / 10 end
      if chance(40) then opts.refresh_ahead = draw(9) / 10 end
      if chance(30) then opts.beta = draw(3) end
    end
    if chance(50) and (opts.stale_ttl or opts.refresh_ahead or opts.beta) then opts.error_backoff = draw(20) end
    if chance(30) then opts.tags = { "t" .. draw(3), "any" } end
    if chance(20) then opts.hard_timeout = draw(30) + 10 end
    if chance(20) and (opts.stale_ttl or opts.refresh_ahead or opts.beta) then opts.soft_timeout = draw(9) end
    return fpcache.policy(opts)
  end

  --- A cache of random habits, which must not change what a policy means.
  local function random_cache()
    local opts = { namespace_version = chance(30), prepared = not chance(20) }
    if chance(20) then opts.compress = { above = 1 } end
    if chance(20) then opts.encrypt = { keys = { k = ("0f"):rep(32) } } end
    return db:open(opts), opts
  end

  --- What overtakes a loading of the key, or ends its entry.  Says whether it did so to all keys.
  local function overtake(cache, opts, policy, key)
    local ways = { function() cache:delete(key) end, function() cache:delete_many { key } end,
      function() cache:get_delete(key) end, function() db:sql(("DELETE FROM cache WHERE key = '%s'"):format(key)) end }
    local few = #ways
    if policy.tags then ways[#ways + 1] = function() cache:invalidate_tag "any" end end
    if opts.namespace_version then ways[#ways + 1] = function() assert(cache:clear { at_once = true }) end end
    local way = draw(#ways)
    ways[way]()
    return way > few
  end

  --- What must hold of one answer, given when the value was loaded.  Times have a slack, for the real time of two steps.
  local SLACK = 4
  local function check(model, policy, key, value, err, source, loaded, failed)
    local entry = model.entries[key]
    if source == "loader" then
      assert.is_true(loaded)
      if failed then
        assert.equal("origin: down", err)
        -- stale_ttl counts from the policy of the call, and of the loading: here they are one
        local kept = entry and entry.value ~= nil and model.now - entry.at <= entry.least_ttl + entry.stale_ttl - SLACK
        assert.is_false(kept or false, "a value that could be given was not when loading failed")
      else
        assert.equal(model.origin[key], value)
      end
      return
    end
    assert.is_nil(err)
    assert.is_table(entry, "an answer of " .. source .. " from nowhere")
    local age = model.now - entry.at
    assert.equal(entry.value, value)
    if value == nil then
      assert.equal("db", source)
      assert.is_true(age <= entry.negative_ttl + SLACK, "an absence was remembered for too long")
    elseif source == "db" then
      assert.is_true(entry.sliding or age <= entry.ttl + SLACK, "a fresh answer that has expired")
    else
      assert.equal("stale", source)
      assert.is_truthy(policy.stale_ttl)
      assert.is_true(age <= entry.ttl + entry.stale_ttl + SLACK, "too stale")
    end
  end

  it("never give what is too old, an error while an older value is allowed, or a value that was deleted", function()
    for scene = 1, SCENES do
      db:sql("TRUNCATE cache")
      local policy = random_policy()
      local cache, habits = random_cache()
      local model = { now = 0, entries = {}, origin = {}, version = 0 }
      local looked = core.system.now()
      for step = 1, STEPS do
        local real = core.system.now() -- it passes for what is stored, too
        model.now, looked = model.now + real - looked, real
        local key = KEYS[draw(#KEYS)]
        local what = draw(10)
        if what <= 2 then
          local seconds = draw(40)
          db:age(seconds)
          model.now = model.now + seconds
        elseif what == 3 then
          if overtake(cache, habits, policy, key) then model.entries = {} end
          model.entries[key] = nil
        else
          local failed, is_many, overtaken = chance(30), chance(25), chance(10)
          model.version = model.version + 1
          if chance(80) then model.origin[key] = ("%s %d"):format(key, model.version) else model.origin[key] = nil end
          local loaded, is_wide = false, false
          local function load()
            loaded = true
            if overtaken then is_wide = overtake(cache, habits, policy, key) end
            if failed then return nil, "origin: down" end
            return model.origin[key]
          end
          local value, err, source
          if is_many then
            local values, problem, sources = cache:fetch_many({ key }, policy, function()
              local answer, reason = load()
              if reason then return nil, reason end
              return { [key] = answer }
            end)
            value, err, source = values and values[key], problem, values and sources[key] or "loader"
          else
            value, err, source = cache:fetch(key, policy, load)
          end
          local ok, problem = pcall(check, model, policy, key, value, err, source, loaded, failed)
          if not ok then
            error(("seed %d, scene %d, step %d, %s: %s"):format(SEED, scene, step, key, tostring(problem)), 0)
          end
          if overtaken and loaded then
            if is_wide then model.entries = {} end
            model.entries[key] = nil
          elseif loaded and not failed then
            model.entries[key] = {
              value = model.origin[key], at = model.now, ttl = policy.ttl,
              least_ttl = policy.ttl * (1 - policy.jitter),
              stale_ttl = policy.stale_ttl or 0,
              negative_ttl = policy.negative_ttl or 0, sliding = policy.sliding,
            }
          end
          if overtaken and loaded then
            assert.is_nil((cache:get(key)), ("seed %d, scene %d, step %d: what was deleted came back"):format(SEED, scene, step))
          end
        end
      end
      cache:close()
    end
  end)
end)

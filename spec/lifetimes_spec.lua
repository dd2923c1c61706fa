-- lifetimes_spec.lua -- how long what was loaded lives, and how long the near cache may keep it, by injected chance.
local chance = require "fpcache.policy.chance"
local fpcache = require "fpcache"
local lifetimes = require "fpcache.policy.lifetimes"

describe("the life of what was loaded", function()
  local draw = chance.draw
  after_each(function() chance.draw = draw end)

  local function chance_gives(number)
    function chance.draw() return number end
  end

  it("is the policy's ttl, less a share by chance; or what the loader says, as it says it", function()
    local policy = fpcache.policy { ttl = 100, jitter = 0.2, stale_ttl = 50 }
    chance_gives(0.5)
    assert.same({ 90, 50 }, { lifetimes.of_value(policy, {}) })
    chance_gives(1)
    assert.same({ 80, 50 }, { lifetimes.of_value(policy, {}) })
    assert.same({ 80, 7 }, { lifetimes.of_value(policy, { stale_ttl = 7 }) })
    assert.same({ 30, 50 }, { lifetimes.of_value(policy, { ttl = 30 }) })
    assert.same({ 30, 7 }, { lifetimes.of_value(policy, { ttl = 30, stale_ttl = 7 }) })
    assert.same({}, { lifetimes.of_value(policy, { ttl = math.huge }) })
    assert.same({}, { lifetimes.of_value(fpcache.policy {}, {}) })
  end)

  it("is prolonged by a read where it slides, when a quarter of it is over", function()
    local policy = fpcache.policy { ttl = 100, sliding = true }
    for left, expected in pairs { [-1] = false, [0] = false, [1] = true, [74] = true, [76] = false, [500] = false } do
      assert.equal(expected, lifetimes.slides(policy, left), left)
    end
  end)

  describe("in the near cache", function()
    local function near(fields, left, age, cost) return lifetimes.near(fpcache.policy(fields), left, age, cost) end

    it("is what is left of it", function()
      assert.equal(40, near({ ttl = 100 }, 40, 60))
      assert.equal(-1, near({}, -1, 60))
    end)

    it("is a quarter of a sliding ttl at most, so that reading goes on prolonging it", function()
      assert.equal(25, near({ ttl = 100, sliding = true }, 90, 10))
      assert.equal(20, near({ ttl = 100, sliding = true }, 20, 80))
    end)

    it("ends where refresh_ahead begins", function()
      assert.equal(70, near({ ttl = 100, refresh_ahead = 0.75 }, 95, 5))
      assert.equal(0, near({ ttl = 100, refresh_ahead = 0.75 }, 25, 75))
      assert.equal(0, near({ ttl = 100, refresh_ahead = 0.75 }, 10, 90))
    end)

    it("ends where beta's chance has it loaded anew", function()
      chance_gives(math.exp(-3))
      local seconds = near({ ttl = 100, beta = 2 }, 90, 10, 5) -- 2 × 5 × 3 before its end
      assert.is_true(math.abs(seconds - 60) < 1e-6, tostring(seconds))
      assert.equal(0, near({ ttl = 100, beta = 2 }, 30, 70, 5.001))
      assert.equal(90, near({ ttl = 100, beta = 2 }, 90, 10, nil), "of a cost that nobody knows")
      assert.equal(50, near({ ttl = 100, beta = 2, refresh_ahead = 0.6 }, 90, 10, 5), "whichever comes first")
    end)
  end)
end)

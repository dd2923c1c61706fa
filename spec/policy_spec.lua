-- What a policy may say, durations, and the circuit breaker by a clock of the spec.
local breaker = require "fpcache.policy.breaker"
local chance = require "fpcache.policy.chance"
local duration = require "fpcache.duration"
local fpcache = require "fpcache"

describe("durations", function()
  it("are texts with units", function()
    for text, seconds in pairs { ["250ms"] = 0.25, ["90s"] = 90, ["5m"] = 300, ["1h30m"] = 5400, ["2d"] = 172800,
      ["1w"] = 604800, ["1.5 h"] = 5400, ["1h 1s"] = 3601, [".5s"] = 0.5 } do
      assert.equal(seconds, duration.parse(text))
    end
    for _, text in ipairs { "", "5", "m", "5 parsecs", "-5m", "5m!", "1h,1m" } do
      local seconds, reason = duration.parse(text)
      assert.is_nil(seconds)
      assert.matches("is no duration", reason)
    end
  end)
end)

describe("fpcache.policy", function()
  local function refused(opts)
    local ok, err = pcall(fpcache.policy, opts)
    assert.is_false(ok)
    return (err:gsub("^.-:%d+: ", ""))
  end

  it("has defaults, and reads durations", function()
    local policy = fpcache.policy { ttl = "5m", stale_ttl = "1h" }
    assert.equal(300, policy.ttl)
    assert.equal(3600, policy.stale_ttl)
    assert.equal(5, policy.error_backoff)
    assert.equal("cluster", policy.lock)
    assert.equal(2, fpcache.policy({ ttl = 1, stale_ttl = 2 }).error_backoff)
    assert.is_nil(fpcache.policy({ ttl = math.huge }).ttl)
    assert.same({ "a" }, fpcache.policy({ tags = "a" }).tags)
  end)

  it("refuses single fields that make no sense", function()
    for message, opts in pairs {
      ["policy.tll: unknown option (did you mean ttl?)"] = { tll = 1 },
      ["policy.ttl: must be more than 0 and at most 1e+10 seconds, got 0"] = { ttl = 0 },
      ["policy.ttl: seconds or duration is expected, got boolean"] = { ttl = true },
      ['policy.stale_ttl: "soon" is no duration (such as "250ms", "90s", "5m", "1h30m", "2d", "1w")'] =
        { ttl = 1, stale_ttl = "soon" },
      ["policy.jitter: must be at least 0 and less than 1, got 1"] = { ttl = 1, jitter = 1 },
      ["policy.refresh_ahead: must be between 0 and 1, got 80"] = { ttl = 1, refresh_ahead = 80 },
      ["policy.beta: must be more than 0, got 0"] = { ttl = 1, beta = 0 },
      ['policy.lock: must be "process", "host" or "cluster", got "galaxy"'] = { lock = "galaxy" },
      ["policy.tags: must not be an empty list (leave it out)"] = { tags = {} },
      ["policy.tags: bad tag 1 (string expected, got number)"] = { tags = { 1 } },
      ["policy.tags: a tag has 1 to 255 bytes, tag 2 has 0"] = { tags = { "a", "" } },
    } do
      assert.equal(message, refused(opts))
    end
  end)

  it("refuses what contradicts itself, with the reason", function()
    for message, opts in pairs {
      ["policy: jitter needs a ttl, of which it takes a share"] = { jitter = 0.1 },
      ["policy: stale_ttl needs a ttl: an entry that never expires never gets stale"] = { stale_ttl = 1 },
      ["policy: refresh_ahead needs a ttl, of which it is a share"] = { refresh_ahead = 0.5 },
      ["policy: beta needs a ttl: an entry that never expires is never renewed early"] = { beta = 1 },
      ["policy: sliding needs a ttl, which being read prolongs"] = { sliding = true },
      ["policy: sliding excludes refresh_ahead: an entry that is read does not grow old"] =
        { ttl = 1, sliding = true, refresh_ahead = 0.5 },
      ["policy: sliding excludes beta: an entry that is read does not grow old"] = { ttl = 1, sliding = true, beta = 1 },
      ["policy: sliding excludes jitter: the next read undoes it"] = { ttl = 1, sliding = true, jitter = 0.1 },
      ["policy: error_backoff needs stale_ttl, refresh_ahead or beta: without an older value nobody can be told to wait"] =
        { ttl = 1, error_backoff = 1 },
      ["policy: soft_timeout needs stale_ttl, refresh_ahead or beta: without an older value there is nothing to give meanwhile"] =
        { ttl = 1, soft_timeout = 1 },
      ["policy: soft_timeout must be less than hard_timeout"] = { ttl = 1, stale_ttl = 1, soft_timeout = 2, hard_timeout = 1 },
    } do
      assert.equal(message, refused(opts))
    end
  end)
end)

describe("chance", function()
  it("draws between 0 and 1", function()
    local sum = 0
    for _ = 1, 1000 do
      local number = chance.draw()
      assert.is_true(number > 0 and number < 1)
      sum = sum + number
    end
    assert.is_true(sum > 400 and sum < 600)
  end)
end)

describe("the circuit breaker", function()
  local time, circuit
  before_each(function()
    time = 0
    circuit = breaker.new(3, 1, function() return time end)
  end)

  local function fail(count) for _ = 1, count do circuit:failed("connect: gone") end end

  it("opens after so many failures in a row that concern the server", function()
    fail(2)
    circuit:succeeded()
    fail(2)
    circuit:failed("invalid: not the server's fault")
    assert.is_true(circuit:lets_through())
    assert.equal("closed", circuit:state())
    fail(1)
    assert.equal("open", circuit:state())
    assert.is_false(circuit:lets_through())
  end)

  it("lets one through after its pause, and closes when he succeeds", function()
    fail(3)
    time = 1
    assert.equal("probing", circuit:state())
    assert.is_true(circuit:lets_through())
    assert.is_false(circuit:lets_through())
    circuit:succeeded()
    assert.is_true(circuit:lets_through())
    assert.equal("closed", circuit:state())
  end)

  it("makes longer pauses, up to 8 times the first", function()
    fail(3)
    local pauses = {}
    for i = 1, 6 do
      local from = time
      while not circuit:lets_through() do time = time + 0.5 end
      pauses[i] = time - from
      circuit:failed("timeout: no answer")
    end
    assert.same({ 1, 2, 4, 8, 8, 8 }, pauses)
    assert.equal(1, circuit.opened)
  end)

  it("has a probe ask, for which nobody waits", function()
    local heard, err, stopped = nil, nil, 0
    circuit:probe_by(function()
      return { answer = function() return heard, err end, stop = function() stopped = stopped + 1 end }
    end)
    fail(3)
    time = 1
    assert.equal("probing", circuit:state())
    for _ = 1, 3 do assert.is_false(circuit:lets_through()) end -- the first one begins it
    time = 50
    assert.is_false(circuit:lets_through(), "another while it is on its way")
    heard, err = false, "timeout: no answer"
    assert.is_false(circuit:lets_through())
    assert.equal("open", circuit:state())
    time = 51.9
    assert.is_false(circuit:lets_through())
    assert.equal("open", circuit:state(), "the second pause is twice as long")
    heard, err = nil, nil
    time = 52
    assert.is_false(circuit:lets_through())
    assert.equal("probing", circuit:state())
    heard = true
    assert.is_true(circuit:lets_through())
    assert.equal("probing", circuit:state(), "nobody has been answered yet")
    fail(1) -- what he asked for fails, though the probe did not
    assert.equal("open", circuit:state())
    heard = nil
    time = 55.9
    assert.is_false(circuit:lets_through())
    assert.equal("open", circuit:state())
    time = 56
    assert.is_false(circuit:lets_through())
    heard = true
    assert.is_true(circuit:lets_through())
    circuit:succeeded()
    assert.equal("closed", circuit:state())
    assert.equal(1, circuit.opened)
    fail(2)
    assert.equal("closed", circuit:state())
    fail(1)
    heard, time = nil, 57
    assert.is_false(circuit:lets_through())
    circuit:stop()
    circuit:stop()
    assert.equal(1, stopped)
  end)

  it("makes its pauses no longer for calls that began before it opened", function()
    fail(32)
    assert.is_true(circuit:is_open())
    time = 1
    assert.is_true(circuit:lets_through())
    circuit:succeeded()
    assert.is_false(circuit:is_open())
  end)

  it("never opens with a limit of 0", function()
    circuit = breaker.new(0, 1, function() return time end)
    fail(100)
    assert.is_true(circuit:lets_through())
  end)
end)

-- A task that is cancelled while it loads: those who wait for it are not.
local flights = require "fpcache.policy.flights"

describe("who waits for a loading of his process", function()
  local POLICY = { lock_timeout = 1 }

  local function ended_by(...)
    local all = flights.new()
    local _, own = flights.enter(all, "", "k")
    flights.leave(all, own, ...)
    assert.is_nil(next(all), "nobody else begins to wait")
    return own, { flights.wait(own, POLICY) }
  end

  it("gets its value, or its error", function()
    assert.same({ true, "value" }, (select(2, ended_by("value"))))
    assert.same({ true, nil, "down", "loader" }, (select(2, ended_by(nil, "down", "loader"))))
  end)

  it("gets nothing when it was cancelled", function()
    local flight, got = ended_by(nil, "interrupted: the task was cancelled")
    assert.same({ false }, got)
    assert.is_true(flight.is_interrupted)
  end)
end)

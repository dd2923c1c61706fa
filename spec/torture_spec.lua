-- torture_spec.lua -- the checker knows a broken promise when it sees one; and a short torture finds none.
local checker = require "torture.checker"

local S = 1 -- max_staleness

local function set(who, value, start, stop, more)
  local event = { what = "set", key = "k", value = value, who = who, start = start, stop = stop, outcome = "ok" }
  for name, field in pairs(more or {}) do event[name] = field end
  return event
end

local function get(who, value, start)
  return { what = "get", key = "k", value = value, who = who, start = start, stop = start + 0.01, outcome = "near" }
end

local function delete(who, start, stop, outcome)
  return { what = "delete", key = "k", who = who, start = start, stop = stop, outcome = outcome or "ok" }
end

local function broken(events) return #checker.check(events, S).broken end

describe("torture checker", function()
  it("allows what max_staleness allows, and no more", function()
    local history = { set("a", "1", 0, 1), set("a", "2", 2, 3) }
    local function read(who, value, at) return broken { history[1], history[2], get(who, value, at) } end
    assert.equal(0, read("b", "2", 3.5))
    assert.equal(0, read("b", "1", 3.9))
    assert.equal(1, read("b", "1", 4.1))
    assert.equal(0, read("a", "1", 2.9))
    assert.equal(1, read("a", "1", 3.1)) -- its own write
    assert.equal(1, read("b", nil, 2.1))
    assert.equal(0, read("b", nil, 1.9))
    assert.equal(1, read("a", nil, 1.1))
    assert.equal(1, read("b", "3", 2)) -- nobody wrote it
  end)

  it("tells the largest staleness", function()
    local report = checker.check({ set("a", "1", 0, 1), set("a", "2", 2, 3), get("b", "1", 3.25) }, S)
    assert.near(0.25, report.largest_staleness, 1e-9)
  end)

  it("knows removals", function()
    assert.equal(1, broken { set("a", "1", 0, 1), delete("a", 2, 3), get("b", "1", 4.1) })
    assert.equal(0, broken { set("a", "1", 0, 1), delete("a", 2, 3), get("b", nil, 9) })
    assert.equal(0, broken { set("a", "1", 0, 1), delete("a", 2, 3, "maybe"), get("b", "1", 9), get("b", nil, 9) })
    assert.equal(1, broken { set("a", "1", 0, 1), delete("a", 2, 3, "no"), get("b", nil, 9) })
    assert.equal(0, broken { set("a", "1", 0, 1), { what = "clear", start = 2, stop = 3, outcome = "ok" }, get("b", nil, 9) })
    assert.equal(1, broken { set("a", "1", 0, 1), { what = "clear", start = 2, stop = 3, outcome = "ok" }, get("b", "1", 9) })
  end)

  it("knows ends of life", function()
    local short = set("a", "1", 0, 1, { ttl = 2 })
    assert.equal(0, broken { short, get("b", "1", 3.9) })
    assert.equal(1, broken { short, get("b", "1", 4.1) })
    assert.equal(1, broken { short, get("a", nil, 1.9) })
    assert.equal(0, broken { short, get("a", nil, 2.5) })
    assert.equal(0, broken { short, get("b", nil, 9) })
  end)

  it("knows what must never be seen", function()
    assert.equal(1, broken { set("a", "1", 0, 1, { outcome = "rolled_back" }), get("b", "1", 0.5) })
    assert.equal(1, broken { set("a", "1", 5, 6), get("b", "1", 1) })
    assert.equal(0, broken { set("a", "1", 0, 1, { outcome = "maybe" }), get("b", "1", 9), get("b", nil, 9) })
  end)
end)

describe("torture", function()
  it("breaks no promise within some seconds", function()
    local report = require "torture.run" { seconds = 9.5, workers = 4, max_staleness = S, seed = 7, every = 1 }
    assert.same({}, report.broken)
    assert(report.reads > 1000 and report.layers.near > 100 and report.layers.filter > 10, "the layers answered little")
    assert(report.troubles.truncate >= 1 and report.troubles.deaf >= 1)
  end)
end)

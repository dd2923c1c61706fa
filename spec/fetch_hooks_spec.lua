-- fetch_hooks_spec.lua -- what those who build upon fetch set in a policy: whether an old value may be given, and where to load.
local database = require "support.database"
local fpcache = require "fpcache"

describe("a policy's hooks", function()
  local db, cache, policy

  setup(function() db = database.new() end)

  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
    policy = fpcache.policy { ttl = 10, stale_ttl = 100, lock_timeout = 0.2 }
    assert(cache:fetch("k", policy, function() return "old" end))
    db:age(11)
  end)

  after_each(function() db:close_all() end)

  local function fetch(loader) return cache:fetch("k", policy, loader or function() return "new" end) end

  it("load where background says, after the old value was given", function()
    local later
    function policy.background(run)
      later = run
      return true
    end
    assert.same({ "old", nil, "stale" }, { fetch() })
    assert.equal("old", (fetch(error))) -- the lease is taken, so nobody else loads
    later()
    assert.same({ "new", nil, "db" }, { fetch(error) })
  end)

  it("load in front when background takes it not", function()
    function policy.background() return false end
    assert.same({ "new", nil, "loader" }, { fetch() })
  end)

  it("ask whether the old value may be given, with the key", function()
    local asked
    function policy.gives_old(old, key)
      asked = { old, key }
      return false
    end
    function policy.background() error("nothing is loaded behind when nothing is given") end
    assert.same({ "new", nil, "loader" }, { fetch() })
    assert.same({ "old", "k" }, asked)
  end)

  it("have a caller wait for another's loading where the old value may not be given", function()
    local later
    function policy.background(run)
      later = run
      return true
    end
    fetch()
    function policy.gives_old() return false end
    assert.same({ "mine", nil, "loader" }, { fetch(function() return "mine" end) }) -- after lock_timeout, and not stored
    later()
    assert.equal("new", (fetch(error)))
  end)

  it("give the old value all the same when loading failed", function()
    function policy.gives_old() return false end
    assert.same({ "old", nil, "stale", "down" }, { fetch(function() return nil, "down" end) })
  end)
end)

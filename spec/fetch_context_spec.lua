-- What a loader says by its context, and what becomes of the lease when that cannot be stored.
local database = require "support.database"
local fpcache = require "fpcache"
local origin = require "support.origin"

describe("the loader's context", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function fetch(key, policy, loader)
    local value, err, source, why = cache:fetch(key, policy, loader)
    return value, err, source, why
  end

  --- A loader that sets these fields and returns the value.
  local function setting(fields, value)
    return function(context)
      for name, to in pairs(fields) do context[name] = to end
      return value
    end
  end

  local function is_leased(key)
    return db:sql(("SELECT count(*) FROM cache WHERE key = '%s' AND lease_until > now()"):format(key)) == "1"
  end

  it("takes the policy's tags away by an empty list", function()
    local policy = fpcache.policy { ttl = 60, negative_ttl = 60, tags = "shop" }
    assert.equal(1, (fetch("k", policy, setting({ tags = {} }, 1))))
    assert.same({}, cache:tags("k"))
    fetch("none", policy, setting({ tags = {} }))
    cache:fetch_many({ "m", "n" }, policy, function(_, context)
      context.tags = {}
      return { m = 1 }
    end)
    assert.same({}, cache:tags("m"))
    assert.equal(0, assert(cache:invalidate_tag("shop")))
    for key, value in pairs { k = 1, m = 1 } do assert.same({ value, nil, "db" }, { fetch(key, policy, error) }) end
    assert.same({ nil, nil, "db" }, { fetch("none", policy, error) })
    db:age(61)
    assert.equal(2, (fetch("k", policy, origin(2))))
    assert.same({ "shop" }, cache:tags("k"))
  end)

  it("may ask for what has no end", function()
    local policy = fpcache.policy { ttl = 60, stale_ttl = 60 }
    assert.same({ 1, nil, "loader" }, { fetch("stale", policy, setting({ stale_ttl = math.huge }, 1)) })
    assert.same({ nil, nil, "loader" }, { fetch("none", policy, setting({ negative_ttl = math.huge })) })
    cache:fetch_many({ "m", "n" }, policy, function(_, context)
      context.stale_ttl, context.negative_ttl = math.huge, math.huge
      return { m = 1 }
    end)
    db:age(1e9)
    for _, key in ipairs { "stale", "m" } do
      assert.same({ 1, nil, "stale", "down" }, { fetch(key, policy, origin(nil, "down")) })
    end
    for _, key in ipairs { "none", "n" } do assert.same({ nil, nil, "db" }, { fetch(key, policy, error) }) end
  end)

  it("is refused where it names what there is not", function()
    for message, fields in pairs {
      ["invalid: context.tll: unknown field (did you mean ttl?); a loader may set negative_ttl, stale_ttl, store, tags, ttl, "
        .. "validator (set by the loader)"] = { tll = 5 },
      ["invalid: context.scratch: unknown field; a loader may set negative_ttl, stale_ttl, store, tags, ttl, validator "
        .. "(set by the loader)"] = { scratch = {} },
      ["invalid: context.ttls: unknown field (did you mean ttl?); a loader may set negative_ttl, stale_ttl, store, tags, ttl, "
        .. "validator (set by the loader)"] = { ttls = {} },
      ["invalid: context.store: boolean expected, got string (set by the loader)"] = { store = "no" },
    } do
      assert.same({ nil, message, "loader" }, { fetch("k", 60, setting(fields, 1)) })
      assert.is_false(is_leased("k"))
    end
    local _, err = cache:fetch_many({ "k" }, 60, function(_, context) context.validator = "v" return { k = 1 } end)
    assert.equal("invalid: context.validator: unknown field (did you mean validators?); a loader may set negative_ttl, "
      .. "stale_ttl, store, tags, ttl, ttls, validators (set by the loader)", err)
    assert.equal("down", (select(2, fetch("k", 60, function(context) context.tll = 5 return nil, "down" end))))
    assert.equal(2, (fetch("k", 60, setting({ store = true, ttl = "5m" }, 2))))
    assert.is_true(cache:ttl("k") > 250)
  end)

  it("gives no old values to who has not asked for them", function()
    local message = "invalid: context.stale_ttl: the policy has no stale_ttl, so its callers get no older values; give it one "
      .. "(set by the loader)"
    assert.same({ nil, message, "loader" }, { fetch("k", 60, setting({ stale_ttl = 600 }, 1)) })
    local _, err = cache:fetch_many({ "k" }, 60, function(_, context) context.stale_ttl = "1h" return { k = 1 } end)
    assert.equal(message, err)
    assert.equal(1, (fetch("k", { ttl = 60, stale_ttl = 1 }, setting({ stale_ttl = 600 }, 1))))
    db:age(300)
    assert.same({ 1, nil, "stale", "down" }, { fetch("k", { ttl = 60, stale_ttl = 1 }, origin(nil, "down")) })
  end)

  describe("leaves no lease behind when the value cannot be stored:", function()
    local POLICY = { ttl = 60, lock_timeout = 30 }
    local large = ("x"):rep(5000)

    it("too large for this cache", function()
      cache = db:open { max_value_bytes = 1000 }
      local value, err, source, why = fetch("k", POLICY, origin(large))
      assert.same({ large, nil, "loader" }, { value, err, source })
      assert.matches("^invalid: ", why)
      assert.is_false(is_leased("k"))
    end)

    it("refused by its codec", function()
      cache = db:open { codec = { encode = function() error("broken") end, decode = error } }
      assert.matches("broken", (select(4, fetch("k", POLICY, origin { 1 }))))
      assert.is_false(is_leased("k"))
    end)

    it("refused by the server", function()
      db:sql("ALTER TABLE cache ADD CONSTRAINT small CHECK (octet_length(value) < 1000)")
      finally(function() db:sql("ALTER TABLE cache DROP CONSTRAINT small") end)
      local value, err, source, why = fetch("k", POLICY, origin(large))
      assert.same({ large, nil, "loader" }, { value, err, source })
      assert.is_string(why)
      assert.is_false(is_leased("k"))
      assert.same({ 1, nil, "loader" }, { fetch("k", POLICY, origin(1)) })
      assert.equal(1, (cache:get("k")))
    end)
  end)
end)

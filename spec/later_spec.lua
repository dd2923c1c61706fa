-- set_later and delete_later outside nginx; spec/nginx_phases_spec.lua has them inside.
local database = require "support.database"
local fpcache = require "fpcache"

describe("writes later", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  local function task(fn)
    local spawned = fpcache.spawn(fn)
    assert(fpcache.run())
    return fpcache.await(spawned)
  end

  it("are done at once where there is no background", function()
    assert.is_true(cache:set_later("a", 1, 60))
    assert.equal(1, (cache:get("a")))
    assert.is_true((cache:ttl("a")) > 50)
    assert.is_true(cache:delete_later("a"))
    assert.is_nil((cache:get("a")))
    assert.equal(2, cache:stats().later.done)
  end)

  it("travel together, in order, the last of a key winning", function()
    task(function()
      for i = 1, 1500 do assert(cache:set_later("k" .. i, i)) end
      for i = 1, 3 do assert(cache:set_later("same", i, 60)) end
      assert(cache:delete_later("k1"))
      assert(cache:set_later("k2", { n = 2 }, { ttl = 60 }))
      assert(cache:set_later("k3", "kept out", { if_absent = true }))
    end)
    local stats, pipeline = cache:stats().later, cache:stats().pipeline
    assert.equal(1506, stats.done)
    assert.equal(0, stats.queued)
    assert.equal(0, stats.bytes)
    assert.is_true(pipeline.submitted < 12)
    assert.equal(1500, (cache:count()))
    assert.equal(3, (cache:get("same")))
    assert.is_nil((cache:get("k1")))
    assert.equal(2, cache:get("k2").n)
    assert.equal(3, (cache:get("k3")))
  end)

  it("travel together through many views of a namespace", function()
    task(function()
      for i = 1, 300 do assert(cache:namespace("log"):set_later("k" .. i, i, 60)) end
    end)
    assert.equal(300, (cache:namespace("log"):count()))
    assert.is_true(cache:stats().pipeline.submitted < 5)
  end)

  it("keep a table as it was", function()
    task(function()
      local value = { n = 1, list = { "a" } }
      assert(cache:set_later("t", value))
      value.n, value.list[1] = 2, "b"
    end)
    local found = cache:get("t")
    assert.equal(1, found.n)
    assert.equal("a", found.list[1])
  end)

  it("are refused when too many wait", function()
    local kept, err = 0, nil
    task(function()
      for i = 1, 10001 do
        local ok, problem = cache:set_later("many" .. i % 50, "x")
        if ok then kept = kept + 1 else err = problem end
      end
    end)
    assert.equal(10000, kept)
    assert.matches("^busy: 10000 writes", err)
    assert.equal(1, cache:stats().later.dropped)
    assert.equal(10000, cache:stats().later.done)
    task(function()
      local large = ("x"):rep(16 * 1024 * 1024)
      assert(cache:set_later("l", large))
      err = select(2, cache:set_later("l", large))
    end)
    assert.matches("^busy: 1 writes", err)
  end)

  it("count what fails", function()
    task(function()
      assert(cache:set_later("bad", { f = print }))
      assert(cache:set_later("good", 1))
    end)
    local stats = cache:stats().later
    assert.equal(1, stats.failed) -- they travelled together, and one could not be stored
    assert.matches("^invalid:", stats.last_error)
    assert.equal(1, (cache:get("good")))
    assert.equal(0, stats.queued)
  end)

  it("check what can be checked at once", function()
    assert.has_error(function() cache:set_later(1, 1) end, "bad key (string expected, got number)")
    assert.has_error(function() cache:set_later("a", nil) end)
    assert.has_error(function() cache:set_later("a", 1, { tll = 1 }) end, "options.tll: unknown option (did you mean ttl?)")
    assert.has_error(function() cache:delete_later(1) end, "bad key (string expected, got number)")
    assert.same({ nil, "invalid: a key must not be empty" }, { cache:set_later("", 1) })
    assert.same({ nil, "invalid: a key must not be empty" }, { cache:delete_later("") })
    assert.matches("^invalid: a ttl", select(2, cache:set_later("a", 1, -1)))
    local small = db:open { max_value_bytes = 10 }
    assert.matches("^invalid: a value of 11 bytes", select(2, small:set_later("a", ("x"):rep(11))))
    cache:transaction(function(tx)
      assert.matches("^invalid: inside a transaction", select(2, tx:set_later("a", 1)))
      return true
    end)
  end)
end)

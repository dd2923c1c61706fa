-- namespace_spec.lua -- one user's keys, divided.
local database = require "support.database"
local fpcache = require "fpcache"
local raises = require "support.raises"

describe("namespaces", function()
  local db, cache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  it("hold keys of their own, for every call", function()
    local a, b = cache:namespace("a"), cache:namespace("b")
    assert(cache:set("k", "none"))
    assert(a:set("k", "in a"))
    assert(b:set("k", "in b"))
    assert.equal("none", cache:get("k"))
    assert.equal("in a", a:get("k"))
    assert.same({ k = "in b" }, b:get_many { "k" })
    assert.equal("in a", a:entry("k").value)
    assert.is_true(a:expire("k", 100))
    assert.equal(-1, b:ttl("k"))
    assert.equal(1, a:incr("n"))
    assert.is_false(b:exists("n"))
    assert.equal(1, b:set_many { m = 1 })
    assert.same({ "k", "n" }, a:keys())
    assert.same({ "k", "m" }, b:keys())
    assert.equal(1, cache:count())
    assert.equal("in a", a:get_set("k", "new"))
    assert.equal("in b", b:get_delete("k"))
    assert.is_true(b:add("k", 1))
    assert.is_true(a:delete("k"))
    assert.equal(0, a:delete_many { "k", "m" })
    assert.is_true(b:exists("k"))
    assert(a:transaction(function(tx) return tx:set("tx", 1) end))
    assert.is_true(a:exists("tx"))
    assert.is_false(cache:exists("tx"))
    assert.equal(2, a:clear())
    assert.equal(1, cache:count())
    assert.equal(2, b:count())
  end)

  it("may be named by an option", function()
    assert(db:open { namespace = "n" }:set("k", 1))
    assert.is_false(cache:exists("k"))
    assert.equal(1, cache:namespace("n"):get("k"))
  end)

  it("do not nest: a namespace of a namespace is that one", function()
    assert(cache:namespace("a"):namespace("b"):set("k", 1))
    assert.equal(1, cache:namespace("b"):get("k"))
    assert.is_false(cache:namespace("a"):exists("k"))
    assert(cache:namespace("a"):namespace(""):set("l", 1))
    assert.equal(1, cache:get("l"))
  end)

  it("may have any name in UTF-8 of up to 255 bytes", function()
    local names = { "'", '"', "';drop table cache;--", "\\", "%", "$1", "{schema}", "日本", " ", ("n"):rep(255),
      ("é"):rep(127), "\n", "a\tb" }
    for i, name in ipairs(names) do assert(cache:namespace(name):set("k", i)) end
    for i, name in ipairs(names) do assert.equal(i, cache:namespace(name):get("k")) end
    assert.equal(#names, cache:count { all = true })
  end)

  it("share connections, counts and the end", function()
    local space = cache:namespace("n")
    assert(space:set("k", 1))
    assert.equal(1, cache:stats().sets)
    assert.equal(1, cache:stats().pool.opened)
    space:close()
    assert.equal("closed: the cache was closed", select(2, cache:get("k")))
  end)

  it("refuse names that cannot be, at the caller's line", function()
    raises("bad namespace (string expected, got nil)", function() cache:namespace() end)
    raises("bad namespace (string expected, got number)", function() cache:namespace(5) end)
    raises("bad namespace: a namespace has at most 255 bytes, got 256", function() cache:namespace(("n"):rep(256)) end)
    raises("bad namespace: a namespace must not hold a NUL byte", function() cache:namespace("a\0b") end)
    raises("bad namespace: a namespace must be UTF-8", function() cache:namespace("\255") end)
    raises("bad namespace: a namespace must be UTF-8", function() cache:namespace("\237\160\128") end)
    raises("options.namespace: a namespace has at most 255 bytes, got 300",
      function() fpcache.new { connection_string = db:url_of(), namespace = ("n"):rep(300) } end)
    raises("options.namespace: a namespace must be UTF-8",
      function() fpcache.new { connection_string = db:url_of(), namespace = "\192\128" } end)
  end)
end)

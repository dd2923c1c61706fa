-- interop_spec.lua -- the Python library's functions, on the rows that Lua uses.
local database = require "support.database"
local exact = require "support.exact"
local fpcache = require "fpcache"

describe("the functions of the Python library", function()
  local db, cache, plain

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    cache = db:open { feed = false } -- what Python writes is seen at once
    plain = db:open { parse_json = false, feed = false }
  end)
  after_each(function() db:close_all() end)

  -- One value of a query as the role "app": a value, or nil (SQL NULL), or nil and an error.
  local function python(sql, ...)
    local args, count = { ... }, select("#", ...)
    local failure
    local value = cache:transaction(function(tx)
      local rows, err = tx:query("SELECT " .. sql .. " AS v", (table.unpack or unpack)(args, 1, count))
      failure = err
      return rows and rows[1].v
    end)
    return value, failure
  end

  it("have the signatures that the library calls", function()
    assert.equal([[
cache_cleanup||integer
cache_delete|p_user_id text, p_key text|boolean
cache_exists|p_user_id text, p_key text|boolean
cache_get|p_user_id text, p_key text|text
cache_set|p_user_id text, p_key text, p_value text, p_ttl_seconds integer DEFAULT NULL::integer|boolean
cache_ttl|p_user_id text, p_key text|integer]], db:sql([[
      SELECT proname, pg_get_function_arguments(oid), pg_get_function_result(oid) FROM pg_proc
      WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'cache\_%' ORDER BY proname]]))
  end)

  it("write what Lua reads, JSON as values", function()
    for text, value in pairs { ['{"name": "Alice", "age": 30}'] = { name = "Alice", age = 30 },
      ["[1, 2, 3]"] = { 1, 2, 3 }, ["123"] = 123, ["1.5"] = 1.5, ["true"] = true, ["false"] = false,
      ["null"] = fpcache.null, ['"quoted"'] = "quoted", plain = "plain", [""] = "", ["{broken"] = "{broken",
      ["日本"] = "日本", ["9007199254740993"] = exact.int "9007199254740993" } do
      assert.is_true(python("cache_set('app', 'k', $1)", text))
      local got = cache:get("k")
      assert.is_true(exact.same(value, got), text)
      assert.equal(text, plain:get("k"))
      assert.equal(text, cache:get("k", { parse_json = false }))
      assert.is_true(exact.same(value, cache:get_many({ "k" }).k))
      assert.equal("t", cache:entry("k").format)
      assert.equal(-1, cache:ttl("k"))
    end
  end)

  it("read what Lua wrote, tables as JSON", function()
    for text, value in pairs { text = "text", ["123"] = 123, ["1.5"] = 1.5, ["true"] = true, null = fpcache.null,
      ['{"a":[1,{}]}'] = { a = { 1, {} } }, ["[]"] = fpcache.empty_array,
      ["9223372036854775807"] = exact.int "9223372036854775807" } do
      assert(cache:set("k", value))
      assert.equal(text, python("cache_get('app', 'k')"))
    end
  end)

  it("fail clearly on bytes that are no text", function()
    for _, value in ipairs { "\255", "a\0b" } do
      assert(cache:set("k", value))
      local text, err = python("cache_get('app', 'k')")
      assert.is_nil(text)
      assert.matches("^server: invalid byte sequence for encoding \"UTF8\"", err)
    end
    assert.is_true(python("cache_exists('app', 'k')"))
    assert.is_true(python("cache_delete('app', 'k')"))
  end)

  it("tell ttl as Python expects: whole seconds, -1, -2", function()
    assert.equal(-2, python("cache_ttl('app', 'k')"))
    assert.is_true(python("cache_set('app', 'k', 'v', 100)"))
    assert.equal(100, python("cache_ttl('app', 'k')"))
    local ttl = cache:ttl("k")
    assert.is_true(ttl > 90 and ttl <= 100)
    assert.is_true(python("cache_set(p_user_id => 'app', p_key => 'k', p_value => 'v')"))
    assert.equal(-1, python("cache_ttl('app', 'k')"))
    assert.equal(-1, cache:ttl("k"))
    assert(cache:expire("k", 0.5))
    assert.equal(1, python("cache_ttl('app', 'k')"), "never 0 for a living key")
    assert(cache:set("k", 1, 5000))
    assert.equal(5000, python("cache_ttl('app', 'k')"))
  end)

  it("tell exists and delete", function()
    assert.is_false(python("cache_exists('app', 'k')"))
    assert.is_false(python("cache_delete('app', 'k')"))
    assert(cache:set("k", 1))
    assert.is_true(python("cache_exists('app', 'k')"))
    assert.is_true(python("cache_delete('app', 'k')"))
    assert.is_false(cache:exists("k"))
    assert.is_nil((python("cache_get('app', 'k')")))
  end)

  it("do not see what expired, and overwrite it", function()
    assert(cache:set("k", 1, { expires_at = 1 }))
    assert.is_nil((python("cache_get('app', 'k')")))
    assert.is_false(python("cache_exists('app', 'k')"))
    assert.is_false(python("cache_delete('app', 'k')"))
    assert.equal(-2, python("cache_ttl('app', 'k')"))
    assert.is_true(python("cache_set('app', 'k', 'new')"))
    assert.equal("new", cache:get("k"))
  end)

  it("clean up and say how many", function()
    assert(cache:set_many { a = 1, b = 2 })
    db:sql("UPDATE cache SET expires_at = now() - interval '1 s'")
    assert(cache:set("c", 3))
    assert.equal(2, python("cache_cleanup()"))
    assert.equal(0, python("cache_cleanup()"))
    assert.equal("1", db:sql("SELECT count(*) FROM cache"))
  end)

  it("share long keys with Lua", function()
    for _, length in ipairs { 1023, 1024, 1025, 3000, 100000 } do
      local key = ("k"):rep(length - 3) .. "日"
      assert.is_true(python("cache_set('app', $1, 'python')", key))
      assert.equal("python", cache:get(key))
      assert.same({ [key] = "python" }, cache:get_many { key })
      assert.same({ key }, cache:keys())
      assert(cache:set(key, "lua"))
      assert.equal("lua", python("cache_get('app', $1)", key))
      assert.equal("1", db:sql("SELECT count(*) FROM cache"))
      assert.is_true(python("cache_exists('app', $1)", key))
      assert.equal(-1, python("cache_ttl('app', $1)", key))
      assert.is_true(python("cache_delete('app', $1)", key))
      assert.equal(0, cache:count())
    end
  end)

  it("grow the version, so that cas notices them", function()
    local _, _, version = cache:set("k", 1)
    assert.is_true(python("cache_set('app', 'k', '2')"))
    assert.is_false((cache:cas("k", version, 3)))
    assert.equal(2, cache:get("k"))
    local newer = cache:entry("k").version
    assert.is_true(newer > version)
    assert.is_truthy(cache:cas("k", newer, "typed"))
    assert.equal("s", cache:entry("k").format, "a row is typed once Lua wrote it")
  end)

  it("live in the namespace without a name", function()
    assert(cache:namespace("n"):set("k", "in n"))
    assert.is_false(python("cache_exists('app', 'k')"))
    assert.is_true(python("cache_set('app', 'k', 'out')"))
    assert.equal("in n", cache:namespace("n"):get("k"))
  end)

  it("are all or nothing in a transaction", function()
    cache:transaction(function(tx)
      assert(tx:query("SELECT cache_set('app', 'k', 'v')"))
      assert.equal("v", tx:get("k"))
      return nil, "no"
    end)
    assert.equal(0, cache:count())
  end)

  it("show in valid_cache what lives, for people", function()
    assert(cache:set("k", { a = 1 }, 100))
    assert(cache:set("old", 1, { expires_at = 1 }))
    assert(cache:set("\255", "\0"))
    local rows = cache:transaction(function(tx)
      return tx:query("SELECT user_id, namespace, key, format, value, bytes, ttl_seconds > 90 AS lives FROM valid_cache "
        .. "ORDER BY key COLLATE \"C\"")
    end)
    assert.same({
      { user_id = "app", namespace = "", key = "\\377", format = "s", value = "\\000", bytes = 1, lives = false },
      { user_id = "app", namespace = "", key = "k", format = "j", value = '{"a":1}', bytes = 7, lives = true },
    }, rows)
  end)
end)

-- options_spec.lua -- what fpcache.new takes and refuses.
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local raises = require "support.raises"

describe("fpcache.new", function()
  local db, srv

  setup(function()
    db = database.new()
    srv = db.srv
  end)
  before_each(function() db:sql("TRUNCATE cache") end)
  after_each(function() db:close_all() end)

  local function refused(pattern, opts)
    local cache, err = fpcache.new(opts)
    assert.is_nil(cache)
    assert.matches(pattern, err)
    database.assert_nothing_open()
    return err
  end

  describe("finds its server by", function()
    it("a URL", function()
      local cache = assert(fpcache.new { connection_string = db:url_of() })
      assert.is_true(cache:ping())
      cache:close()
    end)

    it("a text of settings", function()
      local cache = assert(fpcache.new {
        connection_string = ("host=%s port=%d dbname=%s user=app"):format(srv.host, srv.port, db.name) })
      assert.is_true(cache:ping())
      cache:close()
    end)

    it("the names that Python uses", function()
      db:url_of("named", "se'cret word\\")
      local cache = assert(fpcache.new { host = srv.host, port = srv.port, database = db.name, user = "named",
        password = "se'cret word\\", schema = "public", minconn = 1, maxconn = 10, use_cuckoo_filter = true,
        cuckoo_capacity = 1000000 })
      assert(cache:set("k", 1))
      assert.equal("named", db:sql("SELECT user_id FROM cache WHERE user_id = 'named'"))
      cache:close()
    end)

    it("a URL whose gaps the names fill, and whose words win", function()
      local cache = assert(fpcache.new { connection_string = ("postgresql:///%s?host=%s&port=%d"):format(db.name,
        srv.host, srv.port), user = "app", database = "elsewhere" })
      assert.is_true(cache:ping())
      cache:close()
    end)

    it("further words of libpq", function()
      local cache = assert(fpcache.new { connection_string = db:url_of(),
        libpq = { application_name = "my script", connect_timeout = 3 } })
      assert.equal("my script", cache:transaction(function(tx)
        return tx:query("SELECT current_setting('application_name') AS name")[1].name
      end))
      cache:close()
      refused("^invalid: .*no_such_word", { connection_string = db:url_of(), libpq = { no_such_word = "1" } })
      raises("options.libpq: a table of libpq keywords and strings is expected",
        function() fpcache.new { connection_string = db:url_of(), libpq = { "x" } } end)
      raises("options.libpq: a table of libpq keywords and strings is expected",
        function() fpcache.new { connection_string = db:url_of(), libpq = { sslmode = true } } end)
    end)

    it("FPCACHE_URL when nothing names one", function()
      local old = core.system.getenv("FPCACHE_URL")
      finally(function() core.system.setenv("FPCACHE_URL", old) end)
      core.system.setenv("FPCACHE_URL", db:url_of())
      for _, opts in ipairs { {}, { schema = "public" }, false } do
        local cache = assert(fpcache.new(opts or nil))
        assert.is_true(cache:ping())
        cache:close()
      end
      core.system.setenv("FPCACHE_URL", "") -- counts as unset: the defaults are Python's
      refused("^connect: .*localhost", { connect_timeout = 0.5, schema = "public" })
    end)
  end)

  it("calls itself fpcache in pg_stat_activity", function()
    db:open { connection_string = db:url_of("named"), feed = false }
    assert.equal("fpcache", db:sql("SELECT application_name FROM pg_stat_activity WHERE usename = 'named'"))
  end)

  it("opens minconn connections at once, and no more than maxconn", function()
    local cache = db:open { as = "many", minconn = 3, maxconn = 4, timeout = 0.5, feed = false }
    assert.equal(3, db:connections("many"))
    local depth, deepest = 0, nil
    local function nest()
      depth = depth + 1
      local ok, err = cache:transaction(function(tx)
        assert(tx:ping())
        nest()
        return true
      end)
      if not ok then deepest = deepest or { depth, err } end
    end
    nest()
    assert.same({ 5, "busy: all 4 connections stayed in use (see maxconn)" }, deepest)
    assert.equal(4, cache:stats().pool.idle)
    assert.equal(1, db:open { minconn = 0 }:stats().pool.opened, "one is opened to show mistakes at once")
  end)

  it("refuses a minconn beyond maxconn", function()
    refused("^invalid: minconn %(5%) exceeds maxconn %(4%)$", { connection_string = db:url_of(), minconn = 5,
      maxconn = 4 })
  end)

  it("works without prepared statements, as behind a transaction pooler", function()
    local cache = db:open { prepared = false }
    for i = 1, 3 do
      assert(cache:set("k" .. i, { i }, 10))
      assert.same({ i }, cache:get("k" .. i))
      assert(cache:set_many { a = 1, b = 2 })
    end
    assert.equal("0|0", cache:transaction(function(tx)
      local row = tx:query("SELECT (SELECT count(*) FROM pg_prepared_statements) AS n, " ..
        "current_setting('statement_timeout') AS t")[1]
      return row.n .. "|" .. row.t
    end))
    cache = db:open()
    assert(cache:get("k1"))
    assert.same({ n = 1, l = "5s", s = "1min" }, cache:transaction(function(tx)
      return tx:query("SELECT count(*) AS n, current_setting('lock_timeout') AS l, " ..
        "current_setting('statement_timeout') AS s FROM pg_prepared_statements WHERE statement LIKE 'SELECT value%'")[1]
    end))
  end)

  it("survives DISCARD ALL and a changed table", function()
    local cache = db:open()
    assert(cache:set("k", 1))
    assert.equal(1, cache:get("k"))
    cache:transaction(function(tx) assert(tx:query("DEALLOCATE ALL")) end)
    assert.equal(1, cache:get("k"))
    db:sql("ALTER TABLE cache ADD COLUMN extra text; ALTER TABLE cache DROP COLUMN extra")
    assert.equal(1, cache:get("k"))
    assert(cache:set("k", 2))
    assert.equal(2, cache:get("k"))
  end)

  it("bounds keys and values", function()
    local cache = db:open { max_key_bytes = 10, max_value_bytes = 20 }
    assert(cache:set(("k"):rep(10), ("v"):rep(20)))
    assert.equal("invalid: a key of 11 bytes exceeds max_key_bytes (10)", select(2, cache:get(("k"):rep(11))))
    assert.equal("invalid: a value of 21 bytes exceeds max_value_bytes (20)", select(2, cache:set("k", ("v"):rep(21))))
    assert.equal("invalid: a value of 22 bytes exceeds max_value_bytes (20) (item 1)",
      select(2, cache:set_many { k = ("v"):rep(22) }))
    assert.equal("invalid: a key of 11 bytes exceeds max_key_bytes (10) (key 2)",
      select(2, cache:get_many { "k", ("k"):rep(11) }))
  end)

  it("parse_json=false gives JSON as its text", function()
    local cache = db:open { parse_json = false }
    assert(cache:set("k", { a = 1 }))
    assert(cache:set("n", 5))
    assert.equal('{"a":1}', cache:get("k"))
    assert.equal(5, cache:get("n"))
    assert.same({ a = 1 }, cache:get("k", { parse_json = true }))
    assert.equal('{"a":1}', cache:entry("k").value)
    assert.equal('{"a":1}', cache:get_many({ "k" }).k)
    assert.equal('{"a":1}', select(2, cache:scan { prefix = "k" }:next()))
    assert.equal('{"a":1}', cache:get_set("k", 1))
  end)

  it("takes a codec of the caller's for tables", function()
    local codec = { encode = function(value) return "<" .. value[1] .. ">" end,
      decode = function(text) return { text:sub(2, -2) } end }
    local cache = db:open { codec = codec }
    assert(cache:set("k", { "x" }))
    assert(cache:set_many { l = { "y" }, m = "text" })
    assert.same({ "x" }, cache:get("k"))
    assert.same({ l = { "y" }, m = "text" }, cache:get_many { "l", "m" })
    assert.equal("x", cache:entry("k").format)
    assert.equal("<x>", db:sql("SELECT convert_from(value, 'UTF8') FROM cache WHERE key = 'k'"))
    local value, err = db:open():get("k")
    assert.is_nil(value)
    assert.matches("^invalid: .*codec", err)
    raises("codec: the function decode is missing (it is nil)",
      function() fpcache.new { connection_string = db:url_of(), codec = { encode = print } } end)
    raises('codec: format must be "json" or nil', function()
      fpcache.new { connection_string = db:url_of(), codec = { encode = print, decode = print, format = "xml" } }
    end)
  end)

  it("names an unknown option, and the one that was meant", function()
    raises("options.pasword: unknown option (did you mean password?)", function() fpcache.new { pasword = "x" } end)
    raises("options.Host: unknown option (did you mean host?)", function() fpcache.new { Host = "x" } end)
    raises("options.frobnicate: unknown option", function() fpcache.new { frobnicate = 1 } end)
    raises("options.1: unknown option", function() fpcache.new { "postgresql:///x" } end)
    raises("options: a table is expected, got string", function() fpcache.new("postgresql:///x") end)
  end)

  it("names an option of a wrong type or out of range", function()
    local function wrong(text, name, value)
      local opts = { connection_string = db:url_of(), [name] = value }
      raises("options." .. name .. ": " .. text, function() fpcache.new(opts) end)
    end
    for _, name in ipairs { "connection_string", "host", "database", "user", "schema", "namespace", "password_file",
      "instance_name", "endpoint", "profile" } do
      wrong("string is expected, got number", name, 5)
    end
    wrong("string or function is expected, got number", "password", 5)
    wrong("string or table is expected, got number", "auth", 5)
    wrong("table is expected, got string", "password_command", "sh -c x")
    wrong("table is expected, got string", "token_provider", "x")
    for _, name in ipairs { "port", "minconn", "maxconn", "cuckoo_capacity", "max_key_bytes", "max_value_bytes" } do
      wrong("integer is expected, got string", name, "5")
      wrong("integer is expected, got number", name, 1.5)
      wrong("integer is expected, got number", name, 0 / 0)
      wrong("integer is expected, got number", name, math.huge)
    end
    for _, name in ipairs { "connect_timeout", "timeout", "bulk_timeout" } do
      wrong('"5" is no duration (such as "250ms", "90s", "5m", "1h30m", "2d", "1w")', name, "5")
      wrong("seconds or duration is expected, got table", name, {})
      wrong("must be more than 0, got 0", name, 0)
      wrong("must be more than 0, got -1", name, -1)
      wrong("must be at most 2000000 seconds, got 1e+300", name, 1e300)
    end
    for _, name in ipairs { "idle_timeout", "max_lifetime" } do
      wrong("seconds or duration is expected, got boolean", name, true)
      wrong("must not be negative, got -1", name, -1)
    end
    for _, name in ipairs { "parse_json", "use_cuckoo_filter", "prepared" } do
      wrong("boolean is expected, got number", name, 1)
    end
    wrong("must be at least 1, got 0", "maxconn", 0)
    wrong("must be at most 100000, got 100001", "maxconn", 100001)
    wrong("must not be negative, got -1", "minconn", -1)
    wrong("must be at least 1, got 0", "port", 0)
    wrong("must be at most 65535, got 65536", "port", 65536)
    wrong("must be at least 1 bytes, got 0", "max_value_bytes", 0)
    wrong("must be at most 1000000000 bytes, got 1000000001", "max_value_bytes", 1000000001)
    wrong("table userdata is expected, got string", "codec", "json")
    wrong("table is expected, got string", "libpq", "sslmode=require")
  end)

  it("refuses what libpq cannot read", function()
    refused("^invalid: ", { connection_string = "nonsense" })
    refused("^invalid: .*NUL", { connection_string = db:url_of() .. "\0&host=elsewhere" })
    refused("^invalid: .*NUL", { host = srv.host .. "\0x", port = srv.port })
  end)

  it("leaves the caller's table as it was", function()
    local opts = { connection_string = db:url_of(), minconn = 1 }
    local cache = assert(fpcache.new(opts))
    cache:close()
    assert.same({ connection_string = db:url_of(), minconn = 1 }, opts)
  end)

  it("refuses schema names that PostgreSQL could not hold", function()
    refused("^invalid: an SQL name must not be empty$", { connection_string = db:url_of(), schema = "" })
    refused("^invalid: an SQL name has at most 63 bytes", { connection_string = db:url_of(), schema = ("s"):rep(64) })
    refused("^invalid: an SQL name must not hold a NUL byte", { connection_string = db:url_of(), schema = "a\0b" })
    refused("^invalid: an SQL name must be UTF%-8$", { connection_string = db:url_of(), schema = "\255" })
  end)

  it("tells its version and its marks", function()
    assert.equal(core.version, fpcache._VERSION)
    assert.equal("userdata", type(fpcache.null))
    assert.equal("table", type(fpcache.array_mt))
  end)
end)

-- sealing_spec.lua -- values compressed and encrypted: exact, in their place only, bounded, clear when they cannot be read.
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"
local layers = require "support.layers"
local raises = require "support.raises"

local A, B = ("a"):rep(32), ("0123456789abcdef"):rep(4)
local LONG = ("a long text that says the same again and again. "):rep(200)

describe("sealing", function()
  local db, plain

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    plain = db:open()
  end)
  after_each(function() db:close_all() end)

  local function stored(key)
    return db:sql(("SELECT format, octet_length(value) FROM cache WHERE key = '%s'"):format(key)):match("^(.)|(%d+)$")
  end

  -- Every way to write and to read, of values of every kind.
  local function everything_comes_back(cache)
    local values = { text = LONG, short = "x", empty = "", binary = ("\0\255"):rep(2000), int = 9007199254740991, float = 0.1,
      yes = true, no = false, null = fpcache.null, list = { 1, 2, { 3 } }, map = { a = LONG, b = { c = "d" } } }
    local list = {}
    for name, value in pairs(values) do
      assert(cache:set(name, value))
      assert.same(value, cache:get(name), name)
      assert.same(value, cache:entry(name).value)
      assert.same(value, cache:get_set(name, value))
      list[#list + 1] = name
    end
    assert.same(values, cache:get_many(list))
    local seen = {}
    for key, value in cache:scan {} do seen[key] = value end
    assert.same(values, seen)
    assert.equal(#list, cache:set_many(values, { batch = 3 }))
    assert.same(values, cache:get_many(list))
    for _, name in ipairs(list) do assert.same(values[name], cache:get_delete(name)) end
    for _, length in ipairs { 1024, 1025, 1056, 1057, 3000 } do
      local key = ("k"):rep(length)
      assert(cache:set(key, LONG))
      assert.equal(LONG, cache:get(key))
      assert.equal(LONG, cache:get_many({ key })[key])
      assert.equal(1, cache:set_many { [key] = LONG .. "!" })
      assert.equal(LONG .. "!", cache:get(key))
      for _, value in cache:scan {} do assert.equal(LONG .. "!", value) end
      assert.is_true(cache:delete(key))
    end
  end

  describe("by compression", function()
    it("gives everything back, by every call", function()
      everything_comes_back(db:open { compress = { above = 0 } })
      everything_comes_back(db:open { compress = true })
    end)

    it("takes what is large and gets smaller, and leaves the rest", function()
      local cache = db:open { compress = true }
      assert(cache:set("long", LONG))
      assert(cache:set("short", ("x"):rep(1023)))
      local noise = {}
      for i = 1, 3000 do noise[i] = string.char(math.random(0, 255)) end
      assert(cache:set("noise", table.concat(noise)))
      local format, bytes = stored("long")
      assert.equal("z", format)
      assert.is_true(tonumber(bytes) < #LONG / 10)
      assert.equal("s", stored("short"))
      assert.equal("s", stored("noise"))
      local words = {}
      for i = 1, 4000 do words[i] = ("w%d"):format(i * i % 977) end
      for _, level in ipairs { 1, 19 } do
        assert(db:open { compress = { level = level } }:set("level " .. level, table.concat(words, " ")))
      end
      assert.is_true(tonumber((select(2, stored("level 19")))) < tonumber((select(2, stored("level 1")))))
      assert(db:open { compress = { above = 10, level = 19 } }:set("short", ("x"):rep(1000)))
      assert.equal("z", stored("short"))
    end)

    it("is read by a cache that was not told of it, and written plain by it", function()
      assert(db:open { compress = true }:set("k", { LONG }))
      assert.same({ LONG }, plain:get("k"))
      assert(plain:set("k", LONG))
      assert.equal("s", stored("k"))
      assert.equal(LONG, db:open { compress = true }:get("k"))
    end)

    it("works with a codec of one's own and with parse_json = false", function()
      local codec = { encode = function(t) return ("<%s>"):format(t[1]):rep(500) end,
        decode = function(text) return { text:match("^<(.-)>") } end }
      local cache = db:open { compress = true, codec = codec }
      assert(cache:set("k", { "v" }))
      assert.equal("z", stored("k"))
      assert.same({ "v" }, cache:get("k"))
      assert.matches("^invalid: .*made by a custom codec", select(2, plain:get("k")))
      assert(db:open { compress = true }:set("j", { LONG }))
      assert.matches('^%["a long text', plain:get("j", { parse_json = false }))
    end)

    it("is bounded: a bomb is refused before there is room for it", function()
      local big = db:open { compress = true, max_value_bytes = 200 * 1024 * 1024 }
      assert(big:set("k", ("\0"):rep(70 * 1024 * 1024)))
      local _, bytes = stored("k")
      assert.is_true(tonumber(bytes) < 100000)
      collectgarbage()
      local before = collectgarbage("count")
      local value, err = plain:get("k")
      assert.is_nil(value)
      assert.equal(("invalid: stored value of %s bytes has 73400320 when decompressed, which exceeds max_value_bytes "
        .. "(67108864)"):format(bytes), err)
      assert.is_true(collectgarbage("count") - before < 1024, "kB")
      assert.matches("exceeds max_value_bytes %(1000%)", select(2, db:open { max_value_bytes = 1000, compress = true }:get("k")))
      assert.equal(70 * 1024 * 1024, #big:get("k"))
      assert.matches("^invalid: a value of 9%d+ bytes exceeds max_value_bytes %(5000%)",
        select(2, db:open { max_value_bytes = 5000, compress = true }:set("k", LONG)), nil, "before it is compressed")
    end)

    it("of garbage is an error", function()
      for _, hex in ipairs { "", "73", "7300", "7328b52ffd", "7328b52ffd2003010000", "7aff" } do
        db:sql(("TRUNCATE cache; INSERT INTO cache (user_id, key, value, format) VALUES ('app', 'k', '\\x%s', 'z')"):format(hex))
        local value, err = plain:get("k")
        assert.is_nil(value)
        assert.matches("^invalid: stored value", err)
      end
    end)
  end)

  describe("by encryption", function()
    local function open(opts) return db:open { encrypt = opts or { keys = { k1 = A } } } end

    it("gives everything back, by every call, also compressed", function()
      everything_comes_back(open())
      everything_comes_back(db:open { encrypt = { keys = { k1 = B } }, compress = { above = 0 } })
    end)

    it("hides the value, and makes another row of the same value each time", function()
      local cache = db:open { encrypt = { keys = { k1 = A } }, compress = true }
      assert(cache:set("k", "secret words"))
      local first = db:sql("SELECT format, value FROM cache")
      assert.matches("^e|", first)
      assert(cache:set("k", "secret words"))
      assert.not_equal(first, db:sql("SELECT format, value FROM cache"))
      assert.equal("0", db:sql("SELECT count(*) FROM cache WHERE position('secret'::bytea IN value) > 0"))
      assert(cache:set("k", LONG))
      local _, bytes = stored("k")
      assert.is_true(tonumber(bytes) < #LONG / 10, "compressed first")
    end)

    it("is an error without the key, which is named", function()
      assert(open():set("k", "v"))
      local words = '^invalid: .*stored value of %d+ bytes is encrypted with the key "k1", which this cache was not given'
      for _, cache in ipairs { plain, open { keys = { k2 = A } }, db:open { compress = true } } do
        assert.matches(words, select(2, cache:get("k")))
        assert.matches(words, select(2, cache:get_many { "k" }))
        assert.matches(words, select(2, cache:entry("k")))
        assert.matches(words, select(2, cache:scan({}):next()))
      end
      assert.matches("^invalid: stored value of %d+ bytes does not open: it was changed",
        select(2, open { keys = { k1 = B } }:get("k")))
    end)

    it("changes keys: the old ones read, the new one writes", function()
      assert(open():set("old", "v"))
      local cache = open { keys = { k1 = A, k2 = B }, use = "k2" }
      assert.equal("v", cache:get("old"))
      assert(cache:set("new", "w"))
      assert.equal("w", open { keys = { k2 = B } }:get("new"))
      assert.matches('the key "k2"', select(2, open():get("new")))
    end)

    it("opens in its place only: not under another key, namespace or user, nor changed", function()
      local cache = open()
      assert(cache:set("a", "v"))
      local function copied(sql, more)
        db:sql("DELETE FROM cache WHERE key <> 'a' OR namespace <> '' OR user_id <> 'app';"
          .. "INSERT INTO cache (user_id, namespace, key, value, format) SELECT " .. sql .. " FROM cache WHERE key = 'a';"
          .. (more or ""))
      end
      local function refused(value, err)
        assert.is_nil(value)
        assert.matches("^invalid: stored value of %d+ bytes does not open", err)
      end
      copied("'app', '', 'b', value, format")
      refused(cache:get("b"))
      copied("'app', 'n', 'a', value, format")
      refused(cache:namespace("n"):get("a"))
      copied("'bob', '', 'a', value, format")
      refused(db:open { as = "bob", encrypt = { keys = { k1 = A } } }:get("a"))
      local length = tonumber(db:sql("SELECT octet_length(value) FROM cache WHERE user_id = 'app' AND key = 'a' LIMIT 1"))
      for at = 0, length - 1 do
        copied(("'app', '', 'b', set_byte(value, %d, get_byte(value, %d) # 1), format"):format(at, at),
          "UPDATE cache SET value = (SELECT value FROM cache WHERE key = 'b') WHERE key = 'a' AND user_id = 'app'")
        local value, err = cache:get("a")
        assert.is_nil(value)
        assert.matches("^invalid: stored value", err)
        assert(cache:set("a", "v"))
      end
      assert.equal("v", cache:get("a"))
    end)

    it("takes plain rows, counters among them, unless told not to", function()
      assert(plain:set("k", "plain"))
      assert.equal("plain", open():get("k"))
      local strict = open { keys = { k1 = A }, only = true }
      assert.matches("^invalid: stored value of 5 bytes is not encrypted, and this cache takes no other",
        select(2, strict:get("k")))
      assert.equal(1, strict:incr("n"))
      assert.equal(1, strict:get("n"))
      assert(strict:set("n", 5))
      assert.equal("invalid: the stored value is no integer", select(2, strict:incr("n")))
    end)

    it("leaves decoded values in the near cache, counted at their size", function()
      local cache = layers.open(db, { encrypt = { keys = { k1 = A } }, compress = true })
      assert(cache:set("k", LONG))
      assert(cache:wait_ready(20))
      layers.warm(cache, "k")
      assert.equal(LONG, cache:get("k"))
      assert.is_true(cache:stats().near.bytes > #LONG)
      for name, ask in pairs {
        fetch = function(one) return (one:fetch("k", 60, error)) end,
        fetch_many = function(one) return one:fetch_many({ "k" }, 60, error).k end,
        get_many = function(one) return one:get_many({ "k" }).k end,
      } do
        local other = layers.open(db, { encrypt = { keys = { k1 = A } }, compress = true })
        assert.equal(LONG, ask(other))
        assert.equal(LONG, ask(other))
        local near = other:stats().near
        assert.is_true(near.bytes > #LONG and near.hits == 1, name)
      end
      assert.equal(LONG, cache:namespace(""):get("k"))
    end)

    it("of garbage is an error", function()
      for _, hex in ipairs { "", "01", "0100", "01026b31", "02026b31" .. ("00"):rep(60), "01026b31" .. ("00"):rep(60) } do
        db:sql(("TRUNCATE cache; INSERT INTO cache (user_id, key, value, format) VALUES ('app', 'k', '\\x%s', 'e')"):format(hex))
        assert.matches("^invalid: stored value", select(2, open():get("k")))
        assert.matches("^invalid: stored value", select(2, plain:get("k")))
      end
    end)
  end)

  it("holds for fetch as well", function()
    local cache = db:open { encrypt = { keys = { k1 = A } }, compress = true }
    local long = ("k"):rep(1050)
    assert.equal(LONG, cache:fetch("k", { ttl = 60 }, function() return LONG end))
    assert.equal("e", stored("k"))
    assert.equal(LONG, cache:fetch("k", { ttl = 60 }, function() error("not again") end))
    assert.same({ k = LONG, [long] = "v" }, cache:fetch_many({ "k", long }, { ttl = 60 }, function() return { [long] = "v" } end))
    assert.same({ k = LONG, [long] = "v" }, cache:fetch_many({ "k", long }, { ttl = 60 }, function() error("not again") end))
  end)

  it("is told to Python and to people, instead of bytes that mean nothing", function()
    assert(db:open { compress = true }:set("z", LONG))
    assert(db:open { encrypt = { keys = { k = A } } }:set("e", "v"))
    local function python(sql)
      local failure
      plain:transaction(function(tx)
        local rows, err = tx:query(sql)
        failure = err
        return rows, err
      end)
      return failure
    end
    assert.matches("fpcache: this value is compressed, only fpcache can read it", python("SELECT cache_get('app', 'z')"))
    assert.matches("fpcache: this value is encrypted, only fpcache can read it", python("SELECT cache_get('app', 'e')"))
    assert.is_nil(python("SELECT cache_set('app', 'e', 'python')"))
    assert.equal("python", plain:get("e"))
    assert.same({ { n = 1 } }, plain:transaction(function(tx)
      return tx:query("SELECT count(*) AS n FROM valid_cache WHERE value IS NULL")
    end))
  end)

  it("has checked options, which never show a secret", function()
    local function refused(text, opts) raises(text, function() fpcache.new(opts) end) end
    refused("options.compress: compress.levle: unknown option (did you mean level?)", { compress = { levle = 1 } })
    refused("options.compress: compress.level: must be at most 19, got 20", { compress = { level = 20 } })
    refused("options.compress: boolean table is expected, got string", { compress = "zstd" })
    refused("options.encrypt: keys: a table of { id = secret } is expected", { encrypt = {} })
    refused('options.encrypt: keys: the secret of "k" must be 32 bytes or 64 hexadecimal digits',
      { encrypt = { keys = { k = "hush" } } })
    refused("options.encrypt: keys: an id is a string of 1 to 64 bytes", { encrypt = { keys = { A } } })
    refused("options.encrypt: use: which of the keys writes?", { encrypt = { keys = { a = A, b = B } } })
    refused('options.encrypt: use: there is no key "c"', { encrypt = { keys = { a = A, b = B }, use = "c" } })
    local seal = core.seal { limit = 10, keys = {}, user = "u", space = "" }
    seal:close()
    seal:close()
  end)
end)

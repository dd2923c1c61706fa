-- cli_admin_spec.lua -- `fpcache admin` and `fpcache-admin`.
local database = require "support.database"
local interpreter = require "support.interpreter"
local schema = require "fpcache.schema"

describe("fpcache admin", function()
  local db, fpcache

  before_each(function()
    db = database.new(false)
    fpcache = interpreter.new { FPCACHE_URL = db.url }
  end)
  after_each(function()
    fpcache:remove()
    db:close_all()
    db.srv:sql(("DROP DATABASE %s WITH (FORCE)"):format(db.name))
  end)

  local function has(text, answer, code)
    assert.equal(code or 0, answer.code, answer.err)
    assert.matches(text, code and code > 0 and answer.err or answer.out, 1, true)
  end

  it("setup prints what it made and how users connect", function()
    local answer = fpcache { "admin", "setup" }
    has("Installed: ", answer)
    has(("Schema public of database %s, version %d"):format(db.name, schema.VERSION), answer)
    has("public.cache, UNLOGGED, owned by fpcache", answer)
    has("row-level security, forced", answer)
    has(('local cache = assert(fpcache.new{ connection_string = "postgresql://USER@HOST/%s" })'):format(db.name), answer)
    has("--grant ROLE", answer)
    has("Nothing to do: the schema is up to date.", fpcache { "admin", "setup" })
    assert.is_true(db:open { connection_string = db.url }:ping())
  end)

  it("setup with --schema, --logged, --grant", function()
    local answer = fpcache { "admin", "setup", "--schema", 'a"; drop table x; --', "--logged", "--grant", "app",
      "--grant", "public" }
    has("LOGGED", answer)
    has("Granted to: app\nGranted to: public\n", answer)
    has([[schema = "a\"; drop table x; --"]], answer)
    assert.is_true(db:open { schema = 'a"; drop table x; --' }:ping())
  end)

  it("answers in JSON where asked", function()
    local answer = fpcache { "admin", "setup", "--json" }
    assert.equal(0, answer.code)
    assert.matches(('"version":%d'):format(schema.VERSION), answer.out)
    assert.matches('^{.*"unlogged":true.*}\n$', fpcache { "admin", "status", "--json" }.out)
  end)

  it("watch, watches and unwatch", function()
    fpcache { "admin", "setup" }
    db:sql("CREATE SCHEMA shop; CREATE TABLE shop.products (id int, shop_id int)")
    local words = { "admin", "watch", "shop.products", "--key", "product:{id}", "--key", "p:{id}", "--tag", "shop:{shop_id}",
      "--namespace", "pages", "--cache-of", "app" }
    local line = "1  shop.products  --key product:{id} --key p:{id} --tag shop:{shop_id} --namespace pages --cache-of app\n"
    has("Watching: " .. line, fpcache(words))
    has("Watched already: " .. line, fpcache(words))
    has(line, fpcache { "admin", "watches" })
    assert.matches('^%[{.*"state":"watching".*}%]\n$', fpcache { "admin", "watches", "--json" }.out)
    has("invalid: a watch needs a key or a tag to invalidate", fpcache { "admin", "watch", "shop.products" }, 1)
    has("invalid: there is no table shop.none", fpcache { "admin", "watch", "shop.none", "--key", "k" }, 1)
    has("No longer watched: " .. line, fpcache { "admin", "unwatch", "shop.products" })
    has("It was not watched.", fpcache { "admin", "unwatch", "1" })
    assert.equal("[]\n", fpcache { "admin", "watches", "--json" }.out)
  end)

  it("quota and sweep", function()
    fpcache { "admin", "setup" }
    has("No quota is set.\n", fpcache { "admin", "quota" })
    has("all together: about 0 of 10 entries, 0 of 2097152 bytes\n",
      fpcache { "admin", "quota", "--max-entries", "10", "--max-bytes", "2MB" })
    has("app: about 0 of 5 entries, 0 bytes", fpcache { "admin", "quota", "--cache-of", "app", "--max-entries", "5" })
    db:sql("INSERT INTO cache (key, value) SELECT i::text::bytea, 'x' FROM generate_series(1, 20) AS i")
    assert.matches("^expired 0, evicted 11, tags in vain 0, %d+%.%d%d s\n$", fpcache { "admin", "sweep" }.out)
    assert.matches('"evicted":0', fpcache { "admin", "sweep", "--json" }.out)
    assert.matches('^%[{.*"max_entries":10.*}%]\n$', fpcache { "admin", "quota", "--json" }.out)
    has("app: about", fpcache { "admin", "quota", "--remove" })
    has("invalid: every: ", fpcache { "admin", "sweep", "--every", "often" }, 1)
    has("2XB is no size", fpcache { "admin", "quota", "--max-bytes", "2XB" }, 2)
    local job = fpcache:start { "admin", "sweep", "--every", "100ms" }
    assert.is_truthy(database.eventually(function() return job:output():find("expired 0, .*\nexpired 0, ") end))
    assert.equal(143, job:kill(15))
  end)

  it("status and upgrade tell what is", function()
    has("nothing is set up.  Run: fpcache admin setup", fpcache { "admin", "status" })
    has("schema: nothing to upgrade", fpcache { "admin", "upgrade" }, 1)
    fpcache { "admin", "setup" }
    has("version " .. schema.VERSION, fpcache { "admin", "status" })
    has("Nothing to do", fpcache { "admin", "upgrade" })
    db:sql(("INSERT INTO fpcache_schema (version, name) VALUES (%d, 'x')"):format(schema.VERSION + 1))
    has("install a newer fpcache", fpcache { "admin", "setup" }, 1)
  end)

  it("drop asks on a terminal, refuses elsewhere, obeys --force", function()
    fpcache { "admin", "setup" }
    has("there is no terminal to ask on; say --force to do it", fpcache { "admin", "drop" }, 1)
    local answer = fpcache:on_terminal({ "admin", "drop" }, "n\n")
    assert.equal(1, answer.code)
    assert.matches("Drop public.cache and DELETE all cached data? [y/N]", answer.out, 1, true)
    assert.matches("nothing was changed", answer.out)
    has("version " .. schema.VERSION, fpcache { "admin", "status" })
    answer = fpcache:on_terminal({ "admin", "drop" }, "y\n")
    assert.equal(0, answer.code)
    assert.matches("Dropped the cache in schema public.", answer.out, 1, true)
    has("nothing is set up", fpcache { "admin", "status" })
    fpcache { "admin", "setup" }
    has("Dropped the cache in schema public.", fpcache { "admin", "drop", "--force" })
  end)

  it("setup over a table that is not ours asks, refuses elsewhere, obeys --force", function()
    db:sql("CREATE TABLE cache (user_id text); INSERT INTO cache VALUES ('precious')")
    has("there is no terminal to ask on", fpcache { "admin", "setup" }, 1)
    assert.equal(1, fpcache:on_terminal({ "admin", "setup" }, "\n").code)
    assert.equal("precious", db:sql("SELECT * FROM cache"))
    assert.equal(0, fpcache:on_terminal({ "admin", "setup" }, "yes\n").code)
    assert.equal("", db:sql("SELECT * FROM cache"))
    has("Dropped what was there before.", fpcache { "admin", "setup", "--force" })
  end)

  it("says what is wrong with the command line", function()
    for _, words in ipairs { { "admin" }, { "admin", "frob" }, { "admin", "setup", "--frob" },
      { "admin", "setup", "--port", "x" }, { "admin", "status", "--force" } } do
      assert.equal(2, fpcache(words).code, table.concat(words, " "))
    end
    has("fpcache: invalid: port: must be at most 65535", fpcache { "admin", "status", "--port", "70000" }, 1)
    has("fpcache: invalid: an SQL name must not be empty", fpcache { "admin", "setup", "--schema", "" }, 1)
    has("fpcache: connect: ", fpcache { "admin", "setup", "--url", "postgresql:///x?host=/nowhere" }, 1)
  end)

  describe("under the name and with the flags of Python's tool", function()
    local function tool(...)
      return fpcache { program = interpreter.path .. "-admin", ... }
    end

    it("sets up", function()
      local answer = tool("--host", db.srv.host, "--port", "5432", "--database", db.name, "--user", "fpcache",
        "--password", "unused", "--schema", "my_cache")
      has("my_cache.cache, UNLOGGED", answer)
      assert.is_true(db:open { connection_string = db.url, schema = "my_cache" }:ping())
    end)

    it("recreates with --force and without a prompt", function()
      local where = { "--host", db.srv.host, "--database", db.name, "--user", "fpcache" }
      local unpack = table.unpack or unpack
      assert.equal(0, tool(unpack(where)).code)
      local cache = db:open { connection_string = db.url }
      assert(cache:set("k", 1))
      assert.equal(0, tool(unpack(where)).code)
      assert.equal(1, cache:get("k"))
      where[#where + 1] = "--force"
      has("Dropped what was there before.", tool(unpack(where)))
      assert.equal(0, cache:count())
    end)

    it("knows the Databricks flags", function()
      has("--databricks needs --instance-name", tool("--databricks"), 1)
      has("profile belongs to instance_name or endpoint", tool("--profile", "DEFAULT"), 1)
      has("each say where the password comes from", tool("--databricks", "--instance-name", "x", "--password", "y"), 1)
    end)

    it("goes to localhost by itself, as postgres", function()
      local answer = tool("--port", "1")
      assert.equal(1, answer.code)
      assert.matches("^fpcache: connect: .*localhost", answer.err)
      assert.equal(2, tool("--frob").code)
      assert.matches("--databricks", tool("--help").out, 1, true)
    end)
  end)
end)

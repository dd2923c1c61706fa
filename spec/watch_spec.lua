-- watch_spec.lua -- tables whose writes invalidate what was made of them, in the writer's transaction.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local database = require "support.database"
local layers = require "support.layers"
local raises = require "support.raises"
local template = require "fpcache.admin.template"

describe("a watched table", function()
  local db, cache

  -- The cache belongs to an ordinary role, the business tables to another: as in production.
  setup(function()
    db = database.new(false)
    db:url_of("keeper")
    db:sql(("GRANT CREATE ON DATABASE %s TO keeper; CREATE SCHEMA shop"):format(db.name))
    for _, role in ipairs { "app", "bob" } do db:url_of(role) end
    assert(admin.setup { connection_string = db:url_of("keeper"), schema = "c", grant = { "app", "bob" } })
    db.schema = "c"
  end)
  before_each(function()
    db:sql([[
      TRUNCATE c.cache, c.fpcache_tags; DROP TABLE IF EXISTS shop.products CASCADE;
      CREATE TABLE shop.products (id int PRIMARY KEY, shop_id int, name text, sku text);
      INSERT INTO shop.products SELECT i, i % 2, 'n' || i, 'sku' || i FROM generate_series(1, 9) AS i;
      GRANT USAGE ON SCHEMA shop TO app; GRANT ALL ON shop.products TO app]])
    cache = db:open()
  end)
  after_each(function()
    for _, entry in ipairs(assert(admin.watches { connection_string = db.url, schema = "c" })) do
      assert(admin.unwatch { connection_string = db.url, schema = "c", id = entry.id })
    end
    db:close_all()
  end)

  local function call(name, opts)
    local options = { connection_string = db.url, schema = "c" }
    for key, value in pairs(opts or {}) do options[key] = value end
    return admin[name](options)
  end

  local function watch(opts)
    opts.table = opts.table or "shop.products"
    return assert(call("watch", opts))
  end

  local function fill(c, ...)
    for _, key in ipairs { ... } do assert((c or cache):set(key, "v")) end
  end

  local function left(c)
    return table.concat((c or cache):keys(), " ")
  end

  it("loses the keys of the rows that are inserted, changed and deleted, and no others", function()
    watch { key = "product:{id}" }
    fill(nil, "product:1", "product:2", "product:3", "product:10", "other")
    db:sql("UPDATE shop.products SET name = 'x' WHERE id = 1")
    assert.equal("other product:10 product:2 product:3", left())
    db:sql("INSERT INTO shop.products VALUES (10)")
    assert.equal("other product:2 product:3", left())
    db:sql("DELETE FROM shop.products WHERE id IN (2, 7)")
    assert.equal("other product:3", left())
    db:sql("UPDATE shop.products SET name = 'x' WHERE id = 77")
    assert.equal("other product:3", left())
    db:sql("INSERT INTO shop.products (id) VALUES (3) ON CONFLICT (id) DO UPDATE SET name = 'y'")
    assert.equal("other", left())
  end)

  it("loses the old and the new keys of a row, by several templates, in one statement for many rows", function()
    watch { key = { "product:{id}", "by-sku:{sku}", "all" } }
    fill(nil, "product:1", "by-sku:sku1", "by-sku:new", "by-sku:sku2", "all")
    db:sql("UPDATE shop.products SET sku = 'new' WHERE id = 1")
    assert.equal("by-sku:sku2", left())
    fill(nil, "product:1", "product:8", "all")
    db:sql("UPDATE shop.products SET name = name || '!'")
    assert.equal("", left())
    db:sql("COPY shop.products (id) FROM STDIN;\n20\n21\n\\.\n")
  end)

  it("passes over a row whose column is NULL, and cares for odd texts", function()
    watch { key = "k:{name}" }
    local odd = { "", "日本", "a'b\\c", ("long"):rep(500), " " }
    for _, text in ipairs(odd) do assert(cache:set("k:" .. text, 1)) end
    assert(cache:transaction(function(tx)
      assert(tx:query("INSERT INTO shop.products (id, name) VALUES (50, NULL)"))
      for i, text in ipairs(odd) do assert(tx:query("INSERT INTO shop.products (id, name) VALUES ($1, $2)", 50 + i, text)) end
      return true
    end))
    assert.equal("", left())
  end)

  it("reads a column the same way whatever the writer's settings are", function()
    db:sql("ALTER TABLE shop.products ADD at timestamptz")
    watch { key = "at:{at}" }
    fill(nil, "at:2020-01-02 03:04:05+00")
    db:sql([[SET datestyle = 'German'; SET timezone = 'Asia/Tokyo';
      INSERT INTO shop.products (id, at) VALUES (60, '2020-01-02 12:04:05+09')]])
    assert.equal("", left())
  end)

  it("invalidates tags", function()
    watch { key = "product:{id}", tag = "shop:{shop_id}" }
    assert(cache:set("list:0", 1, { tags = "shop:0" }))
    assert(cache:set("list:1", 1, { tags = { "shop:1", "x" } }))
    assert(cache:set("list:5", 1, { tags = "shop:5" }))
    fill(nil, "product:1")
    db:sql("UPDATE shop.products SET shop_id = 5 WHERE id = 1")
    assert.equal("list:0", left())
    assert.equal("1", db:sql("SELECT count(*) FROM c.fpcache_tags"))
  end)

  it("does so in the writer's transaction: seen in it at once, by others at commit, undone by rollback", function()
    watch { key = "product:{id}" }
    fill(nil, "product:1")
    cache:transaction(function(tx)
      assert(tx:query("UPDATE shop.products SET name = 'x' WHERE id = 1"))
      assert.is_nil((tx:get("product:1")))
      assert.equal("v", db:open():get("product:1"))
      return nil, "no"
    end)
    assert.equal("v", cache:get("product:1"))
    assert(cache:transaction(function(tx) return tx:query("DELETE FROM shop.products WHERE id = 1") end))
    assert.is_nil((cache:get("product:1")))
  end)

  it("keeps out what fetch loaded before COMMIT, where the key had a row", function()
    watch { key = "product:{id}" }
    local policy, reader = { ttl = 60 }, db:open { timeout = 0.3 }
    local function old() return "old" end
    assert.equal("old", (cache:fetch("product:1", policy, function()
      db:sql("UPDATE shop.products SET name = 'x' WHERE id = 1")
      return "old"
    end)))
    assert.is_nil((cache:get("product:1")), "the lease was granted before the trigger ran")
    fill(nil, "product:2")
    db:sql("UPDATE c.cache SET expires_at = now() - interval '1 second'")
    assert(cache:transaction(function(tx)
      assert(tx:query("UPDATE shop.products SET name = 'y' WHERE id = 2"))
      assert.same({ "old", nil, "loader" }, { reader:fetch("product:2", policy, old) })
      return true
    end))
    assert.is_nil((cache:get("product:2")), "nobody can claim it between the trigger and COMMIT")
  end)

  it("is told to every process: near caches and filters follow", function()
    watch { key = "product:{id}" }
    local there = layers.open(db)
    fill(nil, "product:1", "product:2")
    layers.warm(there, "product:1")
    layers.warm(there, "product:2")
    db:sql("TRUNCATE c.fpcache_feed")
    db:sql("UPDATE shop.products SET name = 'x' WHERE id < 5")
    assert.equal("1", db:sql("SELECT count(*) FROM c.fpcache_feed"), "one row of the feed for the statement")
    core.system.sleep(layers.STALENESS)
    assert.is_nil((there:get("product:1")))
    assert.is_nil((there:get("product:2")))
    db:sql("TRUNCATE c.fpcache_feed; UPDATE shop.products SET name = 'y' WHERE id = 9")
    assert.equal("0", db:sql("SELECT count(*) FROM c.fpcache_feed"), "what nobody had cached is not told")
  end)

  it("concerns every user's cache, or those that are named, in one namespace", function()
    local bob = db:open { as = "bob" }
    local pages = cache:namespace("pages")
    local id = watch({ key = "product:{id}" }).id
    for _, c in ipairs { cache, bob, pages } do fill(c, "product:1") end
    db:sql("UPDATE shop.products SET name = 'x' WHERE id = 1")
    assert.equal("||product:1", left() .. "|" .. left(bob) .. "|" .. left(pages))
    assert(call("unwatch", { id = id }))
    watch { key = "product:{id}", cache_of = "bob" }
    watch { key = "product:{id}", namespace = "pages" }
    for _, c in ipairs { cache, bob, pages } do fill(c, "product:1") end
    db:sql("UPDATE shop.products SET name = 'x' WHERE id = 1")
    assert.equal("product:1||", left() .. "|" .. left(bob) .. "|" .. left(pages))
  end)

  it("invalidates what Python cached", function()
    watch { key = "product:{id}" }
    local function python(sql)
      return assert(cache:transaction(function(tx) return tx:query("SELECT " .. sql .. " AS v") end))[1].v
    end
    assert.is_true(python("c.cache_set('app', 'product:1', '1')"))
    db:sql("UPDATE shop.products SET name = 'x' WHERE id = 1")
    assert.is_nil(python("c.cache_get('app', 'product:1')"))
  end)

  it("TRUNCATE takes all that the templates can make", function()
    watch { key = { "product:{id}", "all" }, tag = "shop:{shop_id}" }
    fill(nil, "product:1", "product:x", "producer", "all", "alle")
    assert(cache:set("list", 1, { tags = "shop:9" }))
    assert(cache:set("other", 1, { tags = "shopping" }))
    local bob = db:open { as = "bob" }
    fill(bob, "product:1")
    db:sql("TRUNCATE shop.products")
    assert.equal("other producer", left():gsub(" alle", ""):gsub("alle ", ""))
    assert.equal("", left(bob))
    fill(nil, "product:1")
    db:sql("SET escape_string_warning = off; SET standard_conforming_strings = off; TRUNCATE shop.products")
    assert.is_nil((cache:get("product:1")), "also where a backslash escapes in any literal")
  end)

  it("may be partitioned, and is watched as a whole", function()
    db:sql([[CREATE TABLE shop.parts (id int, v int) PARTITION BY RANGE (id);
      CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (100)]])
    finally(function() db:sql("DROP TABLE shop.parts CASCADE") end)
    watch { table = "shop.parts", key = "part:{id}" }
    fill(nil, "part:1", "part:2")
    db:sql("INSERT INTO shop.parts VALUES (1)")
    assert.equal("part:2", left())
    local _, err = call("watch", { table = "shop.parts_1", key = "part:{id}" })
    assert.matches("^invalid: shop.parts_1 is a partition; watch the table it belongs to", err)
  end)

  it("and its columns may have any name", function()
    db:sql([[CREATE TABLE shop."o'dd ""T$fpcache$" ("a ""b'" int)]])
    finally(function() db:sql([[DROP TABLE shop."o'dd ""T$fpcache$" CASCADE]]) end)
    local name = [[shop."o'dd ""T$fpcache$"]]
    local report = watch { table = name, key = [[{a "b'}'$fpcache$ {{x}}\]], namespace = "n's" }
    local c = cache:namespace("n's")
    fill(c, [[7'$fpcache$ {x}\]], "other")
    db:sql("INSERT INTO " .. name .. " VALUES (7)")
    assert.equal("other", left(c))
    db:sql("TRUNCATE " .. name)
    assert.equal("", left(c), "a template that begins with a column may make any key")
    assert.equal(name, report.table)
  end)

  it("is listed, ended by id or by table, and watched once only", function()
    local first = watch { key = "a:{id}" }
    assert.is_true(first.is_new)
    local again = watch { key = "a:{id}" }
    assert.is_false(again.is_new)
    assert.equal(first.id, again.id)
    local second = watch { key = { "b:{id}" }, tag = "t", cache_of = { "app", "bob" } }
    local list = assert(call("watches"))
    assert.equal(2, #list)
    assert.same({ "a:{id}" }, { list[1].keys[1] })
    assert.same({ "app", "bob" }, list[2].users)
    assert.equal("watching", list[1].state)
    assert.equal("shop.products", list[1].table)
    db:sql("ALTER TABLE shop.products DISABLE TRIGGER fpcache_watch_" .. first.id .. "_update")
    assert.equal("triggers are missing or disabled", assert(call("watches"))[1].state)
    assert.equal(1, #assert(call("unwatch", { id = second.id })))
    assert.same({}, assert(call("unwatch", { id = second.id })))
    db:sql("ALTER TABLE shop.products RENAME TO goods; ALTER TABLE shop.goods RENAME id TO number")
    list = assert(call("watches"))
    assert.equal("shop.goods", list[1].table)
    assert.equal("writes fail: there is no column id any more", list[1].state)
    db:sql("ALTER TABLE shop.goods RENAME number TO id; ALTER TABLE shop.goods RENAME TO products")
    db:sql("DROP TABLE shop.products")
    list = assert(call("watches"))
    assert.equal("the table is gone", list[1].state)
    assert.is_nil(list[1].table)
    assert.equal(1, #assert(call("unwatch", { id = first.id })))
    assert.equal("0", db:sql("SELECT count(*) FROM pg_proc WHERE proname LIKE 'fpcache_watch%'"))
  end)

  it("stays watched when the cache is made anew, and is free when it is dropped", function()
    db:close_all()
    local own = database.new()
    finally(function() own:close_all() end)
    own:sql("CREATE TABLE t (id int)")
    assert(admin.watch { connection_string = own.url, table = "t", key = "t:{id}" })
    assert(admin.setup { connection_string = own.url, force = true, grant = "public" })
    local c = own:open()
    fill(c, "t:1")
    own:sql("INSERT INTO t VALUES (1)")
    assert.equal("", left(c))
    assert(admin.drop { connection_string = own.url })
    own:sql("INSERT INTO t VALUES (2)")
    assert.equal("0", own:sql("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'fpcache%'"))
  end)

  it("gives nobody a way to others' rows", function()
    local report = watch { key = "product:{id}" }
    local _, err = cache:transaction(function(tx)
      assert(tx:query("CREATE TEMP TABLE mine (id int)"))
      return tx:query(("CREATE TRIGGER t AFTER INSERT ON mine REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT "
        .. "EXECUTE PROCEDURE c.fpcache_watch_%d()"):format(report.id))
    end)
    assert.matches("SQLSTATE 42501", err)
    assert.equal("keeper", db:sql("SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE proname = 'fpcache_watch_"
      .. report.id .. "'"))
  end)

  it("is refused where it cannot be", function()
    local function refused(pattern, opts)
      local report, err = call("watch", opts)
      assert.is_nil(report)
      assert.matches(pattern, err)
    end
    refused("^invalid: which table", { key = "k" })
    refused("^invalid: a watch needs a key or a tag", { table = "shop.products" })
    refused("^invalid: there is no table shop.none", { table = "shop.none", key = "k" })
    refused("^invalid: shop.products has no column nix %(in the template \"k{nix}\"%)",
      { table = "shop.products", key = "k{nix}" })
    refused("^invalid: in the template", { table = "shop.products", key = "k{id" })
    refused("^invalid: pg_catalog.pg_tables is no table", { table = "pg_catalog.pg_tables", key = "k" })
    refused("^schema: no cache is set up", { table = "shop.products", key = "k", schema = "shop" })
    refused("^denied: .*; this needs the owner of the cache %(or a superuser%) with the right TRIGGER",
      { table = "shop.products", key = "k:{id}", connection_string = db:url_of("keeper") })
    refused("^denied: ", { table = "shop.products", key = "k:{id}", connection_string = db:url_of("app") })
    assert.equal("0", db:sql("SELECT count(*) FROM c.fpcache_watches"))
    assert.equal("invalid: which watch is to end? (either id or table)", select(2, call("unwatch")))
    raises("options.key: a template or a list of them is expected",
      function() admin.watch { table = "t", key = { 5 } } end)
    db:close_all() -- and nothing is open
  end)

  it("templates are text and columns", function()
    assert.same({ "product:", { column = "id" } }, template.parse("product:{id}"))
    assert.same({ { column = "a b" }, "}{", { column = "c" } }, template.parse("{a b}}}{{{c}"))
    assert.equal("x", template.prefix { "x", { column = "y" } })
    assert.equal("", template.prefix { { column = "y" } })
    for _, text in ipairs { "", "{}", "{", "a}", "{a", "\0", "\255" } do
      assert.matches("^invalid: ", select(2, template.parse(text)))
    end
  end)
end)

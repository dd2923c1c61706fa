-- watch_writes_spec.lua -- every way in which a watched table is written: each deletes the keys of the rows that it wrote.
local admin = require "fpcache.admin"
local database = require "support.database"

describe("a watched table that is written by", function()
  local db, cache

  setup(function()
    db = database.new()
    db:sql([[
      CREATE TABLE products (id int PRIMARY KEY, shop_id int, name text);
      CREATE TABLE reviews (id int PRIMARY KEY, product_id int REFERENCES products (id) ON DELETE CASCADE ON UPDATE CASCADE);
      CREATE TABLE sales (id int, region text) PARTITION BY LIST (region);
      CREATE TABLE sales_north PARTITION OF sales FOR VALUES IN ('north');
      CREATE TABLE sales_south PARTITION OF sales FOR VALUES IN ('south')]])
    for name, keys in pairs {
      products = { "product:{id}", "list:{shop_id}:{name}" }, reviews = { "review:{id}" }, sales = { "sale:{id}:{region}" },
    } do
      assert(admin.watch { connection_string = db.url, table = name, key = keys })
    end
    assert(admin.watch { connection_string = db.url, table = "reviews", key = "reviews-of:{product_id}" }) -- a second one
  end)
  before_each(function()
    db:sql([[
      TRUNCATE cache, products, reviews, sales;
      INSERT INTO products SELECT i, 1, 'n' || i FROM generate_series(1, 3) AS i;
      INSERT INTO reviews VALUES (10, 1), (11, 1), (20, 2);
      INSERT INTO sales VALUES (1, 'north'), (2, 'south')]])
    cache = db:open()
  end)
  after_each(function() db:close_all() end)

  --- The keys that are left of those that are cached when the statements are done.
  local function left(keys, text)
    for key in keys:gmatch("%S+") do assert(cache:set(key, 1)) end
    db:sql(text)
    return table.concat(cache:keys(), " ")
  end

  local is_new = tonumber(database.new(false):sql("SHOW server_version_num")) >= 150000

  it("COPY, a column of a template being NULL", function()
    assert.equal("list:1: product:1", left("product:1 product:4 product:5 list:1:new list:1:",
      "COPY products FROM STDIN;\n4\t\\N\tnew\n5\t1\tnew\n\\.\n"))
  end)

  it("UPDATE of the columns of its key: the old and the new one", function()
    assert.equal("product:2 product:3", left("product:1 product:100 product:2 product:3",
      "UPDATE products SET id = 100 WHERE id = 1"))
    assert.equal("list:1:n3 product:3", left("list:1:n2 list:7:n2 list:1:n3", "UPDATE products SET shop_id = 7 WHERE id = 2"))
  end)

  it("upserts, both ways in one statement", function()
    assert.equal("product:1", left("product:1 product:3 product:4", [[INSERT INTO products VALUES (3, 1, 'c'), (4, 1, 'c')
      ON CONFLICT (id) DO UPDATE SET name = excluded.name]]))
  end)

  it("WITH, which writes it twice", function()
    assert.equal("product:1", left("product:1 product:2 product:3", [[WITH a AS (UPDATE products SET name = 'w' WHERE id = 2
      RETURNING 1), b AS (DELETE FROM products WHERE id = 3 RETURNING 1) SELECT FROM a, b]]))
  end)

  if is_new then
    it("MERGE", function()
      assert.equal("product:1", left("product:1 product:2 product:3 product:4", [[
        MERGE INTO products AS p USING (VALUES (2), (3), (4)) AS v (i) ON p.id = v.i WHEN MATCHED AND i = 2 THEN DELETE
        WHEN MATCHED THEN UPDATE SET name = 'm' WHEN NOT MATCHED THEN INSERT VALUES (v.i, 1, 'm')]]))
    end)
  end

  it("the cascade of a foreign key", function()
    assert.equal("review:20 reviews-of:2", left("review:10 review:11 review:20 reviews-of:1 reviews-of:2 product:1",
      "DELETE FROM products WHERE id = 1"))
    assert.equal("", left("reviews-of:200", "UPDATE products SET id = 200 WHERE id = 2"))
    assert.equal("other", left("other product:3 review:1 reviews-of:5", "TRUNCATE products CASCADE"))
  end)

  it("statements on its partitioned table, whatever the partition", function()
    assert.equal("sale:2:south", left("sale:1:north sale:1:south sale:2:south",
      "UPDATE sales SET region = 'south' WHERE id = 1"), "the row moved")
    assert.equal("sale:2:south", left("sale:1:south sale:3:north", [[
      COPY sales FROM STDIN;
3	north
\.
      DELETE FROM sales WHERE id = 1]]))
    assert.equal("other", left("other sale:9:north", "TRUNCATE sales"))
  end)

  it("nobody any more who would need a column that was renamed: it fails, with the column's name", function()
    finally(function() db:sql("ALTER TABLE products RENAME title TO name") end)
    db:sql("ALTER TABLE products RENAME name TO title")
    local called, err = pcall(left, "product:1", "UPDATE products SET title = 'x' WHERE id = 1")
    assert.is_false(called)
    assert.matches("column r.name does not exist", err)
    assert.is_true(cache:exists("product:1"), "and nothing was written")
    assert.equal("0", db:sql("SELECT count(*) FROM products WHERE title = 'x'"))
  end)
end)

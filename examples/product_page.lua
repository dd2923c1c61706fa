#!/usr/bin/env fpcache
-- product_page.lua -- a cache of product pages that is never told what changed: the database does it.
--
--     fpcache examples/product_page.lua                  with the private server, or FPCACHE_URL (the cache's owner)
--
-- The pages are made from two tables.  `admin.watch` makes any write to them delete the pages it concerns, in the same
-- transaction: by key for a product, by tag for all pages of a shop.  `fetch` keeps nothing that was made of older rows.
local admin = require("fpcache.admin")
local fpcache = require("fpcache")
local now = require("fpcache.core").system.now -- seconds, monotonic

local cache = assert(fpcache.new {})
local pages = cache:namespace("pages")
local made = 0 -- how often the database was asked for a page

local function sql(text, ...)
  local rows, err = cache:transaction(function(tx, ...) return tx:query(text, ...) end, ...)
  return assert(rows, err)
end

for _, text in ipairs {
  "DROP SCHEMA IF EXISTS fpcache_example CASCADE",
  "CREATE SCHEMA fpcache_example",
  "CREATE TABLE fpcache_example.shops (id int PRIMARY KEY, name text)",
  "CREATE TABLE fpcache_example.products (id int PRIMARY KEY, shop_id int, name text, price numeric)",
  "INSERT INTO fpcache_example.shops VALUES (1, 'Corner shop'), (2, 'Market')",
  "INSERT INTO fpcache_example.products SELECT i, i % 2 + 1, 'Product ' || i, i FROM generate_series(1, 100) AS i",
} do sql(text) end

assert(admin.watch { table = "fpcache_example.products", namespace = "pages", key = "product:{id}" })
assert(admin.watch { table = "fpcache_example.shops", namespace = "pages", tag = "shop:{id}" })

-- `near = false`: by the server, since this example is about what it does at once.
local pages_policy = fpcache.policy { ttl = "1h", near = false }

--- Makes a page from the tables.
local function make(id, context)
  made = made + 1
  local row = sql([[SELECT p.name, p.price::text AS price, p.shop_id, s.name AS shop FROM fpcache_example.products AS p
    JOIN fpcache_example.shops AS s ON s.id = p.shop_id WHERE p.id = $1]], id)[1]
  if not row then return nil end -- there is no such product
  context.tags = ("shop:%d"):format(row.shop_id)
  return ("<h1>%s</h1><p>%s at %s</p>"):format(row.name, row.price, row.shop)
end

--- A page from the cache, else from the tables: by one process at a time, however many ask.
local function page(id)
  local html, err = pages:fetch(("product:%d"):format(id), pages_policy, make, id)
  assert(not err, err)
  return html
end

local began = now()
for _ = 1, 20 do
  for id = 1, 100 do page(id) end
end
print(("2000 views of 100 pages: %d made from the tables (%.2f s)"):format(made, now() - began))

made = 0
sql("UPDATE fpcache_example.products SET price = 9.99 WHERE id = 7") -- anybody could have done this, by any means
print(page(7))
sql("UPDATE fpcache_example.shops SET name = 'Old market' WHERE id = 2")
print(page(3))
for id = 1, 100 do page(id) end
print(("after one price and one shop's name: %d made again"):format(made))

sql("DROP SCHEMA fpcache_example CASCADE")
for _, entry in ipairs(assert(admin.watches {})) do
  if not entry.table then assert(admin.unwatch { id = entry.id }) end -- its table is gone
end
pages:clear()
cache:close()

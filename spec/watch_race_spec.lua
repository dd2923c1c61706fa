-- watch_race_spec.lua -- a watched table and fetch at the same time: after every COMMIT nothing old is cached.
--
-- The reader's loader reads the business table, as a real one does: before COMMIT it finds the old row.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local database = require "support.database"

describe("fetch beside a writer of a watched table", function()
  local db, cache, reader

  setup(function()
    db = database.new()
    db:sql([[CREATE TABLE products (id int PRIMARY KEY, shop int, name text);
      INSERT INTO products SELECT i, i % 5, 'old' FROM generate_series(1, 300) AS i; GRANT ALL ON products TO app]])
    assert(admin.watch { connection_string = db.url, table = "products", key = "product:{id}", tag = "shop:{shop}" })
  end)
  before_each(function()
    db:sql("TRUNCATE cache, fpcache_tags; UPDATE products SET name = 'old'")
    cache, reader = db:open(), db:open()
  end)
  after_each(function() db:close_all() end)

  --- A transaction that runs `...`, one statement a step; the step after the last one is its COMMIT, or what it is told.
  local function writer(...)
    local statements, level = { ... }, nil
    if statements[1]:find("^ISOLATION") then level = table.remove(statements, 1) end
    return coroutine.wrap(function()
      local done, err = cache:transaction(function(tx)
        if level then assert(tx:query("SET TRANSACTION " .. level)) end
        local order
        for _, text in ipairs(statements) do
          assert(tx:query(text))
          order = coroutine.yield(true)
        end
        return order ~= "roll back" or nil, order
      end)
      return done, err
    end)
  end

  local function name_of(id) return db:sql("SELECT name FROM products WHERE id = " .. id) end

  --- What fetch gives for a product, loaded from the table; `after` runs when it was read.
  local function fetch(id, opts, after)
    local policy = { ttl = 60, lock_timeout = 0.05 }
    for field, value in pairs(opts or {}) do policy[field] = value end
    return reader:fetch("product:" .. id, policy, function()
      local name = name_of(id)
      if after then after() end
      return name
    end)
  end

  local ONE = "UPDATE products SET name = 'new' WHERE id = 1"

  it("keeps what was loaded before COMMIT out of the cache, whenever it is stored", function()
    -- the trigger, then the whole fetch, then COMMIT
    local write = writer(ONE)
    write()
    assert.same({ "old", nil, "loader" }, { fetch(1) })
    assert.is_nil((reader:get("product:1")), "stored before COMMIT")
    assert.same({ "old", nil, "loader" }, { fetch(1) }, "and nobody is kept waiting by a lease")
    assert.is_true(write())
    assert.is_nil((reader:get("product:1")))
    assert.equal("new", (fetch(1)))
    assert.equal("new", (reader:get("product:1")), "afterwards it is cached as ever")

    -- the trigger, the loader reads, COMMIT, the value would be stored
    write = writer("UPDATE products SET name = 'newer' WHERE id = 2")
    write()
    assert.equal("old", (fetch(2, nil, function() assert.is_true(write()) end)))
    assert.is_nil((reader:get("product:2")))

    -- the lease, the trigger, the loader reads, COMMIT, the value would be stored
    write = writer("UPDATE products SET name = 'new' WHERE id = 3")
    assert.equal("old", (reader:fetch("product:3", 60, function()
      write()
      local name = name_of(3)
      assert.is_true(write())
      return name
    end)))
    assert.is_nil((reader:get("product:3")))
  end)

  it("holds for a key whose row expired meanwhile, for an absence, and for what is renewed early", function()
    local write = writer(ONE, "SELECT 1")
    write()
    db:sql([[INSERT INTO cache (user_id, namespace, key, value, format, version, expires_at)
      VALUES ('app', '', 'product:1', 'ancient', 't', 1, now() - interval '1 hour')]])
    assert.equal("old", (fetch(1)))
    assert.is_nil((reader:get("product:1")))
    assert.is_nil((reader:fetch("product:1", { ttl = 60, negative_ttl = 60 }, function() return nil end)))
    assert.equal("loader", select(3, fetch(1)), "an absence of before COMMIT is not remembered")
    db:sql([[UPDATE cache SET value = 'living', expires_at = now() + interval '1 second', noted_version = version]])
    assert.equal("old", (fetch(1, { refresh_ahead = 0.01 })))
    assert.equal("living", (reader:get("product:1")), "the loaded one was not stored")
    write()
    assert.is_true(write())
  end)

  it("does not wait for the writer, nor does the writer for anybody", function()
    assert(cache:set("product:1", "cached", { expires_at = 1 }))
    local write, quick = writer(ONE), db:open { timeout = 10 }
    write()
    reader = quick
    assert.same({ "old", nil, "loader" }, { fetch(1) }, "the row is locked until COMMIT, and is not touched")
    assert.equal(0, quick:stats { server = false }.policies.without_server)
    assert.is_true(write())
  end)

  it("concerns the keys that were written, and no others", function()
    local write = writer(ONE)
    write()
    assert.equal("old", (fetch(7)))
    assert.equal("old", (reader:get("product:7")))
    assert.equal("v", (reader:namespace("other"):fetch("product:1", 60, function() return "v" end)))
    assert.equal("v", (reader:namespace("other"):get("product:1")))
    assert.is_true(write())
  end)

  it("takes what stands before the first colon when many keys are written, then the namespace: few locks in any case", function()
    local function locks() return tonumber((db:sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))) end
    assert.equal(0, locks())
    local write = writer("UPDATE products SET name = 'new' WHERE id <= 200")
    write()
    local taken = locks()
    assert.equal("old", (fetch(5)))
    assert.equal("old", (fetch(250)), "one that was not written, but begins like those")
    assert.equal("v", (reader:fetch("other:1", 60, function() return "v" end)))
    assert.same({ "other:1" }, reader:keys())
    assert.is_true(write())
    assert.equal(0, locks(), "the locks end with the transaction")

    local many = {}
    for id = 1, 80 do many[id] = ("UPDATE products SET name = 'newer' WHERE id = %d"):format(id) end
    write = writer(table.concat(many, ";"):gsub("^", "DO $$ BEGIN ") .. "; END $$")
    write()
    assert.is_true(taken <= 4 and locks() <= 130)
    assert.equal("new", (fetch(1)))
    assert.equal("new", (fetch(80)))
    assert.same({ "other:1" }, reader:keys())
    assert.is_true(write())

    write = writer("TRUNCATE products")
    write()
    assert.equal("v", (reader:fetch("product:1", 60, function() return "v" end))) -- reading it would wait for COMMIT
    assert.same({ "other:1" }, reader:keys())
    write("roll back")
    assert.equal(0, locks())
  end)

  it("sees a policy's tags, of single keys and of many", function()
    local write = writer(ONE) -- of shop 1
    write()
    local function page() return "page" end
    assert.equal("page", (reader:fetch("page:a", { ttl = 60, tags = "shop:1" }, page)))
    assert.equal("page", (reader:fetch("page:b", { ttl = 60, tags = { "x", "shop:2" } }, page)))
    assert.same({ "page:b" }, reader:keys())
    local function both() return { c = 1, d = 1 } end
    assert.same({ c = 1, d = 1 }, (reader:fetch_many({ "c", "d" }, { ttl = 60, tags = "shop:1" }, both)))
    assert.same({ "page:b" }, reader:keys())
    assert.is_true(write())
  end)

  it("holds for fetch_many: one call of the loader, and what is being written is not stored", function()
    local write, calls = writer(ONE), 0
    write()
    local function many(keys)
      calls = calls + 1
      local found = {}
      for _, key in ipairs(keys) do found[key] = name_of(key:match("%d+")) end
      return found
    end
    assert.same({ ["product:1"] = "old", ["product:7"] = "old" }, (reader:fetch_many({ "product:1", "product:7" }, 60, many)))
    assert.equal(1, calls)
    assert.same({ "product:7" }, reader:keys())
    assert.is_true(write())
    assert.same({ ["product:1"] = "new", ["product:7"] = "old" }, (reader:fetch_many({ "product:1", "product:7" }, 60, many)))
    assert.same({ "product:1", "product:7" }, reader:keys())
    assert.equal("0", db:sql("SELECT count(*) FROM cache WHERE lease_until IS NOT NULL"))
  end)

  describe("while a lease is being granted", function()
    local dir
    before_each(function() dir = assert(core.system.mkdtemp("/tmp/fpcache-race-")) end)
    after_each(function() core.system.remove_tree(dir) end)

    local CLAIM = "SELECT fpcache_missed('', 'product:1', NULL, 10, NULL, NULL, NULL)"
    local count = 0

    --- SQL in a process beside us; gives a function that waits for what it says.
    local function beside(url, text)
      count = count + 1
      local log = dir .. "/" .. count
      assert(core.spawn { argv = { "psql", "-qAt", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", text }, log = log })
      return function(seconds)
        return database.eventually(function()
          local file = io.open(log)
          local said = file and file:read("*a") or ""
          if file then file:close() end
          return said:match("(.+)\n$")
        end, seconds)
      end
    end

    local function waiting_for(kind)
      return db:sql(("SELECT count(*) FROM pg_locks WHERE locktype = '%s' AND NOT granted"):format(kind)) == "1"
    end

    it("the writer waits for it, and takes it away", function()
      local claim = writer(CLAIM) -- granted, not committed
      claim()
      local said = beside(db.url, ONE .. " RETURNING 'done'")
      assert.is_truthy(database.eventually(function() return said(0) or waiting_for("advisory") end))
      assert.is_true(claim())
      assert.equal("done", said())
      assert.equal("0", db:sql("SELECT count(*) FROM cache"), "the lease went with the key")
    end)

    it("and the writer was quicker, nothing is stored by it", function()
      local other = writer("SELECT cache_set('app', 'product:1', '1')") -- it holds up who wants the lease
      other()
      local said = beside(db:url_of(), CLAIM)
      assert.is_truthy(database.eventually(function() return waiting_for("transactionid") end))
      cache = db:open()
      local write = writer(ONE)
      write()
      other("roll back")
      local words = assert(said())
      local text = words:gsub("^\\x", ""):gsub("%x%x", function(hex) return string.char(tonumber(hex, 16)) end)
      assert.matches(" true %-1 ", text)
      assert.equal("0", db:sql("SELECT count(*) FROM cache WHERE lease_until IS NOT NULL"))
      assert.is_true(write())
    end)
  end)

  it("a writer in REPEATABLE READ cannot overlook what was cached after it began", function()
    for _, level in ipairs { "REPEATABLE READ", "SERIALIZABLE" } do
      db:sql("TRUNCATE cache")
      local write = writer("ISOLATION LEVEL " .. level, "SELECT 1", ONE)
      write() -- it has its snapshot
      local cached = fetch(1)
      assert.equal(cached, reader:get("product:1"))
      local done, err = pcall(write)
      assert.is_false(done)
      assert.matches("40001", tostring(err))
      write = writer("ISOLATION LEVEL " .. level, ONE)
      write()
      assert.is_true(write())
      assert.same({}, reader:keys())
      assert.equal("0", db:sql("SELECT count(*) FROM cache"))
      -- and one that finds nothing leaves nothing behind
      write = writer("ISOLATION LEVEL " .. level, "UPDATE products SET name = 'new' WHERE id BETWEEN 5 AND 9")
      write()
      assert.is_true(write())
      assert.equal("0", db:sql("SELECT count(*) FROM cache"))
    end
  end)
end)

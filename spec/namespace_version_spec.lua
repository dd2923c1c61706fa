-- clear{ at_once = true }: one row clears a namespace, for every call and every client.
local database = require "support.database"
local draws = require "support.draws"
local layers = require "support.layers"

local SEED, STEPS = draws.seed(20261123), 700

describe("a namespace cleared at once", function()
  local db

  setup(function() db = database.new() end)
  before_each(function() db:sql("TRUNCATE cache, fpcache_tags, fpcache_namespaces") end)
  after_each(function() db:close_all() end)

  local function open(opts)
    opts = opts or {}
    opts.namespace_version = true
    return db:open(opts)
  end

  it("is empty for every call", function()
    local cache = open()
    local function fill()
      assert(cache:set("k", 1, { ttl = 60, tags = { "t" } }))
      assert(cache:set("n", 5))
    end
    for name, look in pairs {
      get = function() assert.is_nil((cache:get("k"))) end,
      get_many = function() assert.same({}, cache:get_many { "k", "n" }) end,
      entry = function() assert.is_nil((cache:entry("k"))) end,
      exists = function() assert.is_false(cache:exists("k")) end,
      ttl = function() assert.equal(-2, cache:ttl("k")) end,
      keys = function() assert.same({}, cache:keys()) end,
      scan = function() for key in cache:scan() do error(key) end end,
      count = function() assert.equal(0, cache:count()) end,
      count_all = function() assert.equal(0, cache:count { all = true }) end,
      tags = function() assert.is_nil((cache:tags("k"))) end,
      tagged = function() assert.same({}, cache:keys { tag = "t" }) end,
      count_tag = function() assert.equal(0, cache:count { tag = "t" }) end,
      invalidate_tag = function() assert.equal(0, cache:invalidate_tag "t") end,
      incr = function() assert.equal(1, cache:incr("n")) end,
      expire = function() assert.is_false(cache:expire("k", 9)) assert.is_false(cache:touch("k", 9)) end,
      persist = function() assert.is_false(cache:persist("k")) end,
      add = function() assert.is_true(cache:add("k", 2)) end,
      replace = function() assert.is_false(cache:replace("k", 2)) end,
      keep_ttl = function() cache:set("k", 2, { keep_ttl = true }) assert.equal(-1, cache:ttl("k")) end,
      get_set = function() assert.is_nil((cache:get_set("k", 2))) end,
      get_delete = function() assert.is_nil((cache:get_delete("k"))) end,
      delete = function() assert.is_false(cache:delete("k")) end,
      delete_many = function() assert.equal(0, cache:delete_many { "k", "n" }) end,
      fetch = function()
        assert.equal(2, (cache:fetch("k", { ttl = 60 }, function(context)
          assert.is_nil(context.old)
          return 2
        end)))
      end,
      stale = function() assert.equal("down", select(2, cache:fetch("k", { ttl = 60, stale_ttl = 60 }, function()
        return nil, "down"
      end))) end,
      fetch_many = function() assert.same({ k = 2 }, cache:fetch_many({ "k" }, 60, function() return { k = 2 } end)) end,
      rate = function()
        local limiter = cache:rate_limiter { limit = 1, window = 60, prefix = "", kind = "fixed" }
        assert.is_true(limiter:allow("n"))
      end,
      view = function() assert.equal("", db.srv:sql("SELECT key FROM valid_cache", db:url_of())) end,
      python = function()
        assert.equal("||f|-2|f", db:sql("SELECT NULL, cache_get('app', 'k'), cache_exists('app', 'k'), "
          .. "cache_ttl('app', 'k'), cache_delete('app', 'k')"))
      end,
    } do
      fill()
      assert.equal(0, cache:clear { at_once = true })
      local ok, err = pcall(look)
      if not ok then error(name .. ": " .. tostring(err), 0) end
      assert(cache:set("after", 1))
      assert.equal(1, (cache:get("after")), name)
      cache:clear()
    end
  end)

  it("overtakes who is loading, and what was stale", function()
    local cache = open()
    local policy = { ttl = 60, stale_ttl = 60 }
    assert.equal(1, (cache:fetch("k", policy, function() cache:clear { at_once = true } return 1 end)))
    assert.is_nil((cache:get("k")))
    assert.equal(1, (cache:fetch("k", policy, function() return 1 end)))
    db:age(61)
    cache:clear { at_once = true }
    assert.same({ nil, "down", "loader" }, { cache:fetch("k", policy, function() return nil, "down" end) }, "no older value")
    cache:fetch_many({ "k" }, policy, function() cache:clear { at_once = true } return { k = 1 } end)
    assert.is_nil((cache:get("k")))
  end)

  it("is one namespace of one user; its space comes back with a sweep", function()
    local cache = open()
    local there, other = cache:namespace("there"), open { as = "other" }
    for _, one in ipairs { cache, there, other } do assert(one:set("k", 1)) end
    assert(cache:clear { at_once = true })
    assert.same({ nil, 1, 1 }, { cache:get("k"), (there:get("k")), (other:get("k")) })
    assert.equal(1, cache:cleanup())
    assert.equal("2", db:sql("SELECT count(*) FROM cache"))
    assert.equal(0, cache:cleanup())
    assert(cache:clear())
    assert.equal(1, (there:get("k")))
  end)

  it("is cleared with its transaction, or not", function()
    local cache = open()
    assert(cache:set("k", 1))
    assert(not cache:transaction(function(tx)
      assert(tx:clear { at_once = true })
      assert.is_nil((tx:get("k")))
      return nil, "no"
    end))
    assert.equal(1, (cache:get("k")))
    assert(cache:transaction(function(tx) return tx:clear { at_once = true } end))
    assert.is_nil((cache:get("k")))
  end)

  it("costs the same for many entries as for one", function()
    local cache = open()
    local function written(count)
      local items = {}
      for i = 1, count do items["k" .. i] = i end
      assert(cache:set_many(items))
      local rows = {}
      assert(cache:transaction(function(tx)
        local function look(sign) -- what this session has written, and not only in this transaction
          for _, row in ipairs(assert(tx:query([[SELECT relname::text AS name, n_tup_ins + n_tup_upd + n_tup_del AS count
            FROM pg_stat_xact_user_tables]]))) do
            local name = row.name:match("^fpcache_feed") or row.name
            rows[name] = (rows[name] or 0) + sign * row.count
          end
        end
        look(-1)
        assert(tx:clear { at_once = true })
        look(1)
        return true
      end))
      assert.equal(0, cache:count())
      for name, changed in pairs(rows) do rows[name] = changed ~= 0 and changed or nil end
      return rows
    end
    local one = { fpcache_feed = 1, fpcache_namespaces = 1 }
    assert.same(one, written(1))
    assert.same(one, written(2000))
  end)

  it("is told: near caches and filters follow", function()
    local cache, writer = layers.open(db, { namespace_version = true }), open()
    assert(cache:set("k", 1))
    layers.warm(cache, "k")
    assert(writer:clear { at_once = true })
    assert.is_truthy(database.eventually(function() return cache:get("k") == nil end, layers.STALENESS + 1))
    assert(writer:set("k", 2))
    assert.equal(2, database.eventually(function() return (cache:get("k")) end))
    assert.equal("near", database.eventually(function() return layers.source(cache, "k") == "near" and "near" end))
    assert(cache:clear { at_once = true })
    assert.is_nil((cache:get("k")), "its own clear it knows at once")
    local late = layers.open(db) -- the option is not needed where something was cleared
    assert.is_nil((late:get("k")))
    assert.equal("filter", select(3, late:get("k")), "the filter is loaded without what was cleared")
    assert.equal(0, late:clear { at_once = true })
  end)

  it("works behind a transaction pooler", function()
    local cache, near = open { prepared = false }, layers.open(db, { namespace_version = true })
    assert(cache:set("k", 1))
    layers.warm(near, "k")
    assert(cache:clear { at_once = true })
    assert.is_nil((cache:get("k")))
    assert.is_truthy(database.eventually(function() return near:get("k") == nil end, layers.STALENESS + 1))
  end)

  it("needs the option", function()
    local cache = db:open()
    assert.equal("invalid: this cache was opened without namespace_version = true, which at_once needs",
      select(2, cache:clear { at_once = true }))
    assert.has_error(function() open():clear { at_once = true, all = true } end, "options: at_once and all exclude each other")
  end)

  it("agrees with a model in random use by two clients", function()
    local draw = draws.new(SEED)
    local clients = { open(), layers.open(db, { namespace_version = true }) }
    local spaces, model = { "", "x" }, { [""] = {}, x = {} }
    local keys = { "a", "b", "c" }
    local function size(of)
      local count = 0
      for _ in pairs(of) do count = count + 1 end
      return count
    end
    for step = 1, STEPS do
      local space, key, who = spaces[draw(2)], keys[draw(3)], draw(2)
      local one, all = clients[who]:namespace(space), model[space]
      if who == 2 then assert(one:wait_ready(10)) end -- what the other wrote is known
      local what = draw(18)
      local function is(expected, got) assert.equal(expected, got) end
      local ok, err = pcall(function()
        if what <= 3 then
          assert(one:set(key, step, { ttl = draw(2) == 1 and 60 or nil, tags = draw(2) == 1 and { "t" } or nil }))
          all[key] = step
        elseif what == 4 then
          assert(one:clear { at_once = true })
          model[space] = {}
        elseif what == 5 then assert.same(all, one:get_many(keys))
        elseif what == 6 then is(all[key] ~= nil, one:exists(key))
        elseif what == 7 then is(size(all), one:count())
        elseif what == 8 then is(all[key] == nil, one:add(key, step)) all[key] = all[key] or step
        elseif what == 9 then all[key] = (all[key] or 0) + 1 is(all[key], one:incr(key))
        elseif what == 10 then is(all[key] ~= nil, one:expire(key, 60))
        elseif what == 11 then is(all[key] ~= nil, one:delete(key)) all[key] = nil
        elseif what == 12 then is(all[key] ~= nil, one:replace(key, step)) all[key] = all[key] and step
        elseif what == 13 then
          all[key] = all[key] or step
          is(all[key], (one:fetch(key, { ttl = 60, stale_ttl = 60 }, function() return step end)))
        elseif what == 14 then assert(one:cleanup())
        elseif what == 15 then is(size(all), #one:keys())
        elseif what == 16 then
          local items = { a = step, b = -step }
          assert(one:set_many(items))
          all.a, all.b = step, -step
        else is(all[key], (one:get(key)))
        end
      end)
      if not ok then error(("seed %d, step %d, action %d: %s"):format(SEED, step, what, tostring(err)), 0) end
    end
  end)
end)

-- sweeper_spec.lua -- one pass at a time, however long it takes, and whoever dies of those who sweep.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local database = require "support.database"
local fpcache = require "fpcache"

describe("a sweeper's pass", function()
  local db, sweepers

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("UPDATE fpcache_passes SET began = '-infinity', alive = '-infinity'")
    sweepers = {}
  end)
  after_each(function()
    for _, sweeper in ipairs(sweepers) do sweeper:close() end
    db:close_all()
  end)

  -- One that offers itself whenever it is asked, and does not rest.
  local function new(opts)
    local options = { connection_string = db:url_of(), every = 0.001, duty = 0.5 }
    for name, value in pairs(opts or {}) do options[name] = value end
    local sweeper = assert(fpcache.sweeper(options))
    sweeper.sleep = function() end
    sweepers[#sweepers + 1] = sweeper
    return sweeper
  end

  -- As if so much time had gone by without a sign of life.
  local function silent_for(seconds)
    db:sql(("UPDATE fpcache_passes SET alive = alive - %d * interval '1 second'"):format(seconds))
  end

  local OVERTAKEN = "busy: the sweep was silent for so long that another one has begun; this one ends"

  it("is not overlapped by another's that is due meanwhile", function()
    for _, prepared in ipairs { true, false } do
      local a, b = new { prepared = prepared }, new { prepared = prepared }
      local met = {}
      function a.sleep() met[#met + 1] = b:pass() end
      assert.is_table(a:pass())
      assert.same({ false, false }, met, "after each of a's slices: of the table, of the tags")
      assert.is_table(b:pass())
    end
  end)

  it("is not overlapped by a slice either, even one of a pass that is taken for dead", function()
    local a = new()
    local number = db:sql("SELECT fpcache_begin_pass('0')")
    db:open():transaction(function(tx)
      assert.same({ { goes_on = true } }, tx:query("SELECT fpcache_go_on($1) AS goes_on", tonumber(number)))
      silent_for(60)
      assert.is_false(a:pass())
      return true
    end)
    silent_for(60)
    assert.is_table(a:pass())
    assert.equal("f", db:sql(("SELECT fpcache_go_on(%s)"):format(number)))
  end)

  it("that died holds the others up for a minute", function()
    local a, b = new(), new()
    function a.sleep() error("killed") end
    assert.has_error(function() a:pass() end, "killed")
    assert.is_false(b:pass())
    silent_for(55)
    assert.is_false(b:pass())
    silent_for(5)
    assert.is_table(b:pass())
  end)

  it("that was silent for longer ends where another has begun", function()
    assert(admin.quota { connection_string = db.url, max_entries = 1000 })
    local cache = db:open()
    -- Silent after the first slice of the table, of the evictions, of the tags.
    for place = 1, 3 do
      local items = {}
      for i = 1, 1010 do items["k" .. i] = i end
      assert(cache:set_many(items, { tags = "t" }))
      local a, b, other, slices = new(), new(), nil, 0
      function a.sleep()
        slices = slices + 1
        if slices ~= place then return end
        silent_for(60)
        other = db:sql("SELECT fpcache_begin_pass('0')")
      end
      local report, err = a:pass()
      if place < 3 then -- after the last there is nothing to go on with
        assert.is_nil(report)
        assert.equal(OVERTAKEN, err)
      else
        assert.is_table(report)
      end
      assert.is_false(b:pass(), "the end of the one that was overtaken is not the other's")
      db:sql(("SELECT fpcache_end_pass(%s)"):format(other))
      assert.is_table(b:pass())
      assert(cache:clear())
    end
  end)

  it("gives signs of life while it rests", function()
    local a, b, now, ago, slept = new(), new(), core.system.now, 0, {}
    finally(function() core.system.now = now end)
    function core.system.now() -- luacheck: ignore 122
      ago = ago + 90 -- so long each slice takes
      return ago
    end
    function a.sleep(seconds)
      slept[#slept + 1] = seconds
      silent_for(seconds)
      assert.is_false(b:pass())
    end
    assert.is_table(a:pass())
    assert.same({ 20, 20, 20, 20, 10, 20, 20, 20, 20, 10 }, slept)
    function a.sleep()
      silent_for(60)
      if b.slices then return end
      b.slices = true
      assert.is_table(b:pass())
    end
    assert.same({ nil, OVERTAKEN }, { a:pass() })
  end)
end)

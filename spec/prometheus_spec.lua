-- prometheus_spec.lua -- the text for Prometheus: what a scraper relies on.
local database = require "support.database"

describe("cache:prometheus", function()
  local db

  setup(function() db = database.new() end)
  before_each(function() db:sql("TRUNCATE cache") end)
  after_each(function() db:close_all() end)

  --- { series = value }, after checking that every line is of the format.
  local function scrape(cache, opts)
    local text = assert(cache:prometheus(opts))
    assert.equal("\n", text:sub(-1))
    local values, kinds, last = {}, {}, nil
    for line in text:gmatch("(.-)\n") do
      local name, kind = line:match("^# TYPE (fpcache_[%w_]+) (%a+)$")
      if name then
        assert.is_nil(kinds[name], "told twice: " .. name)
        kinds[name], last = kind, name
        assert.equal(kind == "counter", name:find("_total$") ~= nil, name)
      elseif not line:find("^# HELP ") then
        local series, labels, value = line:match("^(fpcache_[%w_]+)(%b{}) (%S+)$")
        assert.equal(last, series, line)
        values[series .. labels] = assert(tonumber(value) or (value == "+Inf" and math.huge), line)
      end
    end
    return values
  end

  it("has the numbers of stats, labelled", function()
    local cache = db:open { namespace = 'a"b\\c\nd', feed = true }
    assert(cache:wait_ready())
    assert(cache:set("k", 1))
    cache:get("k")
    cache:get("k")
    cache:get("none")
    local values = scrape(cache)
    local own = '{namespace="a\\"b\\\\c\\nd",schema="public"'
    assert.equal(1, values["fpcache_up" .. own .. "}"])
    assert.equal(2, values["fpcache_hits_total" .. own .. "}"])
    assert.equal(1, values["fpcache_misses_total" .. own .. "}"])
    assert.equal(1, values["fpcache_near_hits_total" .. own .. "}"])
    assert.equal(1, values["fpcache_filter_absent_total" .. own .. "}"])
    assert.equal(1, values["fpcache_layer_state" .. own .. ',layer="feed",state="fresh"}'])
    assert.equal(0, values["fpcache_layer_state" .. own .. ',layer="feed",state="stale"}'])
    assert.is_true(values["fpcache_server_bytes" .. own .. "}"] > 0)
  end)

  it("takes labels of the caller's and refuses those that Prometheus would", function()
    local cache = db:open()
    assert.equal(1, scrape(cache, { labels = { service = "shop", zone = 3 } })
      ['fpcache_up{namespace="",schema="public",service="shop",zone="3"}'])
    for _, labels in ipairs { { ["a-b"] = "x" }, { __name__ = "x" }, { "x" }, { a = {} } } do
      assert.has_error(function() cache:prometheus { labels = labels } end)
    end
  end)

  it("tells what is switched off, and a server that does not answer", function()
    local cache = db:open()
    local values = scrape(cache)
    assert.equal(1, values['fpcache_layer_state{namespace="",schema="public",layer="near",state="off"}'])
    assert.is_nil(values['fpcache_near_entries{namespace="",schema="public"}'])
    db:sql("REVOKE SELECT ON cache FROM public")
    db:sql("ALTER TABLE cache RENAME TO hidden")
    values = scrape(cache)
    db:sql("ALTER TABLE hidden RENAME TO cache; GRANT SELECT ON cache TO public")
    assert.equal(0, values['fpcache_up{namespace="",schema="public"}'])
    assert.is_nil(values['fpcache_server_rows{namespace="",schema="public"}'])
    cache:close()
    assert.is_nil((cache:prometheus()))
  end)
end)

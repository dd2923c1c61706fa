-- report_spec.lua -- `fpcache bench`, `fpcache report`, and the charts of their pages, in a browser too.
local bench = require "fpcache.bench"
local charts = require "fpcache.report.charts"
local codec = require "fpcache.codec"
local core = require "fpcache.core"
local database = require "support.database"
local files = require "support.files"
local interpreter = require "support.interpreter"
local report = require "fpcache.report"

--- Fails unless every tag is closed in order: SVG and our HTML are written that way.
local function assert_well_formed(html)
  local open, VOID = {}, { meta = true, link = true, ["!doctype"] = true }
  for slash, name, rest in html:gmatch("<(/?)([%w!]+)([^<>]*)>") do
    if slash == "/" then
      assert.equal(table.remove(open), name)
    elseif not VOID[name] and rest:sub(-1) ~= "/" then
      open[#open + 1] = name
    end
  end
  assert.same({}, open)
  assert.is_nil(html:find("<script", 1, true))
  assert.is_nil(html:find("[^%w](https?://)"))
  assert.is_nil(html:find("nan", 1, true))
  assert.is_nil(html:find("[%s\"]-?inf[%s\"]"))
end

describe("charts", function()
  it("draw what they are given, every text harmless", function()
    local svg = charts.lines { title = '<b>"&', series = {
      { name = "<script>", points = { { 0, 1 }, { 1, 0 / 0 }, { 2, 3 }, { 3, 4 } } }, { name = "b", points = { { 5, 100 } } } } }
    assert_well_formed(svg)
    assert.matches("&lt;script&gt;", svg, 1, true)
    assert.matches("&lt;b&gt;&quot;&amp;", svg, 1, true)
    local path = svg:match('<path d="([^"]*)" class="l1"')
    assert.equal(2, select(2, path:gsub("M", ""))) -- the gap
    assert.equal(1, select(2, path:gsub("L", "")))
    assert.matches("<circle", svg) -- one point alone
    assert.equal("a?b?", charts.escape("a\0b\27"))
  end)

  it("scale: higher values stand higher, ticks are round", function()
    local function heights(o)
      local list = {}
      for y in charts.lines(o):match('<path d="([^"]*)"'):gmatch("[ML][%d.]+ ([%d.]+)") do list[#list + 1] = tonumber(y) end
      return list
    end
    local points = { { 0, 1 }, { 1, 10 }, { 2, 100 } }
    local plain = heights { title = "t", series = { { name = "a", points = points } } }
    assert.is_true(plain[1] > plain[2] and plain[2] > plain[3])
    assert.is_true(math.abs((plain[1] - plain[2]) * 10 - (plain[2] - plain[3])) < 1)
    local log = heights { title = "t", log = true, series = { { name = "a", points = points } } }
    assert.is_true(math.abs((log[1] - log[2]) - (log[2] - log[3])) < 0.2)
    local svg = charts.lines { title = "t", y = charts.bytes,
      series = { { name = "a", points = { { 0, 0 }, { 1, 3 * 2 ^ 30 } } } } }
    assert.matches(">1000 MB<", svg, 1, true)
  end)

  it("draw bars with marks, ranges, and nothing of nothing", function()
    local svg = charts.bars { title = "t", rows = { { label = "a", value = 2, mark = 4 }, { label = "b", value = 0 / 0 } } }
    assert_well_formed(svg)
    assert.matches('class="mark"', svg)
    svg = charts.ranges { title = "t", names = { "p50", "p99" }, rows = { { label = "x", values = { 1e-6, 1e-3 } },
      { label = "y", values = {} } } }
    assert_well_formed(svg)
    assert.equal(2, select(2, svg:gsub("<circle", "")))
    assert.equal("", charts.lines { title = "t", series = {} })
    assert.equal("", charts.lines { title = "t", series = { { name = "a", points = { { 0, 0 / 0 } } } } })
    assert.equal("", charts.bars { title = "t", rows = {} })
    assert.equal("", charts.ranges { title = "t", names = {}, rows = {} })
  end)
end)

describe("fpcache bench and report", function()
  local db, fpcache

  setup(function() db = database.new() end)
  before_each(function() fpcache = interpreter.new { FPCACHE_URL = db:url_of() } end)
  after_each(function()
    fpcache:remove()
    db:close_all()
  end)

  it("measure each kind of call, and leave nothing", function()
    local result = assert(bench.run { connection = { connection_string = db:url_of() }, seconds = 0.15, keys = 200,
      value_bytes = 1000 })
    assert.equal("fpcache-bench", result.kind)
    local by_name = {}
    for _, kind in ipairs(result.kinds) do
      by_name[kind.name] = kind
      local l = kind.latency
      assert.is_true(kind.calls > 0 and kind.per_second > 0)
      assert.is_true(l.p50 > 0 and l.p50 <= l.p95 and l.p95 <= l.p99 and l.p99 <= l.p999 and l.p999 <= l.max)
    end
    for _, name in ipairs { "ping", "get", "miss", "set", "get_many", "set_many", "near", "absent", "parallel" } do
      assert.is_truthy(by_name[name], name)
    end
    assert.is_true(by_name.near.latency.p50 * 5 < by_name.get.latency.p50)
    assert.is_true(by_name.absent.latency.p50 * 5 < by_name.miss.latency.p50)
    assert.equal("0", db:sql("SELECT count(*) FROM cache"))
    local none, err = bench.run { connection = { connection_string = "host=/nowhere" } }
    assert.is_nil(none)
    assert.matches("^connect: ", err)
    assert.has_error(function() bench.run { keys = 3 } end)
  end)

  it("write a page of it at once", function()
    local answer = fpcache { "bench", "--seconds", "0.05", "--html", "bench.html" }
    assert.equal(0, answer.code, answer.err)
    assert.matches("^CALL +RATE +MEDIAN", answer.out)
    assert_well_formed(assert(files.read(fpcache.dir .. "/bench.html")))
    assert.equal(2, fpcache { "report", "x" }.code)
    answer = fpcache { "bench", "--keys", "1" }
    assert.equal(1, answer.code)
    assert.matches("^fpcache: invalid: keys: must be at least 200", answer.err)
    answer = fpcache { "bench", "--seconds", "0.02", "--html", "/nowhere/x.html" }
    assert.equal(1, answer.code)
    assert.matches("cannot write", answer.err)
  end)

  --- Everything that a report takes, as files.
  local function sources()
    fpcache:file("bench.json", fpcache { "bench", "--seconds", "0.05", "--json" }.out)
    local pub = fpcache.dir .. "/pub"
    local cache = db:open { publish = { dir = pub, every = 0.0001 }, feed = true }
    local job = fpcache:start { "top", "--json", "--count", "4", "--every", "0.2", "--from", pub }
    repeat
      for i = 1, 50 do cache:set("k" .. i % 20, i) cache:get("k" .. i % 25) end
    until select(2, job:output():gsub("\n", "")) >= 4
    assert.equal(0, job:wait())
    fpcache:file("top.json", job:output())
    fpcache:file("t.csv", "1,a,10\n2,a,10\n3,b,10\n4,a,10\n")
    fpcache:file("replay.json", fpcache { "replay", "t.csv", "--near-entries", "0,10", "--json" }.out)
    fpcache:file("kv.json", codec.json.encode { rounds = 3, sections = { { name = "single get", unit = "gets/s",
      sides = { ["fpcache lua5.4"] = { median = 9, min = 8, max = 10 }, pgbench = { median = 10, min = 9, max = 11 } },
      bars = { { runtime = "lua5.4", peer = "pgbench <b>", ratio = 0.95, bar = 0.9, reached = true },
        { runtime = "luajit", peer = "pgbench", ratio = 0.85, bar = 0.9, reached = false } } } } })
  end

  it("show everything on one page that a browser has nothing to say about, light and dark", function()
    sources()
    local answer = fpcache { "report", "top.json", "bench.json", "replay.json", "kv.json", "--html", "page.html",
      "--title", "<Shop>" }
    assert.equal(0, answer.code, answer.err)
    local html = assert(files.read(fpcache.dir .. "/page.html"))
    assert_well_formed(html)
    for _, words in ipairs { "<title>&lt;Shop&gt;</title>", "Hit ratio over time", "Latency", "Throughput", "Load saved",
      "Against peers: single get", "pgbench &lt;b&gt;", "below the bar", "Calls, measured" } do
      assert.matches(words, html, 1, true)
    end

    local function shoot(page, scheme, picture)
      local result = assert(core.run {
        argv = { "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
          "--blink-settings=preferredColorScheme=" .. scheme, "--window-size=1000,3000",
          "--user-data-dir=" .. fpcache.dir .. "/chromium",
          "--screenshot=" .. fpcache.dir .. "/" .. picture, "file://" .. fpcache.dir .. "/" .. page },
        env = { "HOME=" .. fpcache.dir, "PATH=" .. os.getenv("PATH"), "LC_ALL=C.UTF-8" }, clear_env = true, timeout = 120,
        max_output = 1024 * 1024 })
      assert.equal(0, result.status, result.output)
      return result.output:find("CONSOLE", 1, true) ~= nil
    end
    assert.is_false(shoot("page.html", 1, "light.png"))
    assert.is_false(shoot("page.html", 0, "dark.png"))
    local light, dark = assert(files.read(fpcache.dir .. "/light.png")), assert(files.read(fpcache.dir .. "/dark.png"))
    assert.is_true(#light > 50000 and #dark > 50000)
    assert.is_true(light ~= dark)
    -- We would see it if there were something: a script, which the page's own rules forbid.
    fpcache:file("broken.html", (html:gsub("</main>", "<script>1</script></main>")))
    assert.is_true(shoot("broken.html", 1, "broken.png"))
  end)

  it("refuse what is no source", function()
    for name, case in pairs { nothing = { "", "is empty" }, words = { "hello", "is no JSON" },
      other = { '{"kind":"x"}', "holds nothing" }, number = { "5", "holds nothing" },
      torn = { '{"kind":"fpcache-bench"', "is no JSON" } } do
      fpcache:file(name, case[1])
      local answer = fpcache { "report", name, "--html", "page.html" }
      assert.equal(1, answer.code, name)
      assert.matches("^fpcache: invalid: .*" .. case[2], answer.err)
    end
    assert.equal(1, fpcache { "report", "absent.json", "--html", "page.html" }.code)
    assert.is_nil(core.system.stat(fpcache.dir .. "/page.html"))
    local none, err = report.read { "/nowhere" }
    assert.is_nil(none)
    assert.matches("cannot read", err)
  end)
end)

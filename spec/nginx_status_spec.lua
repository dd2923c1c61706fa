-- nginx_status_spec.lua -- the status page of a real nginx in a real browser, its JSON, and what Prometheus scrapes.
local core = require "fpcache.core"
local database = require "support.database"
local interpreter = require "support.interpreter"
local nginx = require "support.nginx"

if not nginx.is_testable then return end

local SERVER = [[
  location / { content_by_lua_block { require("fpcache.nginx").response():serve() } }
  location = /origin { internal; content_by_lua_block {
    ngx.header["Cache-Control"] = "max-age=60"
    ngx.print("made ", ngx.now())
  } }
  location = /status { content_by_lua_block { require("fpcache.nginx").status():serve() } }
  # The page in frames of several widths, and what is wrong with each: for the spec of its layout.
  location = /framed { content_by_lua_block {
    if ngx.var.arg_format then return require("fpcache.nginx").status():serve() end
    ngx.header["Content-Type"] = "text/html"
    ngx.print(require("fpcache.nginx.status_page"))
  } }
  location = /frames { content_by_lua_block { ngx.header["Content-Type"] = "text/html" ngx.print(package.loaded.frames) } }
  location = /metrics { content_by_lua_block { require("fpcache.nginx").status():serve("prometheus") } }
]]

-- Texts that lie upon each other, and what is wider than its frame.
local FRAMES = [==[<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><p id="found">nothing yet</p><script>
"use strict";
const frames = [320, 390, 768, 1180].map(width => {
  const frame = document.createElement("iframe");
  frame.src = "/framed"; frame.width = width; frame.height = 3000;
  document.body.append(frame);
  return frame;
});
function troubles(frame) {
  const page = frame.contentDocument, found = [], texts = [];
  const name = element => element.textContent.trim().slice(0, 20);
  if (page.documentElement.scrollWidth > frame.width) found.push("the page is " + page.documentElement.scrollWidth + " wide");
  for (const one of page.querySelectorAll("h1, h2, .soft, .value, .legend > span, td, th, svg text")) {
    if (one.getBoundingClientRect().width === 0) continue;
    const range = page.createRange();
    range.selectNodeContents(one);
    texts.push([one, range.getBoundingClientRect()]);
    if (!one.closest(".scroll") && range.getBoundingClientRect().right > frame.width) found.push("cut off: " + name(one));
  }
  for (let i = 0; i < texts.length; i++)
    for (let j = i + 1; j < texts.length; j++) {
      const [a, p] = texts[i], [b, q] = texts[j];
      const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (wide > 1 && high > 1 && !a.contains(b) && !b.contains(a)) found.push(name(a) + " upon " + name(b));
    }
  const drawing = page.querySelectorAll("svg")[3], legend = drawing.nextSibling.textContent;
  const box = drawing.getBoundingClientRect();
  drawing.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width / 2, clientY: box.top + 5 }));
  if (!drawing.querySelector('line[opacity="1"]')) found.push("the pointer shows nothing");
  drawing.dispatchEvent(new PointerEvent("pointerleave"));
  if (drawing.querySelector('line[opacity="1"]') || drawing.nextSibling.textContent !== legend) found.push("the pointer stays");
  return frame.width + ": " + texts.length + " texts" + found.map(one => "; " + one).join("");
}
const isReady = frame => frame.contentDocument && frame.contentDocument.querySelectorAll("svg").length === 4;
(function look() {
  if (!frames.every(isReady)) return setTimeout(look, 50);
  document.getElementById("found").textContent = frames.map(troubles).join(" | ");
})();
</script>]==]

describe("the status of nginx", function()
  local db, server

  local function start(opts)
    opts.cache = { connection_string = db:url_of(), feed_interval = 0.02 }
    opts.server = SERVER
    return nginx.start(opts)
  end

  local function json(from) return assert(core.json_decode(from:body("/status?format=json"))) end

  setup(function()
    db = database.new()
    server = start {
      workers = 2, http = "lua_shared_dict fpcache_status 1m;",
      init_worker = [[
        require("fpcache.nginx").cache_response { location = "/origin" }
        require("fpcache.nginx").keep_status { dict = "fpcache_status", interval = 0.2 }
        package.loaded.frames = ]] .. ("%q"):format(FRAMES),
    }
    for i = 1, 40 do server:body("/page" .. i % 8) end
  end)

  teardown(function()
    assert.is_true(server:stop())
    db:close_all()
  end)

  --- The JSON once all 40 requests and some samples are in it.
  local function settled()
    local data
    assert.is_truthy(database.eventually(function()
      data = json(server)
      local outcomes = data.total.outcomes
      return outcomes.HIT and outcomes.HIT + outcomes.MISS == 40 and #data.workers == 2 and #data.history > 3
    end))
    return data
  end

  it("adds up the numbers of all workers, whichever answers", function()
    local data = settled()
    assert.same({ "all", 2, 8, 32 }, { data.scope, data.total.workers, data.total.outcomes.MISS, data.total.outcomes.HIT })
    assert.equal(40, data.total.latency.count)
    assert.equal(8, data.total.upstream.count)
    local sum = 0
    for _, count in ipairs(data.total.latency.counts) do sum = sum + count end
    assert.equal(40, sum)
    local pids = {}
    for _, worker in ipairs(data.workers) do pids[worker.pid] = true end
    for _, pid in ipairs(server:workers()) do assert.is_true(pids[pid]) end
    assert.is_true(data.total.bytes > 0)
    for i = 2, #data.history do assert.is_true(data.history[i].time > data.history[i - 1].time) end
  end)

  it("is shown by fpcache top, from the page, its JSON and the text for Prometheus", function()
    settled()
    local tool = interpreter.new { FPCACHE_URL = db:url_of() }
    local base = "http://127.0.0.1:" .. server.port
    for path, pid in pairs { ["/status"] = "^%d+$", ["/status?format=json&token=secret"] = "^%d+$",
      ["/metrics"] = "^worker [01]$" } do
      local seen
      assert.is_truthy(database.eventually(function() -- each worker has noted its share
        local answer = tool { "top", "--json", "--count", "1", "--every", "0.2", "--from", base .. path }
        assert.equal(0, answer.code, answer.err)
        seen = assert(core.json_decode(answer.out))
        return #seen.processes == 2
      end))
      assert.is_nil(seen.publish_error)
      for _, one in ipairs(seen.processes) do
        assert.matches(pid, tostring(one.pid))
        assert.equal("127.0.0.1:" .. server.port, one.host)
        assert.equal("fresh", one.feed)
        assert.is_true(one.lent + one.idle >= 0 and one.near_bytes >= 0)
      end
    end
    local answer = tool { "top", "--once", "--every", "0.2", "--from", base .. "/metrics", "--from",
      "http://127.0.0.1:1/none?password=secret" }
    assert.matches("\nprocess  connect: 127.0.0.1:1/none: ", answer.out)
    assert.matches("\nPROCESS +NAMESPACE ", answer.out)
    assert.is_nil(answer.out:find("secret", 1, true))
    tool:remove()
  end)

  it("is scraped by Prometheus: each family once, each series once, with its worker", function()
    settled()
    local kinds, series, answered = {}, {}, 0
    for line in server:body("/metrics"):gmatch("[^\n]+") do
      local name, kind = line:match("^# TYPE (%S+) (%a+)$")
      if name then
        assert.is_nil(kinds[name], line)
        kinds[name] = kind
      elseif not line:find("^# HELP ") then
        local family, labels, value = line:match("^(fpcache_[%w_]+)(%b{}) (%S+)$")
        assert.is_truthy(tonumber(value) or value == "+Inf", line)
        assert.is_truthy(kinds[family] or kinds[family:gsub("_%a+$", "")], line)
        assert.is_nil(series[family .. labels], line)
        series[family .. labels] = tonumber(value)
        if family == "fpcache_responses_total" then answered = answered + tonumber(value) end
      end
    end
    assert.equal("histogram", kinds.fpcache_response_seconds)
    assert.equal("counter", kinds.fpcache_hits_total)
    assert.equal(2, series["fpcache_workers{}"])
    assert.equal(40, answered)
  end)

  it("refuses formats that it does not have", function()
    assert.equal(400, server:get("/status?format=xml").status)
  end)

  --- What a browser made of the page: its text after a while, and its console.
  local function browse(target, more)
    local profile = assert(core.system.mkdtemp("/tmp/fpcache-spec-chromium-"))
    local argv = {
      "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
      "--disable-background-networking", "--user-data-dir=" .. profile, "--enable-logging=stderr", "--virtual-time-budget=4000",
    }
    for _, one in ipairs(more) do argv[#argv + 1] = one end
    argv[#argv + 1] = ("http://127.0.0.1:%d%s"):format(server.port, target)
    local result = assert(core.run {
      argv = argv, env = { "PATH=" .. os.getenv("PATH"), "HOME=" .. profile }, timeout = 90, max_output = 16 * 1024 * 1024,
    })
    core.system.remove_tree(profile)
    assert.equal(0, result.status, result.output:sub(-2000))
    local console = {}
    for line in result.output:gmatch("[^\n]+") do
      if line:find("CONSOLE", 1, true) then console[#console + 1] = line end
    end
    return result.output, console
  end

  it("shows them in a browser, from one file, without an error", function()
    settled()
    local page = server:get("/status")
    assert.equal("text/html; charset=utf-8", page.headers["content-type"])
    assert.matches("default-src 'none'", page.headers["content-security-policy"], 1, true)
    for _, outside in ipairs { "https?://[^w]", "<script src", "<link rel=\"stylesheet", "@import", "url%(" } do
      assert.not_matches(outside, (page.body:gsub("http://www%.w3%.org/2000/svg", "")))
    end
    local text, console = browse("/status", { "--dump-dom" })
    assert.same({}, console)
    assert.matches('<span id="state" role="status"></span>', text, 1, true) -- nothing to complain of
    assert.matches("2 workers", text, 1, true)
    assert.matches("80.0 %", text, 1, true)   -- 32 of 40 from the cache
    assert.matches("40 requests", text, 1, true)
    local charts, lines = 0, 0
    for _ in text:gmatch("<svg ") do charts = charts + 1 end
    for _ in text:gmatch("<path d=\"M[^\"]+L") do lines = lines + 1 end
    assert.equal(4, charts)
    assert.is_true(lines >= 5, lines .. " lines") -- statement, load and size have a value in each sample
    for _, pid in ipairs(server:workers()) do assert.matches(("<td>%d</td>"):format(pid), text, 1, true) end
  end)

  it("fits into windows of any width, and no text lies upon another", function()
    settled()
    local text, console = browse("/frames", { "--dump-dom" })
    assert.same({}, console)
    local found = text:match('<p id="found">(.-)</p>')
    assert.matches("^320: %d%d+ texts | 390: %d%d+ texts | 768: %d%d+ texts | 1180: %d%d+ texts$", found)
  end)

  it("draws in light and in dark", function()
    settled()
    local kept = os.getenv("FPC_SCREENSHOTS")
    local dir = kept or assert(core.system.mkdtemp("/tmp/fpcache-spec-shots-"))
    for _, scheme in ipairs { "light", "dark" } do
      local file = ("%s/fpcache-status-%s.png"):format(dir, scheme)
      local _, console = browse("/status", { "--screenshot=" .. file, "--window-size=1180,1100",
        "--blink-settings=preferredColorScheme=" .. (scheme == "dark" and "0" or "1") })
      assert.same({}, console)
      assert.is_true(assert(core.system.stat(file)).size > 20000)
    end
    if not kept then assert(core.system.remove_tree(dir)) end
  end)

  it("is of one worker alone without a dict, and says so", function()
    local alone = start { init_worker = [[require("fpcache.nginx").cache_response { location = "/origin" }]] }
    alone:body("/x")
    alone:body("/x")
    local data = json(alone)
    assert.same({ "worker", 1, 1, 1 }, { data.scope, #data.workers, data.total.outcomes.MISS, data.total.outcomes.HIT })
    assert.same({}, data.history)
    local hits = "fpcache_responses_total{outcome=\"hit\",responses=\"default\",worker=\"0\"} 1"
    assert.matches(hits, alone:body("/metrics"), 1, true)
    assert.is_true(alone:stop())
  end)

  it("names a dict that nginx.conf does not have", function()
    local wrong = start { init_worker = [[
      require("fpcache.nginx").cache_response { location = "/origin" }
      local _, err = pcall(require("fpcache.nginx").keep_status, { dict = "nowhere" })
      ngx.log(ngx.NOTICE, "refused: ", err)
    ]] }
    assert.matches("refused: .*nginx.conf has no lua_shared_dict nowhere", wrong:log())
    assert.is_true(wrong:stop())
  end)

  it("goes on while the database is down, and says that it does not answer", function()
    local own = require("support.server").new()
    local url = own:fresh_database()
    assert(require("fpcache.admin").setup { connection_string = url })
    local down = nginx.start {
      cache = { connection_string = url, feed = false, timeout = 0.5 }, server = SERVER,
      http = "lua_shared_dict fpcache_status 1m;",
      init_worker = [[
        require("fpcache.nginx").cache_response { location = "/origin" }
        require("fpcache.nginx").keep_status { dict = "fpcache_status", interval = 0.1 }
      ]],
    }
    local function has_error()
      local worker = json(down).workers[1]
      return worker and worker.caches.default.server_error ~= nil
    end
    assert.is_truthy(database.eventually(function() return json(down).workers[1] and not has_error() end))
    own:stop("immediate")
    assert.is_truthy(database.eventually(has_error))
    assert.matches("fpcache_up{.-} 0", down:body("/metrics"))
    own:start()
    assert.is_truthy(database.eventually(function() return json(down).workers[1] and not has_error() end))
    assert.is_true(down:stop())
    own:destroy()
  end)
end)

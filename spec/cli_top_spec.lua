-- cli_top_spec.lua -- `fpcache top`, `slowlog` and `monitor`: what an operator keeps open.
local codec = require "fpcache.codec"
local core = require "fpcache.core"
local database = require "support.database"
local interpreter = require "support.interpreter"
local server = require "support.server"
local terminal = require "support.terminal"

describe("fpcache", function()
  local db, fpcache, dir

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    fpcache = interpreter.new { FPCACHE_URL = db:url_of() }
    dir = fpcache.dir .. "/published"
  end)
  after_each(function()
    db:close_all()
    fpcache:remove()
  end)

  --- A cache that publishes at every call, with something in it.
  local function publishing(opts)
    local options = { publish = { dir = dir, every = 0.0001 }, slow_log = 0 }
    for name, value in pairs(opts or {}) do options[name] = value end
    local cache = db:open(options)
    for i = 1, 40 do assert(cache:set("k" .. i, ("v"):rep(100), 60)) end
    for i = 1, 80 do cache:get("k" .. i) end
    core.system.sleep(0.11) -- the layers are looked at each 0.1 s
    cache:get("k1")
    return cache
  end

  describe("top", function()
    it("tells scripts once, as text and as JSON", function()
      local cache = publishing { namespace = "shop" }
      db:sql("ANALYZE cache")
      local answer = fpcache { "top", "--once", "--every", "0.2", "--from", dir }
      assert.equal(0, answer.code, answer.err)
      assert.matches("app@" .. db.name, answer.out, 1, true)
      assert.matches("\ntable    40 rows, ", answer.out, 1, true)
      assert.matches("\nNAMESPACE +ENTRIES +SIZE\nshop +~40 +~%d", answer.out)
      assert.matches("hits 50.6 %", answer.out, 1, true)
      assert.is_nil(answer.out:find("\27", 1, true))
      answer = fpcache { "top", "--json", "--count", "2", "--every", "0.2", "--from", dir }
      local looks = {}
      for line in answer.out:gmatch("[^\n]+") do looks[#looks + 1] = assert(codec.json.decode(line)) end
      assert.equal(2, #looks)
      local look = looks[2]
      assert.equal("fpcache-top", look.kind)
      assert.equal(40, look.server.rows)
      assert.equal(81, look.processes[1].reads)
      assert.equal(core.system.pid(), look.processes[1].pid)
      assert.is_true(look.together.p99 >= look.together.p50)
      assert.is_number(look.rates.lookups)
      cache:close()
      assert.matches("none has published", fpcache { "top", "--once", "--every", "0.1", "--from", dir }.out)
    end)

    it("reads what applications tell by HTTP, and says what it cannot read", function()
      local scraped = require "fpcache.top.scraped"
      local ws = require("support.workspace").start()
      local function serve(path, body, type)
        ws:fault { path = "^GET " .. path .. "$", times = 1000, status = 200, body = body,
          headers = type and { ["Content-Type"] = type } or nil }
        return ws.plain_url .. path
      end
      local cache = publishing { namespace = 'a"b\\c', feed = true }
      assert(cache:wait_ready(20))
      local reads = cache:stats().hits
      local urls = { serve("/p", cache:prometheus { labels = { worker = "7" } }), serve("/empty", ""), serve("/other", "{}"),
        serve("/broken", "{"), serve("/odd", '{"workers":[1,{"caches":7},{"caches":{"x":1}}]}'),
        serve("/list", '[{"kind":"fpcache-process","at":1,"pid":5,"stats":{"hits":3,"misses":1}},7]') }
      local list = assert(scraped.read { urls[1] })
      assert.same({ "worker 7", 'a"b\\c', reads }, { list[1].pid, list[1].namespace, list[1].stats.hits })
      assert.equal(cache:stats().near.hits, list[1].stats.near.hits)
      assert.equal("fresh", list[1].stats.feed.state)
      for i, words in pairs { [2] = "/empty tells nothing of fpcache", [3] = "/other is JSON of something else",
        [4] = "/broken " } do
        local none, err = scraped.read { urls[i] }
        assert.same({}, none)
        assert.matches("^invalid: .*" .. words, err)
      end
      assert.same({}, (scraped.read { urls[5] }))
      list = assert(scraped.read { urls[2], urls[6], "http://127.0.0.1:1/closed" })
      assert.equal(3, list[1].stats.hits)
      local answer = fpcache { "slowlog", "--from", urls[4] }
      assert.equal(1, answer.code)
      assert.matches("/broken", answer.err)
      ws:stop()
    end)

    it("counts what happens between two looks", function()
      local cache = db:open()
      local sample = require "fpcache.top.sample"
      local options, connection = require "fpcache.options", require "fpcache.connection"
      local sampler = assert(sample.open(options.read(connection.OPTIONS, { connection_string = db:url_of() }, 1), {}))
      local before = sampler:look()
      for i = 1, 100 do assert(cache:set("n" .. i, 1)) end
      local seen
      assert(database.eventually(function() -- the server's statistics come a second later, with what is written then
        assert(cache:set("n", 1))
        seen = sample.between(sampler:look(), before)
        return seen.rates.inserts > 1
      end))
      sampler:close()
    end)

    it("redraws the whole terminal, fits it, and gives it back", function()
      publishing()
      local t = terminal.start({ "/bin/sh", "-c", '"$0" top --every 0.2 --from "$1"; echo "code $?"; stty -a | tr " ;" "\\n"',
        interpreter.path, dir }, { FPCACHE_URL = db:url_of(), HOME = fpcache.dir })
      t:sees("fpcache top  ")
      t:sees("CALLS/S")
      assert.is_true(t:is_full_screen())
      local first = t:screen():match("fpcache top  (%S+)")
      assert.is_truthy(database.eventually(function() return t:screen():match("fpcache top  (%S+)") ~= first end))
      t:resize(60, 5)
      assert.is_truthy(database.eventually(function()
        local screen = t:screen():gsub("\n+$", "")
        local _, ends = screen:gsub("\n", "")
        return ends <= 4 and screen:find("table    ", 1, true) and not screen:find("CALLS/S", 1, true)
      end))
      t:resize(160, 40)
      t:sees("CALLS/S")
      t:type("xq") -- two keys, though they come together
      local screen = t:sees("code 0")
      assert.is_false(t:is_full_screen())
      assert.is_nil(screen:find("CALLS/S", 1, true))
      t:sees("\necho\n")
      t:sees("\nicanon\n")
      t:stop()
    end)

    it("gives the terminal back when it is interrupted or ended", function()
      for _, signal in ipairs { "INT", "TERM" } do
        local t = terminal.start({ interpreter.path, "top" }, { FPCACHE_URL = db:url_of(), HOME = fpcache.dir })
        t:sees("table    ")
        if signal == "INT" then
          t:key("C-c")
        else
          local pid = core.run { argv = { "/bin/sh", "-c", 'cat /proc/$0/task/$0/children', ("%d"):format(t:pid()) } }.output
          assert(core.system.kill(tonumber(pid:match("%d+")), 15))
        end
        assert.equal(signal == "INT" and 130 or 143, t:code())
        assert.is_false(t:is_full_screen())
        t:stop()
      end
    end)

    it("goes on while the server is away", function()
      local other = database.new()
      local t = terminal.start({ interpreter.path, "top", "--every", "0.2" },
        { FPCACHE_URL = other:url_of(), HOME = fpcache.dir })
      t:sees("table    ")
      other:sql("ALTER TABLE fpcache_entries RENAME TO hidden")
      t:sees("server   schema: there is no cache in schema public")
      other:sql("ALTER TABLE hidden RENAME TO fpcache_entries")
      t:sees("table    ")
      t:key("q")
      assert.equal(0, t:code())
      t:stop()
    end)

    it("says what is wrong", function()
      assert.equal(2, fpcache { "top" }.code) -- no terminal
      local answer = fpcache { "top", "--once", "--url", "host=/nowhere" }
      assert.equal(1, answer.code)
      assert.matches("^fpcache: connect: ", answer.err)
      assert.equal(2, fpcache { "top", "--once", "--every", "0" }.code)
      answer = fpcache { "top", "--once", "--every", "0.1", "--schema", "empty" }
      assert.equal(1, answer.code)
      assert.matches("there is no cache in schema empty", answer.err)
      answer = fpcache { "top", "--once", "--every", "0.1", "--from", "/nowhere" }
      assert.equal(0, answer.code) -- the server was seen
      assert.matches("process  invalid: ", answer.out)
    end)

    it("passes over what is no publication", function()
      publishing()
      for name, text in pairs { ["a.json"] = "{", ["b.json"] = "[]", ["c.json"] = '{"kind":"fpcache-process"}', ["d.txt"] = "x",
        ["e.json"] = '{"kind":"fpcache-process","at":1,"stats":{}}',
        ["f.json"] = ('{"kind":"fpcache-process","at":%.0f,"pid":"x","host":"a\\u001b[2Jb","stats":{"hits":"many","events":{}}}')
          :format(core.system.wall() - 1),
        ["g.json"] = ('{"kind":"fpcache-process","at":%.0f,"pid":999999999,"host":"%s","stats":{}}'):format(
          core.system.wall() - 1, core.system.hostname()) } do
        local file = assert(io.open(dir .. "/" .. name, "w"))
        file:write(text)
        file:close()
      end
      local answer = fpcache { "top", "--once", "--every", "0.1", "--from", dir }
      assert.equal(0, answer.code, answer.err)
      assert.matches("\na?[2Jb x ", answer.out, 1, true) -- no control characters reach the terminal
      assert.is_nil(answer.out:find("\27", 1, true))
      assert.is_nil(answer.out:find("999999999", 1, true)) -- that process is gone
    end)
  end)

  describe("slowlog", function()
    it("shows the slow calls that were published, the newest first", function()
      publishing()
      local answer = fpcache { "slowlog", "--from", dir, "--limit", "3" }
      assert.equal(0, answer.code, answer.err)
      assert.matches("^WHEN +TOOK +CALL +OUTCOME +PROCESS +KEY\n%d+:%d+:%d+ +%S+ %S+ +get +%a+ db +%S+ %d+ +k1\n", answer.out)
      local list = assert(codec.json.decode(fpcache { "slowlog", "--from", dir, "--json" }.out))
      assert.equal(25, #list)
      assert.is_true(list[1].at >= list[25].at)
    end)

    it("shows the server's slow statements where they are counted, and says where not", function()
      local answer = fpcache { "slowlog" }
      assert.equal(1, answer.code)
      assert.matches("^fpcache: invalid: this database has no pg_stat_statements", answer.err)
      local srv = server.new { shared_preload_libraries = "'pg_stat_statements'" }
      local url = srv:fresh_database()
      srv:sql("CREATE SCHEMA ext; CREATE EXTENSION pg_stat_statements SCHEMA ext", url)
      assert(require("fpcache.admin").setup { connection_string = url })
      for _, key in ipairs { "a", "b" } do fpcache { "set", key, "1", "--url", url } end
      answer = fpcache { "slowlog", "--url", url, "--json" }
      srv:destroy()
      assert.equal(0, answer.code, answer.err)
      local calls
      for _, one in ipairs(assert(codec.json.decode(answer.out))) do
        assert.is_true(one.mean_s > 0 and one.max_s >= one.mean_s)
        if one.text:find("INSERT INTO \"?public\"?%.fpcache_entries") and one.login == "fpcache" then calls = one.calls end
      end
      assert.equal(2, calls, answer.out)
    end)
  end)

  describe("monitor", function()
    it("shows what anybody changes, as it comes", function()
      local job = fpcache:start { "monitor", "--for", "300", "--json" }
      local cache = db:open { namespace = "shop" }
      local function seen(test)
        return database.eventually(function()
          for line in job:output():gmatch("[^\n]+") do
            local event = codec.json.decode(line)
            if event and test(event) then return event end
          end
        end)
      end
      assert(database.eventually(function() -- until it looks
        cache:set("first", 1)
        return job:output():find("first", 1, true)
      end))
      assert(cache:set("k", "12345", 60))
      local event = assert(seen(function(e) return e.key == "k" and e.what == "set" end))
      assert.equal("shop", event.namespace)
      assert.equal("app", event.login)
      assert.equal(5, event.bytes)
      assert.is_true(event.ttl > 50)
      assert(cache:delete("k"))
      assert(seen(function(e) return e.key == "k" and e.what == "deleted" end))
      db:sql("INSERT INTO cache (user_id, namespace, key, value) VALUES ('app', '', 'by psql', 'x')")
      assert(seen(function(e) return e.key == "by psql" and e.what == "set" end))
      assert(cache:set_many { a = 1, b = 2 })
      assert(seen(function(e) return e.key == "a" end))
      assert(seen(function(e) return e.key == "b" end))
      assert(cache:clear())
      assert(seen(function(e) return e.what == "clear" and e.namespace == "shop" end))
      db:sql("TRUNCATE cache")
      assert(seen(function(e) return e.what == "emptied" end))
      assert.equal(130, job:kill(2))
    end)

    it("shows one namespace or user, for people too, and nobody else's entries", function()
      local job = fpcache:start { "monitor", "--for", "300", "--namespace", "shop" }
      local cache, shop = db:open(), db:open { namespace = "shop" }
      local other = db:open { as = "other", namespace = "shop" }
      assert(database.eventually(function()
        other:set("others", 1)
        cache:set("elsewhere", 1)
        shop:set("a\27b", "xyz", 60)
        return job:output():find("app  set  [shop]  a?b  3 bytes, ttl 60 s", 1, true)
      end))
      assert.is_nil(job:output():find("elsewhere", 1, true))
      assert.is_nil(job:output():find("others", 1, true))
      assert.matches("reads cannot be seen", job:output())
      job:kill(15)
      assert.equal(1, fpcache { "monitor", "--url", "host=/nowhere" }.code)
    end)
  end)
end)

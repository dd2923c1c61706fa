-- shell_spec.lua -- the prompt, on a real terminal.
local core = require "fpcache.core"
local database = require "support.database"
local interpreter = require "support.interpreter"
local terminal = require "support.terminal"

describe("the shell", function()
  local db, home, shell

  setup(function()
    db = database.new()
    home = assert(core.system.mkdtemp("/tmp/fpcache-shell-"))
  end)
  teardown(function() assert(core.system.remove_tree(home)) end)
  before_each(function()
    db:sql("TRUNCATE cache")
    shell = terminal.start({ interpreter.path }, { FPCACHE_URL = db:url_of(), HOME = home })
    shell:sees("fpcache>")
  end)
  after_each(function()
    shell:stop()
    db:close_all()
  end)

  it("shows what a line gives, tables readably, and how long it took", function()
    shell:type('cache:set("user:1", { name = "Alice", tags = { 1, 2 }, ["odd key"] = fpcache.null })\n')
    shell:sees("true")
    shell:type('cache:get("user:1")\n')
    local screen = shell:sees('{ name = "Alice", ["odd key"] = fpcache.null, tags = { 1, 2 } }\n"db"\n-- ')
    assert.matches("\n%-%- %d+%.%d%d ms\n", screen)
    shell:type('"\\0 ü \\200"\n')
    shell:sees('"\\x00 \\xc3\\xbc \\xc8"')
    shell:type("x = 5\n#_, x\n") -- _ is the last value
    shell:sees("\n6\n5\n")
    shell:type('cache:get("user:1", 5)\n')
    shell:sees("options: a table is expected, got number")
    shell:type("return\n")
    shell:type("for i = 1, 200 do t = t or {} t[i] = i end\nt\n")
    shell:sees("… 100 more")
  end)

  it("shows what is large, goes round or is wide", function()
    shell:type("a = { name = 'round' } a.a = a return a\n")
    shell:sees('{ a = (this table again), name = "round" }')
    shell:type("b = {} for _ = 1, 6 do local c = {} for i = 1, 100 do c[i] = b end b = c end\n")
    shell:type("b\n")
    shell:sees("… 99 more")
    shell:type("c = {} for i = 1, 30000 do c['k' .. i] = i end return c\n")
    shell:sees("… 29900 more")
    shell:type("'wide: 日本語 é 🎉'\n")
    shell:sees('"wide: 日本語 é 🎉"\n')
  end)

  it("takes several lines, and gives up an unfinished one at an empty line", function()
    shell:type("for i = 1, 2 do\n")
    shell:sees("      >>")
    shell:type('print("number", i)\nend\n')
    shell:sees("number  1")
    shell:sees("number  2")
    shell:type("1 +\n2\n")
    shell:sees("\n3\n")
    shell:type("do\n\n")
    shell:sees("unfinished")
    shell:type("x x\n")
    shell:sees("(shell):1: syntax error near 'x'")
  end)

  it("completes globals, methods and the keys of the cache", function()
    assert(db:open():set_many { ["product:1"] = 1, ["product:2"] = 2, ["it's"] = 3 })
    shell:type("cac")
    shell:key("Tab")
    shell:type(":get_ma")
    shell:key("Tab")
    shell:sees("cache:get_many(")
    shell:type('"pro')
    shell:key("Tab")
    shell:sees('cache:get_many("product:')
    shell:key("Tab")
    shell:sees('product:1"  product:2"')
    shell:key("C-c")
    shell:sees("^C")
    shell:type("cache.nothing.at.all")
    shell:key("Tab")
    shell:key("C-c")
    shell:type("fpcache.Cuc")
    shell:key("Tab")
    shell:sees("fpcache.CuckooFilter")
  end)

  it("is not left by Ctrl-C, which ends the call that runs", function()
    shell:type("cache:transaction(function(tx) tx:set('half', 1) return tx:query('SELECT pg_sleep(60)') end)\n")
    assert.is_truthy(database.eventually(function()
      return db:sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") ~= "0"
    end))
    shell:key("C-c")
    shell:sees("interrupted")
    shell:type('cache:exists("half")\n')
    shell:sees("false")
    local count = 0
    --- Ends what is typed by Ctrl-C once it runs: before that, the key would be for the line.
    local function interrupt(loop)
      count = count + 1
      shell:type(('print("goes" .. %d) %s\n'):format(count, loop))
      shell:sees(("goes%d\n"):format(count))
      shell:key("C-c")
    end
    interrupt "while true do end"
    shell:type('"still " .. "here"\n')
    shell:sees('"still here"')
    interrupt "while true do pcall(function() while true do end end) end"
    shell:type('"and " .. "now"\n')
    shell:sees('"and now"')
    -- Lua's hook belongs to one coroutine: each of these is a place where it could be missing.
    for i, loop in ipairs {
      "coroutine.wrap(function() while true do end end)()",
      "coroutine.resume(coroutine.create(function() while true do pcall(function() while true do end end) end end))",
      "coroutine.wrap(function() while true do coroutine.wrap(function() while true do end end)() end end)()",
      "while true do coroutine.resume(coroutine.create(function() coroutine.yield() end)) end",
      "fpcache.await(fpcache.spawn(function() while true do end end))",
    } do
      interrupt(loop)
      shell:type(('"loop " .. %d\n'):format(i))
      shell:sees(('"loop %d"'):format(i))
    end
    -- One that is called again after the interrupt harms nobody.
    shell:type("co = coroutine.wrap(function() pcall(function() print('be' .. 'gun') while true do end end) "
      .. "coroutine.yield(1) return 'alive' end)\n")
    shell:type("co()\n")
    shell:sees("begun\n")
    shell:key("C-c")
    shell:type('pcall(co) or true, "an" .. "swer"\n')
    shell:sees('"answer"')
    shell:type("half a li")
    shell:sees("> half a li")
    shell:key("C-c")
    shell:sees("half a li^C") -- what is typed before would belong to that line
    shell:type("1 + 40 + 1\n")
    shell:sees("\n42\n")
  end)

  it("shows errors with the user's own part of the traceback", function()
    shell:type("local function inner() error('broken') end inner()\n")
    local screen = shell:sees("(shell):1: broken")
    assert.matches("in local 'inner'", screen, 1, true)
    assert.is_nil(screen:find("built in", 1, true))
    shell:type("error({})\n")
    shell:sees("table: ")
    shell:type('cache:get("")\n')
    shell:sees("nil, invalid: ")
  end)

  it("helps, from the comments of the functions", function()
    shell:type("help(cache.set)\n")
    local screen = shell:sees("cache:set\n\nStores a value.")
    assert.matches("  key        string   1 to max_key_bytes", screen, 1, true)
    shell:type("help(cache.expire)\n")
    shell:sees("Gives a key a new time to live")
    shell:type("help 'CuckooFilter'\nhelp(print)\n")
    shell:sees("no help on function")
    shell:type("help()\n")
    shell:sees("The methods of `cache`")
  end)

  it("connects elsewhere, and keeps the connection when that fails", function()
    shell:type('cache:set("k", 1)\nconnect{ namespace = "other" }\n')
    shell:sees("other>")
    shell:type('cache:exists("k")\n')
    shell:sees("false")
    shell:type('connect{ host = "/nowhere", connection_string = "" }\n')
    shell:sees("nil, ")
    shell:type('cache.space\n')
    shell:sees('"other"')
  end)

  it("is not left by Ctrl-C between two calls, nor by a value that cannot be shown", function()
    local history = home .. "/.local/state/fpcache/history"
    shell:type('"a " .. "line"\n')
    shell:sees('"a line"')
    -- The shell waits for a reader while it keeps its history, after the line was read and before it is run.
    assert(os.remove(history))
    assert.truthy(os.execute("mkfifo '" .. history .. "'"))
    shell:type('"not " .. "run"\n')
    shell:sees('"not " .. "run"\n')
    shell:key("C-c")
    os.execute(("timeout 20 cat '%s' >/dev/null &"):format(history)) -- where Ctrl-C came before it waited
    shell:sees("interrupted")
    assert(os.remove(history))
    shell:type('"still " .. "here"\n')
    shell:sees('"still here"')
    shell:type('setmetatable({}, { __tostring = function() error("no words", 0) end })\n')
    shell:sees("\nno words")
    shell:type("setmetatable({}, { __tostring = function() while true do end end })\n")
    shell:sees("true do end end })\n")
    shell:key("C-c")
    shell:type('"and " .. "here"\n')
    shell:sees('"and here"')
  end)

  it("keeps its history for its owner alone, and ends with Ctrl-D or exit(code)", function()
    shell:type('"remember " .. "me"\n')
    shell:sees('"remember me"')
    shell:type("exit(3)\n")
    assert.equal(3, shell:code())
    shell:stop()
    local file = home .. "/.local/state/fpcache/history"
    assert.equal(384, core.system.stat(file).mode % 512)
    shell = terminal.start({ interpreter.path, "shell", "--namespace", "n" }, { FPCACHE_URL = db:url_of(), HOME = home })
    shell:sees("n>")
    shell:key("Up")
    shell:key("Up")
    shell:sees('n> "remember " .. "me"')
    shell:key("C-c")
    shell:sees("^C\nn>") -- between two prompts the terminal would take Ctrl-D for itself
    shell:key("C-d")
    assert.equal(0, shell:code())
  end)

  it("opens without a server too", function()
    shell:stop()
    shell = terminal.start({ interpreter.path }, { FPCACHE_URL = "host=/nowhere", HOME = home })
    shell:sees("not connected: connect: ")
    shell:type("1 + 1\n")
    shell:sees("\n2\n")
    shell:type("cache:get('k')\n")
    shell:sees("global 'cache'")
  end)

  it("needs a terminal", function()
    local fpcache = interpreter.new { FPCACHE_URL = db:url_of() }
    local answer = fpcache { "shell" }
    assert.equal(2, answer.code)
    assert.matches("needs a terminal", answer.err)
    fpcache:remove()
  end)
end)

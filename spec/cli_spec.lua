-- cli_spec.lua -- the interpreter: scripts, commands, exit codes.
local core = require "fpcache.core"
local database = require "support.database"
local interpreter = require "support.interpreter"

describe("fpcache", function()
  local db, fpcache

  setup(function() db = database.new() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    fpcache = interpreter.new { FPCACHE_URL = db:url_of() }
  end)
  after_each(function()
    fpcache:remove()
    db:close_all()
  end)

  local function gives(words, out, code, err)
    local answer = fpcache(words)
    assert.equal("", err and "" or answer.err)
    assert.equal(out, answer.out)
    assert.equal(code or 0, answer.code)
    if err then assert.equal(err, answer.err) end
  end

  describe("runs a script", function()
    it("with its words, and the modules built in", function()
      local path = fpcache:file("script.lua", [[
        local fpcache, cjson = require "fpcache", require "cjson"
        local cache = assert(fpcache.new())
        assert(cache:set("k", { a = 1 }, 60))
        print(arg[0]:match("[^/]*$"), arg[1], arg[2], select("#", ...), (...))
        print(cjson.encode((cache:get("k"))), cjson.null == fpcache.null, _VERSION)
        cache:close()]])
      gives({ path, "one", "two words" }, 'script.lua\tone\ttwo words\t2\tone\n{"a":1}\ttrue\tLua 5.4\n')
    end)

    it("in which help knows every public function", function()
      local path = fpcache:file("help.lua", [[
        local fpcache, help = require "fpcache", require "fpcache.shell.help"
        local cache = assert(fpcache.new())
        local Cache = getmetatable(cache).__index
        local seen, count = {}, 0
        local function look(class)
          for name, value in pairs(class) do
            if type(value) == "function" and not name:find("^_") and not seen[value] then
              seen[value], count = true, count + 1
              local text = help.text(value, { Cache = Cache })
              if text:find("^no help") then print("no help on " .. name) end
            end
          end
        end
        look(fpcache)
        while Cache do
          look(Cache)
          Cache = (getmetatable(Cache) or {}).__index
        end
        print(count > 50)
        cache:close()]])
      gives({ path }, "true\n")
    end)

    it("from -e and from standard input", function()
      gives({ "-e", "print(..., arg[0], #arg)", "x" }, "x\t-e\t1\n")
      gives({ "-", "x", input = "print(..., arg[0])" }, "x\t-\n")
      gives({ "-e", "return 5" }, "")
      gives({ "-", input = "" }, "")
    end)

    it("with a #! line, and errors at the right line", function()
      local answer = fpcache { fpcache:file("s.lua", "#!/usr/bin/env fpcache\nlocal x = 1\nerror('here')") }
      assert.equal(1, answer.code)
      assert.matches("s.lua:3: here", answer.err, nil, true)
    end)

    it("that fails: traceback on stderr, exit code 1", function()
      local answer = fpcache { "-e", "local function f() error('broken') end f()" }
      assert.equal(1, answer.code)
      assert.equal("", answer.out)
      assert.matches("^fpcache: %(command line%):1: broken\nstack traceback:\n.*in local 'f'", answer.err)
      for code, message in pairs { ["error({})"] = "table: ", ["error()"] = "nil",
        ["error(setmetatable({}, { __tostring = function() return 'mine' end }))"] = "mine",
        ["local x = nil; x.y = 1"] = "attempt to index a nil value", ["if"] = "near <eof>",
        ["require 'no.such'"] = "module 'no.such' not found",
        ["assert(require'fpcache'.new{connection_string='host=/nowhere'})"] = "connect: ",
        ["require'fpcache'.new{conection_string=''}"] = "did you mean connection_string?" } do
        answer = fpcache { "-e", code }
        assert.equal(1, answer.code)
        assert.matches("^fpcache: ", answer.err)
        assert.matches(message, answer.err, 1, true)
      end
    end)

    it("that leaves by os.exit", function()
      gives({ "-e", "os.exit(7)" }, "", 7)
      gives({ "-e", "local c = require'fpcache'.new(); c:transaction(function(tx) tx:set('k', 1); os.exit(3) end)" },
        "", 3)
      assert.is_false(db:open():exists("k"))
    end)

    it("that is not there or not readable", function()
      local answer = fpcache { "/no/such/script.lua" }
      assert.equal(1, answer.code)
      assert.matches("^fpcache: cannot open /no/such/script.lua", answer.err)
    end)

    it("that leaves its cache to the collector", function()
      gives({ "-e", "cache = require'fpcache'.new(); cache:set('k', 1); co = coroutine.wrap(function() "
        .. "cache:transaction(function(tx) tx:set('l', 1) coroutine.yield() end) end) co()" }, "")
      assert.same({ "k" }, db:open():keys())
    end)
  end)

  it("tells versions, help, and a wrong command line", function()
    local answer = fpcache { "--version" }
    assert.equal(0, answer.code)
    assert.matches("^fpcache " .. core.version:gsub("%.", "%%.") .. "\nLua 5.4%.%d+, libpq %d+", answer.out)
    local of = assert(require("fpcache.codec").json.decode(fpcache({ "--version", "--json" }).out))
    for _, part in ipairs { "libpq", "openssl", "libcurl", "jansson", "xxhash", "zstd", "libedit", "cjson", "argparse" } do
      assert.matches("%d+%.%d+", of[part])
      assert.is_truthy(answer.out:find(of[part], 1, true), part)
    end
    assert.equal(core.version, of.fpcache)
    gives({ "--version", "--yaml" }, "", 2, "fpcache: --version takes --json alone, not --yaml\n")
    for _, word in ipairs { "--help", "-h", "help" } do
      answer = fpcache { word }
      assert.equal(0, answer.code)
      assert.matches("fpcache SCRIPT.lua", answer.out, 1, true)
    end
    answer = fpcache {}
    assert.equal(2, answer.code)
    assert.matches("fpcache SCRIPT.lua", answer.err, 1, true)
    gives({ "--frobnicate" }, "", 2, "fpcache: unknown option --frobnicate; see fpcache --help\n")
    gives({ "-e" }, "", 2, "fpcache: -e needs a piece of Lua; see fpcache --help\n")
    for _, command in ipairs { "get", "set", "del", "ttl", "keys", "count", "stats", "admin", "local" } do
      answer = fpcache { command, "--help" }
      assert.equal(0, answer.code, command)
      assert.matches("[Uu]sage", answer.out)
    end
  end)

  describe("for the shell", function()
    it("sets and gets", function()
      gives({ "set", "k", "a value" }, "")
      gives({ "get", "k" }, "a value\n")
      gives({ "get", "k", "--json" }, '"a value"\n')
      assert.equal("a value", db:open():get("k"))
      gives({ "set", "k", "-", input = "from\nstdin\0\255" }, "")
      gives({ "get", "k" }, "from\nstdin\0\255\n")
      gives({ "set", "k", "" }, "")
      gives({ "get", "k" }, "\n")
      gives({ "get", "none" }, "", 1, "fpcache: no such key\n")
      gives({ "get", "none", "--json" }, "", 1, "fpcache: no such key\n")
    end)

    it("sets and gets JSON", function()
      gives({ "set", "k", '{"a": [1, 2.5, null]}', "--json" }, "")
      gives({ "get", "k" }, '{"a":[1,2.5,null]}\n')
      gives({ "get", "k", "--json" }, '{"a":[1,2.5,null]}\n')
      gives({ "set", "k", "null", "--json" }, "")
      gives({ "get", "k" }, "null\n")
      gives({ "set", "k", "false", "--json" }, "")
      gives({ "get", "k", "--json" }, "false\n")
      gives({ "set", "k", "12345678901234567", "--json" }, "")
      gives({ "get", "k" }, "12345678901234567\n")
      assert.matches("^fpcache: invalid: ", fpcache { "set", "k", "{broken", "--json" }.err)
      assert(db:open():set("bytes", "\255"))
      assert.matches("^fpcache: invalid: .*UTF%-8", fpcache { "get", "bytes", "--json" }.err)
    end)

    it("ttl, del, count, keys", function()
      gives({ "set", "k", "v", "--ttl", "1000" }, "")
      local ttl = tonumber((fpcache { "ttl", "k" }.out))
      assert.is_true(ttl > 900 and ttl <= 1000)
      gives({ "set", "k", "v" }, "")
      gives({ "ttl", "k" }, "-1\n")
      gives({ "ttl", "none" }, "-2\n")
      gives({ "set", "l", "v" }, "")
      gives({ "set", "m", "v" }, "")
      gives({ "count" }, "3\n")
      gives({ "count", "k" }, "1\n")
      gives({ "keys" }, "k\nl\nm\n")
      gives({ "keys", "l" }, "l\n")
      gives({ "keys", "--limit", "2" }, "k\nl\n")
      gives({ "keys", "--json" }, '["k","l","m"]\n')
      gives({ "keys", "none", "--json" }, "[]\n")
      gives({ "keys", "none" }, "")
      gives({ "del", "k", "l", "none" }, "2\n")
      gives({ "count", "--json" }, "1\n")
    end)

    it("keys that would steer a terminal are shown harmless there, and as they are elsewhere", function()
      local key = "a\nb\27[31mc"
      local cache = db:open()
      assert(cache:set(key, 1))
      gives({ "keys" }, key .. "\n")
      local answer = fpcache:on_terminal({ "keys" }, "")
      assert.equal("a?b?[31mc\n", (answer.out:gsub("\r", "")))
    end)

    it("in a namespace, a schema, by a URL", function()
      gives({ "set", "k", "in n", "--namespace", "n" }, "")
      gives({ "get", "k" }, "", 1, "fpcache: no such key\n")
      gives({ "get", "k", "--namespace", "n" }, "in n\n")
      gives({ "get", "k", "--namespace", "n", "--url", db.url }, "", 1, "fpcache: no such key\n")
      gives({ "get", "k", "--host", db.srv.host, "--port", "5432", "--database", db.name, "--user", "app",
        "--namespace", "n" }, "in n\n")
      assert.matches("^fpcache: schema: ", fpcache { "get", "k", "--schema", "none" }.err)
    end)

    it("tells stats", function()
      local answer = fpcache { "stats" }
      assert.matches("^rows +%d+ .*\nbytes +%d+\nunlogged +yes\n", answer.out)
      answer = fpcache { "stats", "--json" }
      assert.matches('"unlogged":true', answer.out)
      assert.equal(0, answer.code)
    end)

    it("says what is wrong: 2 for the command line, 1 for the rest", function()
      for _, words in ipairs { { "get" }, { "get", "a", "b" }, { "set", "k" }, { "set", "k", "v", "--ttl", "x" },
        { "keys", "--limit", "x" }, { "get", "k", "--frob" }, { "del" } } do
        local answer = fpcache(words)
        assert.equal(2, answer.code, table.concat(words, " "))
        assert.matches("^fpcache: .*see %-%-help\n$", answer.err)
      end
      for expected, words in pairs { ["invalid: a key must not be empty"] = { "get", "" },
        ["invalid: a ttl must be more than 0"] = { "set", "k", "v", "--ttl", "0" },
        ["invalid: namespace: a namespace must be UTF-8"] = { "get", "k", "--namespace", "\255" },
        ["invalid: port: must be at most 65535, got 99999"] = { "get", "k", "--port", "99999" },
        ["connect: "] = { "get", "k", "--url", "postgresql:///x?host=/nowhere" },
        ["invalid: connection_string is neither"] = { "get", "k", "--url", "nonsense" } } do
        local answer = fpcache(words)
        assert.equal(1, answer.code)
        assert.equal("fpcache: " .. expected, answer.err:sub(1, 9 + #expected))
        assert.is_nil(answer.err:find("traceback"))
      end
    end)
  end)

  it("without a URL uses a private server of its own", function()
    local own = interpreter.of_nobody() -- root's is the machine's: not ours to use, less to destroy
    finally(function()
      assert.equal(0, own { "local", "destroy", "--force" }.code)
      own:remove()
    end)
    local answer = own { "set", "k", "private" }
    assert.equal(0, answer.code, answer.err)
    assert.equal("private\n", own { "get", "k" }.out)
    answer = own { "-e", "print((require'fpcache'.new():get('k')))" }
    assert.equal("private\n", answer.out)
    local url = own { "local", "url" }.out
    assert.matches("host=" .. own.dir:gsub("/", "%%2F"), url, 1, true) -- in its own HOME
    assert.equal("private\n", own { "get", "k", "--url", (url:gsub("\n", "")) }.out)
    assert.equal("1\n", own { "count" }.out)
  end)
end)

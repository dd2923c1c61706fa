-- docs_shell_spec.lua -- the shell snippets of README and docs run as they stand.
--
-- Each line runs in a shell, with the built programs in front in PATH and the files that it names at hand.  What it names of
-- the world is put in its place: a database, a web server, a folder.  What never ends is ended.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local documents = require "support.documents"
local files = require "support.files"
local server = require "support.server"
local workspace = require "support.workspace"

local ROOT = assert(core.system.realpath("."))
local BUILD = require "support.build"
local ALWAYS = 1000000

-- Lines that others run: what begins with this, and who.
local ELSEWHERE = {
  ["./dev "] = "the run of the tests itself; the demo was one of its users'",
  ["apt-get "] = "spec/packaging/install.sh", ["luarocks "] = "spec/packaging/luarocks.sh",
  ["cmake --install "] = "spec/packaging/install.sh",
  ["fpcache-admin --databricks "] = "databricks_setup_spec", ["fpcache token test "] = "token_spec, databricks_setup_spec",
}

--- { place, line } of every command of every block for the shell, without its comment.
local function commands()
  local list = {}
  for _, snippet in ipairs(documents.snippets()) do
    local at = snippet.line
    for line in snippet.code:gmatch("([^\n]*)\n") do
      at, line = at + 1, line:gsub("%s+#.*$", "")
      if snippet.language == "sh" and line:find("%S") then
        list[#list + 1] = { place = snippet.path .. ", line " .. at, line = line }
      end
    end
  end
  return list
end

local function replace(line, from, to)
  local first, last = line:find(from, 1, true)
  if not first then return line end
  return line:sub(1, first - 1) .. to .. replace(line:sub(last + 1), from, to)
end

if os.getenv("ASAN_OPTIONS") then return end -- other specs run the same C

describe("a shell snippet of the documentation", function()
  local srv, ws, url, dir

  local function write(name, text) return files.write(dir .. "/" .. name, text) end

  local function serve(path, body)
    ws:fault { path = "^GET " .. path .. "$", times = ALWAYS, status = 200, body = body }
  end

  setup(function()
    srv, ws = server.start(), workspace.start()
    url = srv:fresh_database()
    dir = assert(core.system.mkdtemp("/tmp/fpcache-docs-"))
    assert(core.system.chmod(dir, tonumber("711", 8))) -- the account of a private server passes through
    assert(core.system.mkdir(dir .. "/published", tonumber("700", 8)))
    srv:create_user("app_user")
    assert(admin.setup { connection_string = url, grant = { "app_user" } })
    srv:sql([[CREATE SCHEMA shop; CREATE TABLE shop.products (id int PRIMARY KEY, shop_id int);
      CREATE TABLE product (id int PRIMARY KEY, name text); INSERT INTO product VALUES (1, 'a'), (2, 'b')]], url)
    write("products.jsonl", '{"id":1}\n{"id":2}\n')
    write("prices.csv", "sku,price\nx,7\n")
    write("ids.csv", "id\n1\n2\n")
    write("pages.txt", ws.plain_url .. "/page\n")
    write("script.lua", 'assert(require "fpcache" and require "cjson")')
    write("shop.lua", [[local c = assert(require("fpcache").new{}) for i = 1, 50 do c:set("k" .. i % 7, i) c:get("k" .. i % 9) end
      c:close()]])
    write("kv.json", [[{"rounds":1,"sections":[{"name":"single get","unit":"gets/s","sides":{"a":{"median":9,"min":8,"max":10}},
      "bars":[]}]}]])
    assert.equal(0, assert(core.run { argv = { "sh", "-c", "gzip -kc products.jsonl >big.jsonl.gz" }, dir = dir }).status)
    write("cluster52.sort", "1,a,1,10,1,get,0\n2,b,1,10,1,get,0\n3,a,1,10,1,set,60\n")
    serve("/page", "words")
    serve("/products.jsonl", '{"id":1}\n')
    for i = 1, 2 do serve("/products/" .. i, "value") end
  end)
  teardown(function()
    ws:stop()
    assert(core.system.remove_tree(dir))
  end)

  --- The line as it can run here.
  local function here(line)
    local ended = "timeout -s TERM -k 20 1 %s; test $? = 124"
    for _, change in ipairs {
      { "postgresql://admin@db.example/app", "'" .. url .. "'" }, { "postgresql://me@db/app", "'" .. url .. "'" },
      { "postgresql://me@db/shop", "'" .. url .. "'" },
      { "--host localhost --user postgres", "--host " .. srv.host .. " --user " .. srv.user },
      { "https://data.example.com", ws.plain_url }, { "https://api.example.com", ws.plain_url },
      { " ARGS…", "" }, { " CODE", " 'print(1)'" },
      { "-- PROGRAM…", "-- fpcache -e 'assert(require(\"fpcache\").new{}):get(\"a\")'" },
      { "lua5.4 ", "'" .. BUILD .. "/lua54-host' " }, { "zstdcat cluster52.sort.zst", "cat cluster52.sort" },
      { "/run/fpcache", dir .. "/published" }, { "build/bench/kv.json", "kv.json" },
      { "--every 5 --count 720", "--every 0.1 --count 3" },
      { "fpcache bench", "fpcache bench --seconds 0.02" },
      { "fpcache local start",
        ("fpcache local start --dir %s/local && fpcache local destroy --force --dir %s/local"):format(dir, dir) },
    } do line = replace(line, change[1], change[2]) end
    if line:find("sweep --every", 1, true) then return ended:format(line) end
    if line == "fpcache top" then return line .. " --once" end
    if line == "fpcache doctor" then return line .. "; test $? = 3" end -- advice: a server just started
    return line
  end

  local function run(line)
    return assert(core.run { argv = { "sh", "-c", line }, dir = dir, input = "", timeout = 60, max_output = 1024 * 1024,
      env = { "PATH=" .. BUILD .. ":" .. os.getenv("PATH"), "FPCACHE_URL=" .. url, "PGPASSWORD=",
        "LUA_PATH=" .. ROOT .. "/lua/?.lua;" .. ROOT .. "/lua/?/init.lua;;", "LUA_CPATH=" .. BUILD .. "/lua5.4/?.so;;" } })
  end

  it("runs", function()
    local count, failures = 0, {}
    for _, command in ipairs(commands()) do
      local is_elsewhere = command.line == "fpcache" -- the prompt: shell_spec has a terminal for it
      for beginning in pairs(ELSEWHERE) do is_elsewhere = is_elsewhere or command.line:sub(1, #beginning) == beginning end
      if not is_elsewhere then
        local line = here(command.line)
        local result = run(line)
        count = count + 1
        if result.status ~= 0 then
          failures[#failures + 1] = ("%s: %s\n%s"):format(command.place, line, result.output)
        end
      end
    end
    assert.equal("", table.concat(failures, "\n"))
    assert.is_true(count > 35, count .. " were run")
  end)

  it("is noticed when it cannot run", function()
    assert.not_equal(0, run(here("fpcache get greeting --no-such-option")).status)
    assert.not_equal(0, run(here("fpcache warm missing.jsonl --key 'product:{id}'")).status)
  end)
end)

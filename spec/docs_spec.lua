-- docs_spec.lua -- the documentation is true: every snippet runs or is checked (those for the shell: docs_shell_spec.lua), every
-- link leads somewhere, every public function is annotated and named.
local admin = require "fpcache.admin"
local core = require "fpcache.core"
local documents = require "support.documents"
local files = require "support.files"
local fpcache = require "fpcache"
local server = require "support.server"
local workspace = require "support.workspace"

local BUILD = require "support.build"
local load_text = rawget(_G, "loadstring") or load

-- What the words of a snippet stand for.  A snippet of Lua that is not here runs with `fpcache` and `cache` alone.  Where one
-- needs an account in a cloud, fpcache.new takes its options and returns an error.
local BEFORE = {
  ["docs/events.md"] = [[
    local function nothing() end
    local meter, tracer = { add = nothing, record = nothing }, { start = function() return { finish = nothing } end }]],
  ["docs/pipeline.md"] = 'local urls = { "a", "b" }',
  ["docs/policies.md"] = "local id, load_user = 7, function(n) return { id = n } end",
  ["docs/tokens.md"] = 'local vault = { read = function() return "secret" end }',
  ["docs/tags.md"] = 'local product, products = { id = 17 }, { ["product:1"] = 1 }',
  ["docs/warm.md"] = 'local f = io.open("products.jsonl", "w") f:write(\'{"id":1}\\n\') f:close()',
}
-- Handlers inside nginx are read by Lua here, and run by nginx_docs_spec.
local ONLY_READ = { ["docs/nginx_responses.md"] = true }

--- Leaves out what stands for "and so on".
local function without_ellipsis(code) return (code:gsub("…,? ?", "")) end

if os.getenv("ASAN_OPTIONS") then return end -- other specs run the same C

describe("the snippets", function()
  local url, all, dir, ws

  setup(function()
    all, ws = documents.snippets(), workspace.start()
    url = server.start():fresh_database()
    assert(admin.setup { connection_string = url })
    dir = assert(core.system.mkdtemp("/tmp/fpcache-docs-"))
  end)
  teardown(function()
    ws:stop()
    assert(core.system.remove_tree(dir))
  end)

  local function each(language, check)
    local count = 0
    for _, snippet in ipairs(all) do
      if snippet.language == language then
        count = count + 1
        check(snippet, ("%s, line %d"):format(snippet.path, snippet.line))
      end
    end
    assert.is_true(count > 0, "no " .. language)
  end

  local function run(argv, input)
    return assert(core.run { argv = argv, timeout = 60, dir = dir, input = input, max_output = 1024 * 1024,
      env = { "FPCACHE_URL=" .. url, "CACHE_KEY=" .. ("k"):rep(32),
        -- A stand-in of the clouds' metadata services, which knows nobody: none of this machine's is asked.
        "AWS_EC2_METADATA_SERVICE_ENDPOINT=" .. ws.plain_url, "AZURE_POD_IDENTITY_AUTHORITY_HOST=" .. ws.plain_url,
        "GCE_METADATA_HOST=" .. ws.plain_url:match("//(.*)$") } })
  end

  it("are of a kind that is checked", function()
    local kinds = { lua = true, sh = true, sql = true, c = true, nginx = true, text = true }
    for _, snippet in ipairs(all) do assert.is_true(kinds[snippet.language], snippet.path .. ": " .. snippet.language) end
    assert.is_true(#all > 20)
  end)

  it("in Lua run, or are at least Lua", function()
    each("lua", function(snippet, where)
      local code = without_ellipsis(snippet.code)
      if ONLY_READ[snippet.path] then return assert(load_text(code, where)) end
      if snippet.path ~= "README.md" then
        code = ([[local fpcache = require("fpcache")
          local cache = assert(fpcache.new{ feed = true })
          assert(cache:wait_ready(20))
          %s
          %s]]):format(BEFORE[snippet.path] or "", code)
      end
      local result = run { BUILD .. "/fpcache", "-e", code }
      assert.equal(0, result.status, where .. ": " .. result.output)
    end)
  end)

  it("in SQL run", function()
    each("sql", function(snippet, where)
      local result = run({ "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url }, snippet.code)
      assert.equal(0, result.status, where .. ": " .. result.output)
    end)
  end)

  it("in C compile", function()
    each("c", function(snippet, where)
      local includes, code = snippet.code:match("^(#include[^\n]*\n)(.*)$")
      local text = includes .. "void snippet(const char *line, size_t length);\nvoid snippet(const char *line, size_t length) {\n"
        .. code:gsub("…", "return;") .. "}\n"
      local result = assert(core.run { argv = { "cc", "-fsyntax-only", "-Wall", "-Werror", "-Iinclude", "-xc", "-" },
        input = text })
      assert.equal(0, result.status, where .. ": " .. result.output)
    end)
  end)

  it("for nginx are configurations that it takes", function()
    local modules = "/usr/lib/nginx/modules"
    if not core.system.stat(modules .. "/ngx_http_lua_module.so") then return pending("there is no nginx with Lua") end
    each("nginx", function(snippet, where)
      local inner = without_ellipsis(snippet.code):gsub("http://backend", "http://127.0.0.1:9")
      inner = inner:match("^http {\n(.*)}\n$") or inner
      local file = assert(io.open(dir .. "/nginx.conf", "w"))
      file:write(([[load_module %s/ndk_http_module.so; load_module %s/ngx_http_lua_module.so; pid %s/pid;
        error_log stderr; events {} http { access_log off; client_body_temp_path %s/b; proxy_temp_path %s/p;
        fastcgi_temp_path %s/f; uwsgi_temp_path %s/u; scgi_temp_path %s/s;
        %s }]]):format(modules, modules, dir, dir, dir, dir, dir, dir, inner))
      file:close()
      local result = run { "/usr/sbin/nginx", "-t", "-p", dir, "-c", dir .. "/nginx.conf" }
      assert.equal(0, result.status, where .. ": " .. result.output)
    end)
  end)
end)

describe("the documents", function()
  it("link to what is there, and all are in the index", function()
    local index = assert(files.read("docs/README.md"))
    for _, path in ipairs(documents.paths()) do
      local folder = path:match("^(.*/)") or ""
      for target in assert(files.read(path)):gsub("```.-```", ""):gmatch("%]%(([^)#]+)[^)]*%)") do
        if not target:find("^https?:") then assert.is_truthy(core.system.stat(folder .. target), path .. ": " .. target) end
      end
      local name = path:match("^docs/(.*)$")
      if name and name ~= "README.md" then
        assert.is_truthy(index:find("](" .. name .. ")", 1, true), name .. " is not in the index")
      end
    end
  end)
end)

describe("public functions", function()
  -- What users get into their hands: the table's name in the source, and the file if others have a table of that name.
  local PUBLIC = {
    Cache = true, fpcache = true, admin = "lua/fpcache/admin.lua", CuckooFilter = true, Counter = true, RateLimiter = true,
    Sweeper = true, Scan = true, Provider = true, Context = true, policy = "lua/fpcache/policy/init.lua",
    replay = "lua/fpcache/replay/init.lua", report = "lua/fpcache/report/init.lua", charts = true,
    nginx = "lua/fpcache/nginx/init.lua", Responses = true, Status = true, waiting = "lua/fpcache/waiting.lua",
    parallel = true,
  }
  -- Those that Lua itself calls, or only our own modules.
  local INNER = {}
  for name in ([[Status.report Status.own_text Responses.is_failing Responses.note_failure Responses.note_success
    Responses.note_upstream Responses.may_give waiting.lets_others_run]]):gmatch("%S+") do INNER[name] = true end

  --- The public functions of a file: owner, name, parameters, comment.
  local function functions_in(path)
    local list, comment = {}, {}
    for line in assert(files.read(path)):gmatch("(.-)\n") do
      local owner, name, parameters = line:match("^function (%a+)[.:]([%w_]+)%((.-)%)")
      local where = owner and PUBLIC[owner]
      if where and (where == true or where == path) and not name:find("^_") and not INNER[owner .. "." .. name] then
        list[#list + 1] = { owner = owner, name = name, parameters = parameters, comment = comment }
      end
      if line:find("^%-%-") then comment[#comment + 1] = line else comment = {} end
    end
    return list
  end

  local function sources()
    local result = assert(core.run { argv = { "find", "lua/fpcache", "-name", "*.lua" } })
    local list = {}
    for path in result.output:gmatch("[^\n]+") do list[#list + 1] = path end
    return list
  end

  it("are annotated: what they do, each parameter, what they return", function()
    local count, missing, owners = 0, {}, {}
    for _, path in ipairs(sources()) do
      for _, one in ipairs(functions_in(path)) do
        local text, place = table.concat(one.comment, "\n"), ("%s: %s.%s"):format(path, one.owner, one.name)
        count, owners[one.owner] = count + 1, true
        if #one.comment == 0 then missing[#missing + 1] = place .. " has no comment" end
        for parameter in one.parameters:gmatch("[%w_]+") do
          if not text:find("@param " .. parameter, 1, true) then missing[#missing + 1] = place .. ": @param " .. parameter end
        end
      end
    end
    assert.equal("", table.concat(missing, "\n"))
    assert.is_true(count > 80, count)
    for owner in pairs(PUBLIC) do assert.is_true(owners[owner], owner .. " is nowhere") end
  end)

  it("are named in the documentation", function()
    local text = {}
    for _, path in ipairs(documents.paths()) do text[#text + 1] = assert(files.read(path)) end
    text = table.concat(text, "\n")
    local function named(owner, name)
      assert.is_truthy(text:find("[`.:%s·]" .. name .. "%f[^%w_]"), ("%s.%s is in no document"):format(owner, name))
    end
    for name, value in pairs(require "fpcache.client") do
      if type(value) == "function" and not name:find("^_") then named("cache", name) end
    end
    for name, value in pairs(fpcache) do
      if type(value) == "function" and not name:find("^_") then named("fpcache", name) end
    end
    for _, path in ipairs(sources()) do
      for _, one in ipairs(functions_in(path)) do named(one.owner, one.name) end
    end
  end)
end)

describe("the map in docs/design.md", function()
  it("names every folder of the sources, and every module at their top", function()
    local map = assert(files.read "docs/design.md"):match("## Where things are.-\n## ")
    local missing = {}
    --- Folders down to a depth; with_modules: the Lua files beside them too.
    local function look(path, depth, with_modules)
      for _, name in ipairs(assert(core.system.readdir(path))) do
        local below = path .. "/" .. name
        local is_folder = assert(core.system.stat(below)).type == "directory"
        local word = is_folder and name .. "/" or with_modules and name:match("^(.*)%.lua$")
        if word and not map:find("[`/]" .. word:gsub("%p", "%%%0") .. "`") then missing[#missing + 1] = below end
        if is_folder and depth > 1 then look(below, depth - 1, with_modules) end
      end
    end
    look("src", 2)
    look("lua/fpcache", 1, true)
    assert.equal("", table.concat(missing, " "))
  end)
end)

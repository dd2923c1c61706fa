-- nginx_example_spec.lua -- examples/nginx as it is: started by its one command, asked by clients, ended by Ctrl-C's signal.
local core = require "fpcache.core"
local database = require "support.database"
local nginx = require "support.nginx"

if not nginx.is_testable then return end

local system = core.system

describe("examples/nginx", function()
  local db, example, dir, pid

  local function log()
    local file = assert(io.open(dir .. "/log"))
    local text = file:read("*a")
    file:close()
    return text
  end

  setup(function()
    db = database.new()
    dir = assert(system.mkdtemp("/tmp/fpcache-spec-example-"))
    assert(system.chmod(dir, tonumber("755", 8)))
    example = nginx.at(nginx.free_ports())
    local env = {
      "FPCACHE_URL=" .. db:url_of(), "FPC_PORT=" .. example.port, "PATH=" .. os.getenv("PATH"), "TMPDIR=" .. dir,
      "FPC_BUILD_DIR=" .. assert(system.realpath(os.getenv("FPC_BUILD_DIR") or "build")),
    }
    if system.getuid() == 0 then -- the test server's socket is for the server's account alone
      local uid = assert(system.stat(db.srv.host)).uid
      local line = assert(core.run { argv = { "getent", "passwd", ("%d"):format(uid) } }).output
      env[#env + 1] = "FPC_USER=" .. line:match("^[^:]+")
    end
    pid = assert(core.spawn {
      argv = { "timeout", "120", "sh", "examples/nginx/run.sh" }, env = env, clear_env = true, dir = system.realpath("."),
      log = dir .. "/log",
    })
    if not database.eventually(function() return pcall(example.get, example, "/api/start") end) then error(log()) end
  end)

  teardown(function()
    assert(system.kill(pid, 15))
    assert.is_truthy(database.eventually(function() return log():find("%[notice%] %d+#%d+: exit\n$") end), log())
    assert.is_truthy(database.eventually(function() -- what it made is gone
      for _, name in ipairs(system.readdir(dir)) do
        if name ~= "log" then return false end
      end
      return true
    end))
    assert.not_matches("%[error%]", log())
    assert.not_matches("%[crit%]", log())
    assert(system.remove_tree(dir))
    db:close_all()
  end)

  it("caches the API", function()
    local first, second = example:get("/api/weather"), example:get("/api/weather?utm_source=x")
    assert.same({ "MISS", "HIT" }, { first.headers["x-cache"], second.headers["x-cache"] })
    assert.equal(first.body, second.body)
    assert.matches('{"path":"/api/weather","at":%d+%.%d+}', first.body)
    local function is_loaded_anew() -- the other workers follow within max_staleness
      return database.eventually(function() return example:get("/api/weather").headers["x-cache"] == "MISS" end)
    end
    assert.equal("purged\n", example:body("/purge/api/weather"))
    assert.is_true(is_loaded_anew())
    assert.equal("purged\n", example:body("/purge/", { headers = { ["Surrogate-Key"] = "weather" } }))
    assert.is_true(is_loaded_anew())
  end)

  it("keeps sessions", function()
    local login = example:get("/login?user=ann")
    local cookie = { headers = { Cookie = login.headers["set-cookie"]:match("^[^;]+") } }
    assert.equal("ann\n", example:body("/me", cookie))
    assert.equal(401, example:get("/me").status)
    assert.equal(401, example:get("/me", { headers = { Cookie = "session=" .. ("0"):rep(32) } }).status)
    example:body("/logout", cookie)
    assert.equal(401, example:get("/me", cookie).status)
  end)

  it("limits", function()
    local counts = { [200] = 0, [429] = 0 }
    for n = 1, 100 do -- a slow machine has been given more meanwhile
      local answer = example:get("/limited/")
      counts[answer.status] = counts[answer.status] + 1
      if answer.status == 429 then assert.is_true(tonumber(answer.headers["retry-after"]) >= 1) end
      if n >= 8 and counts[429] > 0 then break end
    end
    assert.is_true(counts[200] >= 5 and counts[429] >= 1)
  end)

  it("has its status", function()
    assert.matches("<title>fpcache</title>", example:body("/status"), 1, true)
    assert.is_truthy(database.eventually(function()
      return example:body("/metrics"):find('fpcache_responses_total{outcome="hit",responses="api"', 1, true)
    end))
  end)
end)

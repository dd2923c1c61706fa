-- nginx_docs_spec.lua -- the Lua snippets of docs/nginx_responses.md run in a handler of a real nginx.
local database = require "support.database"
local documents = require "support.documents"
local nginx = require "support.nginx"

if not nginx.is_testable then return end

describe("the snippets for handlers inside nginx", function()
  local db, server

  setup(function()
    db = database.new()
    server = nginx.start {
      cache = { connection_string = db:url_of(), feed = false },
      init_worker = 'require("fpcache.nginx").cache_response { name = "api", location = "/origin" }',
      server = [[
        location = /origin { internal; return 200; }
        location = /run { content_by_lua_block {
          ngx.req.read_body()
          assert(loadstring(ngx.req.get_body_data()))()
        } }
      ]],
    }
  end)
  teardown(function()
    assert.is_true(server:stop())
    db:close_all()
  end)

  it("run", function()
    local count = 0
    for _, snippet in ipairs(documents.snippets()) do
      if snippet.path == "docs/nginx_responses.md" and snippet.language == "lua" then
        local answer = server:get("/run", { method = "POST", body = snippet.code })
        assert.equal(200, answer.status, ("line %d: %s\n%s"):format(snippet.line, answer.body, server:log()))
        assert.is_nil(server:log():match("%[error%]"), server:log())
        count = count + 1
      end
    end
    assert.is_true(count > 0)
    assert.equal(500, server:get("/run", { method = "POST", body = "error('noticed')" }).status)
  end)
end)

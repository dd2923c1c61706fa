-- Inside nginx sets that wait travel together; each has its own answer.
local core = require "fpcache.core"
local database = require "support.database"
local nginx = require "support.nginx"

if not nginx.is_testable then return end

describe("sets that wait together", function()
  local db, server

  setup(function()
    db = database.new()
    server = nginx.start {
      cache = { connection_string = db:url_of(), feed_interval = 0.02 },
      -- run(n, fn) calls fn(i) in n light threads at once
      init_worker = [[
        package.loaded.run = function(n, fn)
          local threads = {}
          for i = 1, n do threads[i] = ngx.thread.spawn(fn, i) end
          for i = 1, n do ngx.thread.wait(threads[i]) end
        end]],
      server = [[
        location = /run { content_by_lua_block {
          ngx.req.read_body()
          local run = assert(loadstring(ngx.req.get_body_data()))
          setfenv(run, setmetatable({ cache = require("fpcache.nginx").cache(), run = require("run") }, { __index = _G }))
          local ok, answer = pcall(run)
          ngx.print(require("fpcache.core").json_encode(answer) or tostring(answer))
        } } ]],
    }
  end)

  teardown(function()
    assert.is_true(server:stop())
    db:close_all()
  end)

  local function run(code) return core.json_decode(server:body("/run", { method = "POST", body = code })) end

  it("are few statements, and right ones", function()
    local answer = run [[
      local before, wrong = cache:stats().pipeline.merged, 0
      run(300, function(i)
        local ok, err, version = cache:set("k" .. i, { n = i, text = ("x"):rep(i) }, i % 3 == 0 and 100 or nil)
        local entry = cache:entry("k" .. i)
        if not ok or err or not version or tonumber(entry.version) ~= tonumber(version) or entry.value.n ~= i
          or (i % 3 == 0) ~= (entry.ttl > 0) then wrong = wrong + 1 end
      end)
      return { wrong = wrong, merged = cache:stats().pipeline.merged - before, sets = cache:stats().sets }]]
    assert.equal(0, answer.wrong)
    assert.equal(300, answer.sets)
    assert.is_true(answer.merged > 200, answer.merged)
    assert.equal("100", (db:sql("SELECT count(*) FROM cache WHERE expires_at < 'infinity'")))
  end)

  it("of one key are each done, and seen afterwards", function()
    local answer = run [[
      local versions, distinct = {}, 0
      run(40, function(i)
        local ok, _, version = cache:set("same", i)
        if ok then versions[("%.0f"):format(tonumber(version))] = true end
      end)
      for _ in pairs(versions) do distinct = distinct + 1 end
      return { distinct = distinct, value = cache:get("same", { near = false }) }]]
    assert.equal(40, answer.distinct)
    assert.is_true(answer.value >= 1 and answer.value <= 40)
  end)

  it("are read back by this worker at once", function()
    assert(run [[ return { cache:wait_ready(10) } ]])
    local answer = run [[
      local wrong = 0
      for round = 1, 5 do
        run(50, function(i)
          cache:set("own" .. i, round)
          if cache:get("own" .. i) ~= round then wrong = wrong + 1 end
        end)
      end
      return { wrong = wrong }]]
    assert.equal(0, answer.wrong)
  end)

  it("take long keys, binary values and other namespaces", function()
    local answer = run [[
      local wrong, other = 0, cache:namespace("other")
      run(30, function(i)
        local key, value = ("long"):rep(1000) .. i, "\\0\\255" .. i
        if not (cache:set(key, value) and other:set(key, i)) then wrong = wrong + 1 end
        if cache:get(key) ~= value or other:get(key) ~= i then wrong = wrong + 1 end
      end)
      return { wrong = wrong }]]
    assert.equal(0, answer.wrong)
  end)

  it("fail one by one", function()
    db:sql([[
      CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.key = 'bad 7' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$;
      CREATE TRIGGER refuse BEFORE INSERT ON cache FOR EACH ROW EXECUTE FUNCTION refuse()]])
    local answer = run [[
      local errors = {}
      run(20, function(i)
        local ok, err = cache:set("bad " .. i, i)
        if not ok then errors[#errors + 1] = i .. ": " .. err end
      end)
      return errors]]
    db:sql("DROP TRIGGER refuse ON cache")
    assert.equal(1, #answer)
    assert.matches("^7: server: not this one", answer[1])
    assert.equal("19", (db:sql("SELECT count(*) FROM cache WHERE key >= 'bad' AND key < 'bae'")))
  end)

  it("keep their deadlines", function()
    local locker = assert(require("fpcache").new { connection_string = db:url_of(), feed = false })
    run [[ cache:set("locked", 0) return {} ]]
    assert(locker:transaction(function(tx)
      assert(tx:set("locked", 1))
      local answer = run((([[
        local quick = require("fpcache").new { connection_string = CONNECTION, timeout = 0.5, feed = false }
        local began, late = ngx.now(), 0
        run(10, function(i)
          local ok, err = quick:set(i == 1 and "locked" or "behind " .. i, i)
          if not ok and err:find("^timeout:") then late = late + 1 end
        end)
        ngx.update_time()
        return { late = late, seconds = ngx.now() - began }]]):gsub("CONNECTION",
        function() return ("%q"):format(db:url_of()) end)))
      assert.equal(10, answer.late)
      assert.is_true(answer.seconds < 15, answer.seconds) -- the lock stays
      return true
    end))
    locker:close()
    assert.same({ true }, run [[ return { (cache:set("locked", 3)) } ]])
  end)
end)

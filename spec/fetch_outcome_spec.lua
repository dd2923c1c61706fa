-- What those learn who wait in another process for a loading that stores nothing.  Each cache stands for a process: it knows
-- nothing of the others' loadings.  Their waits meet on a clock of the spec, so nothing depends on how quick the machine is.
local database = require "support.database"
local fpcache = require "fpcache"
local tasks = require "support.tasks"

describe("who waits for a loading of another process", function()
  local db, caches, clock

  setup(function()
    db = database.new()
    caches = { db:open(), db:open(), db:open() }
  end)
  teardown(function() db:close_all() end)
  before_each(function()
    db:sql("TRUNCATE cache")
    clock = tasks.new { fake = true }
  end)
  after_each(function() clock:close() end)

  --- Three processes ask for "k", the second and third while the first one loads.  Gives what they got, each as "value err
  -- source", how many loaded, and the seconds until the last had his answer.
  local function ask(policy, load, others)
    local of = others or caches
    local got, loads, started = {}, 0, clock:now()
    local last = started
    for i = 1, 3 do
      clock:spawn(function()
        fpcache.waiting.sleep((i - 1) / 10)
        local value, err, source = of[i]:fetch("k", policy, function(context)
          loads = loads + 1
          fpcache.waiting.sleep(1)
          return load(context)
        end)
        got[i] = ("%s %s %s"):format(tostring(value), tostring(err), tostring(source))
        last = math.max(last, clock:now())
      end)
    end
    clock:run()
    return got, loads, last - started
  end

  --- Caches that do by fetch_many what the spec asks of fetch.
  local function by_many(which)
    local views = {}
    for i, cache in ipairs(which) do
      views[i] = { fetch = function(_, key, policy, loader)
        local values, err, sources = cache:fetch_many({ key, "other " .. i }, policy, function(keys, context)
          if keys[1] ~= key then return {} end
          local value, reason = loader(context)
          if reason then return nil, reason end
          return { [key] = value, ["other " .. i] = "other" }
        end)
        return values and values[key], err, sources[key] or "loader"
      end }
    end
    return views
  end

  local function down() return nil, "origin: down" end
  local DOWN = { "nil origin: down loader", "nil origin: down loader", "nil origin: down loader" }

  it("gets its error, whatever the lock is", function()
    local pooled = db:open { prepared = false }
    for _, others in ipairs { caches, { pooled, caches[2], pooled:namespace("") } } do
      for _, lock in ipairs { "cluster", "host" } do
        local got, loads, seconds = ask({ ttl = 60, lock = lock }, down, others)
        assert.same(DOWN, got)
        assert.equal(1, loads)
        assert.is_true(seconds < 1.2, tostring(seconds))
        assert.equal("0", db:sql("SELECT count(*) FROM cache WHERE lease_until > now()"))
      end
    end
  end)

  it("gets its error from fetch_many, and with it; and that there is none", function()
    local many = by_many(caches)
    for _, others in ipairs { many, { caches[1], many[2], many[3] }, { many[1], caches[2], many[3] } } do
      db:sql("TRUNCATE cache")
      local got, loads, seconds = ask({ ttl = 60 }, down, others)
      assert.same(DOWN, got)
      assert.equal(1, loads)
      assert.is_true(seconds < 1.2, tostring(seconds))
      assert.equal("0", db:sql("SELECT count(*) FROM cache WHERE lease_until > now()"))
      got, loads = ask({ ttl = 60 }, function() return nil end, others)
      assert.same({ "nil nil loader", "nil nil loader", "nil nil loader" }, got)
      assert.equal(1, loads)
      got, loads, seconds = ask({ ttl = 60 }, function(context) context.store = false return "v" end, others)
      assert.same({ "v nil loader", "v nil loader", "v nil loader" }, got)
      assert.equal(3, loads)
      assert.is_true(seconds >= 2 and seconds < 2.3, tostring(seconds))
    end
    local sealed = by_many { db:open { encrypt = { keys = { a = ("6f"):rep(32) } } }, caches[2], caches[3] }
    local got = ask({ ttl = 60 }, down, sealed)
    assert.same({ DOWN[1], "nil loader: it failed in another process, which could not say why loader" }, { got[1], got[2] })
  end)

  it("gets its error where the older value may not be given any more", function()
    assert.equal("old", (caches[1]:fetch("k", 60, function(context) context.validator = "v" return "old" end)))
    db:age(61)
    local got, loads = ask({ ttl = 60 }, down)
    assert.same({ DOWN, 1 }, { got, loads })
  end)

  it("gets that there is none, also where that is not remembered", function()
    local got, loads, seconds = ask({ ttl = 60 }, function() return nil end)
    assert.same({ "nil nil loader", "nil nil loader", "nil nil loader" }, got)
    assert.equal(1, loads)
    assert.is_true(seconds < 1.2, tostring(seconds))
    got, loads = ask({ ttl = 60, negative_ttl = 60 }, function() return nil end)
    assert.same({ "nil nil loader", "nil nil db", "nil nil db" }, got)
    assert.equal(1, loads)
  end)

  it("loads his own, beside the others, when the value is not or cannot be stored", function()
    local small = db:open { max_value_bytes = 1000 }
    for _, load in ipairs {
      function(context) context.store = false return "v" end,
      function() return ("x"):rep(2000) end,
    } do
      local got, loads, seconds = ask({ ttl = 60 }, load, { small, caches[2], caches[3] })
      local value = load {}
      for i = 1, 3 do assert.equal(value .. " nil loader", got[i]) end
      assert.equal(3, loads)
      assert.is_true(seconds >= 2 and seconds < 2.3, tostring(seconds))
    end
  end)

  it("tries anew, and shares that, when he came after it had ended", function()
    for _, value in ipairs { false, "first", "second" } do
      local loads = 0
      local got, count = ask({ ttl = 60 }, function()
        loads = loads + 1
        if not value then return nil, "origin: down" end
        return value
      end)
      if not value then
        assert.same(DOWN, got)
      else
        assert.same({ value .. " nil loader", value .. " nil db", value .. " nil db" }, got)
        assert(caches[1]:delete("k"))
      end
      assert.same({ 1, 1 }, { loads, count })
    end
  end)

  it("gets the next one's value when that began before he heard of the failure", function()
    local loads, got = 0, {}
    local function load()
      loads = loads + 1
      fpcache.waiting.sleep(1)
      if loads == 1 then return nil, "origin: down" end
      return "value"
    end
    clock:spawn(function() got[1] = select(2, caches[1]:fetch("k", 60, load)) end)
    clock:run()
    clock:spawn(function() got[2] = caches[2]:fetch("k", 60, load) end)
    clock:spawn(function() fpcache.waiting.sleep(0.5) got[3] = caches[3]:fetch("k", 60, load) end)
    clock:run()
    assert.same({ "origin: down", "value", "value" }, got)
    assert.equal(2, loads)
  end)

  it("learns the reason, which an encrypted cache keeps encrypted, and only its beginning", function()
    local words = "origin: refused Jane's card " .. ("9"):rep(1000)
    local function lengthy() return nil, words end
    local sealed = { db:open { encrypt = { keys = { a = ("6f"):rep(32) } } }, db:open { encrypt = { keys = { a = ("6f"):rep(32) } } } }
    for is_plain, others in pairs { t = caches, f = { sealed[1], sealed[2], caches[3] } } do
      local got = ask({ ttl = 60 }, lengthy, others)
      assert.equal(("nil %s loader"):format(words), got[1])
      assert.equal(("nil %s loader"):format(words:sub(1, 500)), got[2])
      if is_plain == "t" then
        assert.equal(got[2], got[3])
      else -- who has not the key
        assert.equal("nil loader: it failed in another process, which could not say why loader", got[3])
      end
      assert.equal(is_plain, db:sql("SELECT position('Jane' in encode(validator, 'escape')) > 0 FROM cache"))
      db:sql("TRUNCATE cache")
    end
  end)

  it("is given the older value where his policy allows, and is not told of what concerns others", function()
    local policy = fpcache.policy { ttl = 60, stale_ttl = 600, error_backoff = 1 }
    assert.equal("old", (caches[1]:fetch("k", policy, function(context) context.validator = "v1" return "old" end)))
    db:age(61)
    assert.same({ "old nil stale", "old nil stale", "old nil stale" }, (ask(policy, down)))
    db:age(2)
    for _ = 1, 2 do -- a policy without older values makes nobody wait for the pause after a failure
      local started = clock:now()
      assert.equal("origin: down", (select(2, clock:call(function() return caches[1]:fetch("k", 60, down) end))))
      assert.equal(started, clock:now())
    end
    local seen
    assert.equal("new", (caches[1]:fetch("k", policy, function(context) seen = context.validator return "new" end)))
    assert.equal("v1", seen)
  end)
end)

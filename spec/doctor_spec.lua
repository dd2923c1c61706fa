-- doctor_spec.lua -- `fpcache doctor` finds what was broken on purpose.
local codec = require "fpcache.codec"
local database = require "support.database"
local doctor = require "fpcache.doctor"
local interpreter = require "support.interpreter"

describe("fpcache doctor", function()
  local db

  before_each(function() db = database.new() end)
  after_each(function()
    db:close_all()
    db.srv:sql(("DROP DATABASE %s WITH (FORCE)"):format(db.name))
  end)

  --- The findings by name, as the plain role sees them.
  local function examine(opts)
    opts = opts or {}
    opts.connection_string = opts.connection_string or db:url_of()
    local findings = assert(doctor.examine(opts))
    local by_name = {}
    for _, finding in ipairs(findings) do
      assert.is_true(finding.level == "good" or finding.cure ~= nil, finding.name .. " has no cure")
      by_name[finding.name] = finding
    end
    return by_name
  end

  local function says(level, words, finding)
    assert.equal(level, finding.level, finding.seen)
    assert.matches(words, finding.seen, 1, true)
  end

  it("finds nothing wrong where nothing is", function()
    assert(db:open():set_many { a = 1, b = 2 })
    for name, finding in pairs(examine()) do
      if name ~= "restarts" then assert.equal("good", finding.level, name .. ": " .. finding.seen) end
    end
  end)

  it("tells a database without the schema, an old one and a new one", function()
    says("bad", "version 99, this fpcache knows", (function()
      db:sql("INSERT INTO fpcache_schema (version, name) VALUES (99, 'x')")
      return examine().schema
    end)())
    db:sql("DELETE FROM fpcache_schema WHERE version > 1")
    says("bad", "version 1, this fpcache needs", examine().schema)
    db:sql("DROP TABLE cache, fpcache_schema CASCADE")
    says("bad", "nothing is set up", examine().schema)
  end)

  it("names the rights that a login lacks", function()
    db:sql("REVOKE INSERT ON cache FROM public; REVOKE SELECT ON fpcache_feed FROM public")
    local found = examine()
    says("bad", "app lacks cache INSERT, fpcache_feed SELECT", found.rights)
    assert.matches("fpcache admin setup --grant app, as the owner fpcache", found.rights.cure, 1, true)
    db:sql([[GRANT INSERT ON cache TO public; GRANT SELECT ON fpcache_feed TO public;
      REVOKE UPDATE ON fpcache_entries FROM public]])
    says("advice", "app has rights on cache and not on fpcache_entries", examine().rights)
    db:sql("REVOKE ALL ON fpcache_schema FROM public")
    assert.is_nil(examine().schema)
    db:sql("CREATE SCHEMA hidden")
    assert(require("fpcache.admin").setup { connection_string = db.url, schema = "hidden" })
    says("bad", "no USAGE on the schema", examine { schema = "hidden" }.rights)
  end)

  it("sees a table that is logged, not isolated, or not vacuumed", function()
    db:sql([[ALTER TABLE fpcache_entries SET LOGGED; ALTER TABLE cache NO FORCE ROW LEVEL SECURITY;
             ALTER TABLE fpcache_entries SET (autovacuum_enabled = off)]])
    local found = examine()
    says("advice", "LOGGED", found.unlogged)
    says("bad", "row-level security is off", found.isolation)
    says("bad", "autovacuum is off", found.autovacuum)
  end)

  it("sees who may write the feed in others' names", function()
    db:sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
    says("advice", "app may write the change feed in others' names", examine().isolation)
    db:sql("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM app; GRANT INSERT (xid) ON fpcache_feed TO app, public")
    says("advice", "PUBLIC, app may write the change feed", examine().isolation)
    db:sql("REVOKE INSERT (xid) ON fpcache_feed FROM app, public")
    assert.equal("good", examine().isolation.level)
  end)

  it("sees a login that row-level security does not bind", function()
    says("advice", "superuser", examine { connection_string = db.url }.isolation)
  end)

  it("sees dead and expired rows, and a filter that is too small", function()
    db:sql("ALTER TABLE fpcache_entries SET (autovacuum_enabled = off)")
    db:sql([[INSERT INTO cache (user_id, namespace, key, value, format, version, expires_at)
             SELECT 'app', '', int4send(i), '', 's', 1, now() - interval '1 hour' FROM generate_series(1, 20000) AS i;
             UPDATE cache SET version = 2]])
    db:sql("ANALYZE cache")
    local found
    database.eventually(function() -- the statistics of the server come a moment later
      found = examine { cuckoo_capacity = 100 }
      return found.bloat.level ~= "good"
    end)
    says("advice", "rows are dead", found.bloat)
    says("advice", "100 % of this login's rows have expired", found.expired)
    says("advice", "cuckoo_capacity is 100", found.filter)
  end)

  it("sees that a wipe was not noticed yet", function()
    db:sql("DELETE FROM fpcache_state")
    says("advice", "emptied", examine().feed)
  end)

  it("sees a feed that nobody rotates", function()
    db:sql([[BEGIN; SET LOCAL fpcache.keeps = 'on';
      INSERT INTO fpcache_feed (namespace, keys)
      SELECT 'n', ARRAY[decode(repeat('ab', 100), 'hex')] FROM generate_series(1, 10000);
      COMMIT]])
    says("advice", "kB, never rotated", examine().feed)
    db:sql("UPDATE fpcache_state SET slot = extract(epoch FROM clock_timestamp())::bigint / 20 - 90")
    says("advice", "last rotated 30 min ago", examine().feed)
    db:sql("UPDATE fpcache_state SET slot = extract(epoch FROM clock_timestamp())::bigint / 20 - 2")
    says("good", "kB", examine().feed)
  end)

  it("looks into a schema of any name", function()
    local name = [[it's a\ "{schema}" of %d $1]]
    assert(require("fpcache.admin").setup { connection_string = db.url, schema = name, grant = "public" })
    says("good", "kB", examine { schema = name }.feed)
  end)

  it("is a command with exit codes for scripts", function()
    local fpcache = interpreter.new { FPCACHE_URL = db:url_of() }
    local answer = fpcache { "doctor" }
    assert.matches("good    schema       version ", answer.out, 1, true)
    assert.equal(3, answer.code) -- the server was started for this test: advice
    db:sql("REVOKE INSERT ON cache FROM public")
    answer = fpcache { "doctor", "--json" }
    assert.equal(1, answer.code)
    local rights
    for _, finding in ipairs(assert(codec.json.decode(answer.out))) do
      if finding.name == "rights" then rights = finding end
    end
    assert.equal("bad", rights.level)
    answer = fpcache { "doctor", "--url", "host=/nowhere" }
    assert.equal(1, answer.code)
    assert.matches("^fpcache: connect: ", answer.err)
    assert.equal(2, fpcache { "doctor", "--nonsense" }.code)
    fpcache:remove()
  end)
end)

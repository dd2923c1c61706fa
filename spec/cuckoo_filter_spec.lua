-- cuckoo_filter_spec.lua -- the filter as Lua programs see it, in both runtimes.
local core = require "fpcache.core"
local CuckooFilter = require "fpcache.cuckoo_filter"

local SEED = "0123456789abcdef"

describe("CuckooFilter", function()
  local open = {}
  local function make(opts)
    local filter = assert(CuckooFilter(opts))
    open[#open + 1] = filter
    return filter
  end

  after_each(function()
    for _, filter in ipairs(open) do filter:close() end
    open = {}
    collectgarbage()
    collectgarbage()
    assert.equal(0, core.open_objects())
  end)

  it("holds what was inserted and denies the rest", function()
    local filter = make{ capacity = 1000, fpr = 1e-6 }
    assert.is_true(filter:insert("a"))
    assert.is_true(filter:insert(""))
    assert.is_true(filter:insert("nul\0inside"))
    assert.is_true(filter:lookup("a"))
    assert.is_true(filter:lookup(""))
    assert.is_true(filter:lookup("nul\0inside"))
    assert.is_false(filter:lookup("nul\0outside"))
    assert.is_false(filter:lookup("b"))
    assert.equal(3, #filter)
  end)

  it("has room for one million keys when nothing is said", function()
    local filter = make()
    assert.equal(1000000, filter:stats().capacity)
    assert.is_true(filter:stats().bits_per_key == 0)
    assert.is_true(filter:stats().bytes < 1.7e6)
  end)

  it("deletes one copy at a time", function()
    local filter = make{ capacity = 100 }
    for _ = 1, 7 do filter:insert("k") end
    for _ = 1, 7 do
      assert.is_true(filter:lookup("k"))
      assert.is_true(filter:delete("k"))
    end
    assert.is_false(filter:lookup("k"))
    assert.is_false(filter:delete("k"))
    assert.equal(0, #filter)
  end)

  it("inserts only what looks absent when asked to", function()
    local filter = make{ capacity = 1, fpr = 1e-6 }
    assert.is_true(filter:insert_if_absent("k"))
    assert.is_false(filter:insert_if_absent("k"))
    assert.same({ nil, "full: the filter holds as many keys as it has room for" }, { filter:insert_if_absent("other") })
    assert.equal(1, #filter)
  end)

  it("says full and changes nothing at its capacity", function()
    local filter = make{ capacity = 500 }
    for i = 1, 500 do assert.is_true(filter:insert("key " .. i)) end
    for i = 1, 5 do
      local ok, err = filter:insert("more " .. i)
      assert.is_nil(ok)
      assert.equal("full: the filter holds as many keys as it has room for", err)
    end
    assert.equal(500, #filter)
    assert.equal(5, filter:stats().full_adds)
    for i = 1, 500 do assert.is_true(filter:lookup("key " .. i)) end
  end)

  it("grows when it may", function()
    local filter = make{ capacity = 100, grow = true }
    for i = 1, 5000 do assert.is_true(filter:insert("key " .. i)) end
    for i = 1, 5000 do assert.is_true(filter:lookup("key " .. i)) end
    assert.equal(6300, filter:stats().capacity)
    assert.equal(6, filter:stats().tables)
    assert.is_true(filter:stats().grow)
  end)

  it("keeps its false-positive rate", function()
    local filter = make{ capacity = 100000, fpr = 0.01 }
    for i = 1, 100000 do filter:insert("key " .. i) end
    local wrong = 0
    for i = 1, 100000 do
      if filter:lookup("not " .. i) then wrong = wrong + 1 end
    end
    local stated = filter:false_positive_rate()
    assert.is_true(stated <= 0.01)
    assert.is_true(wrong / 100000 > 0.8 * stated and wrong / 100000 < 1.2 * stated, tostring(wrong))
    assert.is_true(filter:load_factor() > 0.90 and filter:load_factor() < 0.92)
  end)

  it("is smaller when compact, and otherwise the same", function()
    local compact, plain = make{ capacity = 20000, fpr = 0.001, compact = true }, make{ capacity = 20000, fpr = 0.001 }
    for i = 1, 20000 do
      assert.is_true(compact:insert("key " .. i))
      plain:insert("key " .. i)
    end
    assert.same({ nil, "full: the filter holds as many keys as it has room for" }, { compact:insert("one more") })
    assert.is_true(compact:stats().compact)
    assert.is_false(plain:stats().compact)
    assert.is_true(compact:stats().bits_per_key < 0.96 * plain:stats().bits_per_key)
    assert.is_true(compact:false_positive_rate() <= 0.001)
    local loaded = assert(CuckooFilter.load(compact:save()))
    open[#open + 1] = loaded
    for i = 1, 20000 do assert.is_true(loaded:lookup("key " .. i)) end
    for i = 1, 20000 do assert.is_true(loaded:delete("key " .. i)) end
    assert.equal(0, #loaded)
    assert.is_true(make{ like = compact }:stats().compact)
    assert.same({ nil, "invalid: the filters differ in capacity, fingerprint bits or compactness" },
      { make{ capacity = 10, fingerprint_bits = 12, seed = SEED }
        :union(make{ capacity = 10, fingerprint_bits = 12, seed = SEED, compact = true }) })
    assert.same({ nil, "invalid: fpr must be at least 0.00024 in a compact filter" },
      { CuckooFilter{ fpr = 1e-6, compact = true } })
    assert.has_error(function() CuckooFilter{ compact = 1 } end)
  end)

  it("works on lists", function()
    local filter = make{ capacity = 1000, fpr = 1e-6 }
    local keys, others = {}, {}
    for i = 1, 1000 do
      keys[i] = "key " .. i
      others[i] = i % 2 == 0 and "key " .. i or "not " .. i
    end
    assert.equal(1000, filter:insert_many(keys))
    assert.equal(0, filter:insert_many({}))
    assert.same({}, filter:lookup_many({}))
    local found = filter:lookup_many(others)
    assert.equal(1000, #found)
    for i = 1, 1000 do assert.equal(i % 2 == 0, found[i]) end
    local count, err = filter:insert_many({ "one more" })
    assert.equal(0, count)
    assert.equal("full: the filter holds as many keys as it has room for", err)
    filter:clear()
    count, err = filter:insert_many(keys)
    assert.equal(1000, count)
    assert.is_nil(err)
  end)

  it("clears", function()
    local filter = make{ capacity = 10 }
    filter:insert("a")
    filter:clear()
    assert.equal(0, #filter)
    assert.is_false(filter:lookup("a"))
  end)

  it("copies", function()
    local filter = make{ capacity = 10 }
    filter:insert("a")
    local copy = assert(filter:copy())
    open[#open + 1] = copy
    filter:delete("a")
    assert.is_true(copy:lookup("a"))
    assert.is_false(filter:lookup("a"))
  end)

  it("unites filters made alike, and says why not the others", function()
    local a = make{ capacity = 100 }
    local b = make{ like = a }
    a:insert("a")
    b:insert("b")
    assert.is_true(a:union(b))
    assert.is_true(a:lookup("a") and a:lookup("b"))
    assert.equal(2, #a)
    local c = make{ capacity = 100 }
    assert.same({ nil, "invalid: the filters have different seeds: make one like the other" }, { a:union(c) })
    for i = 1, 99 do b:insert("b" .. i) end
    assert.same({ nil, "full: both filters together exceed the capacity" }, { a:union(b) })
    assert.equal(2, #a)
  end)

  it("saves and loads", function()
    local filter = make{ capacity = 300, grow = true, seed = SEED }
    for i = 1, 1000 do filter:insert("key " .. i) end
    local bytes = filter:save()
    local loaded = assert(CuckooFilter.load(bytes))
    open[#open + 1] = loaded
    for i = 1, 1000 do assert.is_true(loaded:lookup("key " .. i)) end
    assert.equal(1000, #loaded)
    assert.equal(bytes, loaded:save())
    assert.same({ nil, "invalid: not a saved filter: wrong checksum" }, { CuckooFilter.load(bytes .. "x") })
    assert.same({ nil, "invalid: not a saved filter: too short" }, { CuckooFilter.load("") })
  end)

  it("tells its numbers by the names of the Python class", function()
    local filter = make{ capacity = 1000, fingerprint_bits = 12, seed = SEED }
    filter:insert("a")
    local stats = filter:stats()
    assert.equal(1, stats.size)
    assert.equal(1000, stats.capacity)
    assert.equal(12, stats.fingerprint_bits)
    assert.is_true(stats.slots > 1000 and stats.slots < 1150)
    assert.equal(stats.load_factor, filter:load_factor())
    assert.equal(stats.estimated_fpr, filter:false_positive_rate())
    assert.equal(0, stats.full_adds)
    assert.equal(0, stats.overflow)
    assert.equal(1, stats.tables)
    assert.is_false(stats.grow)
    assert.equal(8 * stats.bytes, stats.bits_per_key)
  end)

  it("gives a filter of one seed the same bytes in both runtimes", function()
    local filter = make{ capacity = 100, fingerprint_bits = 11, seed = SEED }
    for i = 1, 30 do filter:insert("key " .. i) end
    local sum = 0
    for _, byte in ipairs({ filter:save():byte(1, -1) }) do sum = (sum * 31 + byte) % 1000003 end
    assert.equal(872996, sum)
  end)

  describe("refuses", function()
    local function invalid(opts, message)
      assert.same({ nil, "invalid: " .. message }, { CuckooFilter(opts) })
    end

    it("numbers out of range, as a value", function()
      for _, capacity in ipairs{ 0, -1, 1e300, 3900000001 } do
        invalid({ capacity = capacity }, "capacity must be 1 to 3900000000")
      end
      invalid({ fpr = 0 }, "fpr must be between 0 and 1")
      invalid({ fpr = 1 }, "fpr must be between 0 and 1")
      invalid({ fpr = -1 }, "fpr must be between 0 and 1")
      invalid({ fpr = 0 / 0 }, "fpr must be between 0 and 1")
      invalid({ fpr = 1e-9 }, "fpr must be at least 1.4e-08")
      for _, bits in ipairs{ 0, -8, 5, 29, 1e300 } do
        invalid({ fingerprint_bits = bits }, "fingerprint_bits must be 6 to 28")
      end
      invalid({ fpr = 0.1, fingerprint_bits = 8 }, "give fpr or fingerprint_bits, not both")
    end)

    it("wrong options, at the caller's line", function()
      local function raises(opts, message)
        local ok, err = pcall(function() return (CuckooFilter(opts)) end)
        assert.is_false(ok)
        assert.matches("cuckoo_filter_spec.lua:%d+: " .. message .. "$", err)
      end
      raises({ capcity = 1 }, "options.capcity: unknown option %(did you mean capacity%?%)")
      raises({ capacity = "many" }, "options.capacity: integer is expected, got string")
      raises({ capacity = 1.5 }, "options.capacity: integer is expected, got number")
      raises({ seed = "short" }, "options.seed: 16 bytes are expected, got 5")
      raises({ like = io.stdout }, "options.like: a filter is expected")
      raises({ like = make{ capacity = 1 }, fpr = 0.1 }, "options.fpr: cannot be given together with like")
      raises(7, "options: a table is expected, got number")
      local ok, err = pcall(function() return (CuckooFilter.load(7)) end)
      assert.is_false(ok)
      assert.matches("cuckoo_filter_spec.lua:%d+: bytes: string is expected, got number$", err)
    end)

    it("keys that are no strings", function()
      local filter = make{ capacity = 10 }
      for _, name in ipairs{ "insert", "lookup", "delete", "insert_if_absent" } do
        for _, key in ipairs{ 1, true, {} } do
          local ok, err = pcall(function() return (filter[name](filter, key)) end)
          assert.is_false(ok)
          assert.matches("string expected, got " .. type(key), err)
        end
        assert.has_error(function() return (filter[name](filter)) end)
      end
      for _, name in ipairs{ "insert_many", "lookup_many" } do
        local ok, err = pcall(function() return (filter[name](filter, { "a", 2 })) end)
        assert.is_false(ok)
        assert.matches("key 2: string expected, got number", err)
        assert.has_error(function() return (filter[name](filter, "a")) end)
      end
    end)

    it("other objects as the filter", function()
      local filter = make{ capacity = 10 }
      for _, name in ipairs{ "insert", "lookup", "delete", "stats", "clear", "copy", "save", "union", "close" } do
        for _, self in ipairs{ io.stdout, "text", {}, 1, core.null } do
          assert.has_error(function() return (filter[name](self, "a")) end)
        end
        assert.has_error(function() return (filter[name]()) end)
      end
      assert.has_error(function() return filter:union({}) end)
    end)

    it("everything after close, but close", function()
      local filter = make{ capacity = 10 }
      filter:close()
      filter:close()
      for _, name in ipairs{ "insert", "lookup", "delete", "insert_if_absent", "stats", "clear", "copy", "save",
                             "load_factor", "false_positive_rate", "like" } do
        local ok, err = pcall(function() return (filter[name](filter, "a")) end)
        assert.is_false(ok)
        assert.matches("filter is closed", err)
      end
      assert.has_error(function() return #filter end)
      assert.has_error(function() return filter:insert_many({ "a" }) end)
      assert.has_error(function() return CuckooFilter{ like = filter } end)
    end)
  end)

  it("is collected when nobody holds it", function()
    for _ = 1, 100 do CuckooFilter{ capacity = 10000 } end
    collectgarbage()
    collectgarbage()
    assert.equal(0, core.open_objects())
  end)

  it("survives being called from compiled code for a while", function()
    local filter = make{ capacity = 20000, fpr = 0.001 }
    for i = 1, 20000 do assert(filter:insert("key " .. i)) end
    local denied = 0
    for _ = 1, 10 do
      for i = 1, 20000 do
        if not filter:lookup("key " .. i) then denied = denied + 1 end
      end
    end
    assert.equal(0, denied)
    for i = 1, 20000 do assert(filter:delete("key " .. i)) end
    assert.equal(0, #filter)
  end)
end)

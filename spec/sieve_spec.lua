-- sieve_spec.lua -- the order in which the near cache evicts, against the paper.
local sieve = require "fpcache.sieve"

-- SIEVE as the paper writes it, slowly: a list from the oldest to the newest.
local function reference(max_entries, max_bytes)
  local list, hand, ref = {}, nil, { evicted = {} }
  local function position(entry)
    for i, e in ipairs(list) do if e == entry then return i end end
  end
  local function remove(entry)
    local i = position(entry)
    if hand == entry then hand = list[i + 1] end
    table.remove(list, i)
  end
  local function find(id)
    for _, e in ipairs(list) do if e.id == id then return e end end
  end
  local function evict(spared)
    while true do
      hand = hand or list[1]
      if hand ~= spared then
        if not hand.visited then break end
        hand.visited = false
      end
      hand = list[position(hand) + 1]
    end
    ref.evicted[#ref.evicted + 1] = hand.id
    remove(hand)
  end
  function ref.put(id, size)
    local entry, bytes = find(id), 0
    if size > max_bytes then
      if entry then remove(entry) end
      return
    end
    for _, e in ipairs(list) do if e ~= entry then bytes = bytes + e.size end end
    while #list + (entry and 0 or 1) > max_entries or bytes + size > max_bytes do
      local before = #list
      evict(entry)
      assert(#list == before - 1)
      bytes = 0
      for _, e in ipairs(list) do if e ~= entry then bytes = bytes + e.size end end
    end
    if entry then
      entry.size, entry.visited = size, true
    else
      list[#list + 1] = { id = id, size = size, visited = false }
    end
  end
  function ref.visit(id)
    local entry = find(id)
    if entry then entry.visited = true end
    return entry ~= nil
  end
  function ref.remove(id)
    local entry = find(id)
    if entry then remove(entry) end
  end
  function ref.ids()
    local ids = {}
    for _, e in ipairs(list) do ids[#ids + 1] = e.id end
    table.sort(ids)
    return ids
  end
  return ref
end

describe("sieve", function()
  it("evicts the oldest that was not visited, and takes the marks off on its way", function()
    local s = sieve.new(3, 1000)
    for _, key in ipairs { "a", "b", "c" } do s:put("", key, key, 1) end
    s.visited[s:find("", "a")] = true
    s:put("", "d", "d", 1)
    assert.is_nil(s:find("", "b"))
    s:put("", "e", "e", 1)
    assert.is_nil(s:find("", "c")) -- the hand goes on from where it stopped
    s:put("", "f", "f", 1)
    assert.is_nil(s:find("", "d"))
    assert.truthy(s:find("", "a")) -- spared once more: the hand has yet to come round
  end)

  it("lets a walk over many keys evict mostly itself", function()
    local s = sieve.new(100, 1e6)
    for i = 1, 50 do
      s:put("", "hot" .. i, i, 1)
      s.visited[s:find("", "hot" .. i)] = true
    end
    local hits, lookups = 0, 0
    for i = 1, 2000 do
      s:put("", "scan" .. i, i, 1)
      if i % 10 == 0 then
        for j = 1, 50 do
          local slot = s:find("", "hot" .. j)
          if slot then s.visited[slot] = true; hits = hits + 1 end
          lookups = lookups + 1
        end
      end
    end
    assert.equal(lookups, hits)
  end)

  it("does what the reference does, and never exceeds its budgets", function()
    for seed = 1, 30 do
      math.randomseed(seed)
      local max_entries, max_bytes = math.random(1, 12), math.random(20, 200)
      local s, ref = sieve.new(max_entries, max_bytes), reference(max_entries, max_bytes)
      for _ = 1, 400 do
        local space, key = "n" .. math.random(1, 3), "k" .. math.random(1, 8)
        local id, what = space .. key, math.random()
        if what < 0.5 then
          local size = math.random(1, 60)
          local slot = s:put(space, key, id, size)
          ref.put(id, size)
          assert.equal(size <= max_bytes, slot ~= nil)
        elseif what < 0.9 then
          local slot = s:find(space, key)
          assert.equal(ref.visit(id), slot ~= nil)
          if slot then
            assert.equal(id, s.values[slot])
            s.visited[slot] = true
          end
        else
          local slot = s:find(space, key)
          if slot then s:remove(slot) end
          ref.remove(id)
        end
        assert(s.entries <= max_entries and s.bytes <= max_bytes)
        assert.equal(#ref.evicted, s.evictions)
      end
      local ids, bytes = {}, 0
      for name, keys in pairs(s.spaces) do
        for key, slot in pairs(keys) do
          ids[#ids + 1], bytes = name .. key, bytes + s.sizes[slot]
        end
      end
      table.sort(ids)
      assert.same(ref.ids(), ids)
      assert.equal(#ids, s.entries)
      assert.equal(bytes, s.bytes)
    end
  end)
end)

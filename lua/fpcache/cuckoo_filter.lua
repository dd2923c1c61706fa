--- A cuckoo filter: a set of strings that keeps a few bits of each, for "was this seen before?".
--
--     local seen = assert(fpcache.CuckooFilter{ capacity = 1e6, fpr = 0.001 })
--     seen:insert("user:1")
--     seen:lookup("user:1")   --> true
--     seen:lookup("user:2")   --> false: certainly not; or, one time in a thousand, true
--
-- docs/filter.md tells what it costs and what it promises.  A filter belongs to one Lua state.
local core = require("fpcache.core")
local options = require("fpcache.options")

---@class fpcache.CuckooFilter
local CuckooFilter = {}

---@class fpcache.CuckooFilter.Options
---@field capacity integer? keys that always fit, copies counted; 1,000,000
---@field fpr number? most false positives when full, between 0 and 1; 0.001
---@field fingerprint_bits integer? instead of fpr: bits a key, 6 to 28; 6 to 15 in a compact filter
---@field grow boolean? past the capacity: double, instead of "full"; false
---@field compact boolean? less memory at the same fpr (5 %; or at least 0.00024), slower calls; false
---@field like fpcache.CuckooFilter? instead of all others: the options and the seed of this filter, for union()
---@field seed string? 16 bytes, for tests; random, and secret
local OPTIONS = {
  capacity = { type = "integer", default = 1000000 },
  fpr = { type = "number" },
  fingerprint_bits = { type = "integer" },
  grow = { type = "boolean", default = false },
  compact = { type = "boolean", default = false },
  like = { type = "userdata" },
  seed = { type = "string" },
}

-- Called by two functions without a tail call, so that errors blame the line of their caller.
local function new(opts)
  local o = options.read(OPTIONS, opts, 3)
  if o.seed and #o.seed ~= 16 then error("options.seed: 16 bytes are expected, got " .. #o.seed, 3) end
  if o.like == nil then return core.filter(o.capacity, o.fpr, o.fingerprint_bits, o.grow, o.seed, o.compact) end
  for name in pairs(opts) do
    if name ~= "like" then error(("options.%s: cannot be given together with like"):format(name), 3) end
  end
  if getmetatable(o.like) ~= core.filter_type then error("options.like: a filter is expected", 3) end
  return o.like:like()
end

--- An empty filter.  `CuckooFilter{...}` is the same.
---@param opts fpcache.CuckooFilter.Options?
---@return fpcache.CuckooFilter? filter
---@return string? err "invalid: ..." for a number out of range, "memory: ..."
function CuckooFilter.new(opts)
  local filter, err = new(opts)
  return filter, err
end

--- The filter that save() wrote.
---@param bytes string any bytes; checked
---@return fpcache.CuckooFilter? filter
---@return string? err "invalid: ..." if these are not exactly what save() wrote
function CuckooFilter.load(bytes)
  if type(bytes) ~= "string" then error("bytes: string is expected, got " .. type(bytes), 2) end
  return core.filter_load(bytes)
end

-- The methods, in src/lua/filter.c.  Each raises if the filter is closed or an argument has a wrong type.

--- Adds one copy of a key.
---@class fpcache.CuckooFilter
---@field insert fun(self, key: string): true?, string? "full: ..." or "memory: ..."; then nothing has changed
--- Adds a key unless it looks present: true if it was added.  Such a filter must not use delete().
---@field insert_if_absent fun(self, key: string): boolean?, string?
--- False: certainly not there.  True: there, or a false positive.
---@field lookup fun(self, key: string): boolean
--- Takes away one copy.  Only for keys that were inserted and not yet deleted: anything else may take away another key.
---@field delete fun(self, key: string): boolean
--- Inserts a list in order; how many were inserted, and why no more.
---@field insert_many fun(self, keys: string[]): integer, string?
---@field lookup_many fun(self, keys: string[]): boolean[]
--- Removes everything; keeps the memory.
---@field clear fun(self)
---@field copy fun(self): fpcache.CuckooFilter?, string?
--- Adds all that `other` holds, or nothing: "invalid: ..." if it was not made like this one, "full: ...", "memory: ...".
---@field union fun(self, other: fpcache.CuckooFilter): true?, string?
--- size, capacity, slots, load_factor, fingerprint_bits, bits_per_key, bytes, estimated_fpr, full_adds, overflow, tables, grow, compact.
---@field stats fun(self): table
---@field load_factor fun(self): number 0 to 1: keys a slot
---@field false_positive_rate fun(self): number 0 to 1, at the present load
--- A string for CuckooFilter.load(), the same on every machine.  It holds the seed: keep it as secret as the keys.
---@field save fun(self): string
--- Gives the memory back now rather than at a garbage collection.
---@field close fun(self)

-- LuaJIT compiles calls through its FFI, but not through Lua's C API.  With the compiler off it is the other way round.
local compiler = rawget(_G, "jit")
if compiler and core.filter_ffi and compiler.status() then
  local has_ffi, ffi = pcall(require, "ffi")
  if has_ffi then
    local methods, filter_type = core.filter_type.__index, core.filter_type
    for name, address in pairs(core.filter_ffi) do
      local call = ffi.cast("int (*)(void *, const char *, size_t)", address)
      local by_c_api = methods[name]
      -- Whatever is not a plain answer goes the other way, which knows the errors.
      if name == "insert" then
        function methods.insert(self, key)
          if getmetatable(self) ~= filter_type or type(key) ~= "string" then return by_c_api(self, key) end
          local answer = call(self, key, #key)
          if answer == 1 then return true end
          if answer == 0 then return nil, core.filter_full end
          return by_c_api(self, key)
        end
      else
        methods[name] = function(self, key)
          if getmetatable(self) ~= filter_type or type(key) ~= "string" then return by_c_api(self, key) end
          local answer = call(self, key, #key)
          if answer >= 0 then return answer == 1 end
          return by_c_api(self, key)
        end
      end
    end
  end
end

return setmetatable(CuckooFilter, {
  __call = function(_, opts)
    local filter, err = new(opts)
    return filter, err
  end,
})

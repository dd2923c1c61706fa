--- Writes a trace of a cache's calls, for `fpcache replay`; docs/replay.md tells the format.
--
-- A line is a call on one key, a page of a walk, or a clear; a call on many keys is that many lines.  Lines go into the file's
-- own buffer, which the C library writes when the program ends, unless a signal kills it.  The buffer is emptied before it is
-- full, so what reaches the file is whole lines, and several processes may append to one file.
local core = require("fpcache.core")
local duration = require("fpcache.duration")
local limits = require("fpcache.limits")
local options = require("fpcache.options")

local system = core.system
local BUFFER = 4000   -- bytes; less than the C library's buffer of a file
local FLUSH_S = 1     -- seconds that a line waits at most for the next call
local OPTIONS = {
  file = { type = "string" },                                  -- %p: the process id
  keys = { type = "boolean", default = false },                -- true: the keys as they are
  sample = { type = "number", default = 1, check = function(value) -- this share of the keys, each with all of its calls
    if not (value > 0 and value <= 1) then return ("must be more than 0 and at most 1, got %s"):format(tostring(value)) end
  end },
  max_bytes = { type = "number", default = 1e9, check = options.positive }, -- recording ends there
  secret = { type = "string" },                                -- of the keys' hashes; random
}

---@class fpcache.Recorder
local Recorder = {}
Recorder.__index = Recorder

local recorder = { VERSION = 1, HEADER = "#fpcache-trace" }

local read, check = options.table_or_string("record", "file", "the name of a file", OPTIONS)

recorder.check = check

--- What the environment wants recorded: FPCACHE_RECORD=FILE, FPCACHE_RECORD_KEYS=1, FPCACHE_RECORD_SAMPLE=0.1,
-- FPCACHE_RECORD_SECRET; as `fpcache record` sets them.
---@return table?
function recorder.from_environment()
  local file = system.getenv("FPCACHE_RECORD")
  if not file or file == "" then return nil end
  local wanted = { file = file, keys = system.getenv("FPCACHE_RECORD_KEYS") == "1" or nil,
    sample = tonumber(system.getenv("FPCACHE_RECORD_SAMPLE") or ""), secret = system.getenv("FPCACHE_RECORD_SECRET") }
  return wanted
end

---@param given string|table
---@param cache fpcache.Cache
---@return fpcache.Recorder? recorder
---@return string? err
function recorder.open(given, cache)
  local reason = recorder.check(given)
  if reason then return nil, "invalid: " .. reason end
  local o = read(given)
  local secret = o.secret
  if not secret then
    secret, reason = system.random(32)
    if not secret then return nil, reason end
  end
  local path = o.file:gsub("%%p", ("%d"):format(system.pid()))
  local is_new = not system.stat(path)
  local file, why = io.open(path, "a")
  if not file then return nil, "invalid: cannot record into " .. why end
  if is_new then system.chmod(path, 384) end -- 0600: whose keys are whose is nobody's business
  file:setvbuf("full", 4096)
  local self = setmetatable({ file = file, path = path, secret = secret, plain = o.keys, sample = o.sample, cache = cache,
    spaces = {}, limit = o.sample * 2 ^ 32, left = o.max_bytes, buffered = 0, lines = 0, flush_at = 0, dropped = 0 }, Recorder)
  self:write(("%s %d keys=%s sample=%g"):format(recorder.HEADER, recorder.VERSION, o.keys and "plain" or "hashed", o.sample))
  self:flush() -- a fork must not write it twice
  self.lines = 0
  return self
end

--- Adds a line.
function Recorder:write(line)
  local size = #line + 1
  if self.left < size then
    self.dropped = self.dropped + 1
    return
  end
  if self.buffered + size > BUFFER then self:flush() end
  self.file:write(line, "\n")
  self.buffered, self.left, self.lines = self.buffered + size, self.left - size, self.lines + 1
end

function Recorder:flush()
  local ok, err = self.file:flush()
  if not ok then
    self.last_error, self.left = tostring(err), 0 -- a full disk ends the recording, not the program
  end
  self.buffered = 0
end
-- Compiled by LuaJIT, a flush that fails is tried once more by the interpreter, after which the C library knows of no failure.
local compiler = rawget(_G, "jit")
if compiler then compiler.off(Recorder.flush) end

local function escaped(text)
  return (text:gsub('[%c%%,"]', function(char) return ("%%%02x"):format(char:byte()) end))
end

--- A key as it is written: hashed with its namespace, or escaped.  nil when it is not in the sample.
local function disguise(self, space, key)
  local digits = core.disguise_key(self.secret, space .. "\0" .. key)
  if not digits or tonumber(digits:sub(1, 8), 16) >= self.limit then return nil end
  if not self.plain then return digits end
  return escaped(space == "" and key or space .. "/" .. key)
end

local function number(value)
  return type(value) == "number" and value > 0 and value < math.huge and ("%.6g"):format(value) or ""
end

--- The encoded size of a value.
local function size_of(self, value)
  local kind = type(value)
  if kind == "string" then return #value end
  if kind ~= "table" then return value == nil and "" or #tostring(value) end
  local ok, bytes = pcall(core.value_encode, value, self.cache.codec, "")
  return ok and bytes and #bytes or ""
end

--- A namespace or a tag, hashed or as it is.
local function name_of(self, kind, name)
  if self.plain then return (escaped(name:match("[^%z]*$")):gsub(" ", "%%20")) end
  return (core.disguise_key(self.secret, kind .. "\0\0" .. name) or ""):sub(1, 8)
end

local function space_of(self, name)
  if name == "" then return "" end
  local known = self.spaces[name]
  if not known then
    known = name_of(self, "namespace", name)
    self.spaces[name] = known
  end
  return known
end

--- The tags that options give, in one field.
local function tags_of(self, event, opts)
  local given = type(opts) == "table" and opts.tags
  if not given then return nil end
  local ok, list = pcall(limits.tags, given, 1)
  if not (ok and list) or #list == 0 then return nil end -- the call itself refuses them
  local shown = {}
  for i, tag in ipairs(list) do shown[i] = name_of(self, "tag", event.namespace .. "\0" .. tag) end
  return table.concat(shown, " ")
end

--- A line; the last two fields are left out where they are empty.
local function put(self, event, op, shown, key_bytes, bytes, ttl, answer, seconds, tags)
  local text = ("%.6f,%s,%s,%s,%s,%s,%s,%.0f"):format(event.at, op, shown, key_bytes, bytes, number(ttl), answer, seconds * 1e6)
  local space = space_of(self, event.namespace)
  if tags then
    text = text .. "," .. space .. "," .. tags
  elseif space ~= "" then
    text = text .. "," .. space
  end
  self:write(text)
end

local function line(self, event, key, op, answer, bytes, ttl, seconds, tags)
  if type(key) ~= "string" then return end
  local shown = disguise(self, event.namespace, key)
  if shown then put(self, event, op, shown, ("%d"):format(#key), bytes, ttl, answer, seconds, tags) end
end

--- Seconds to live that a caller gave, as he may: a number, a text, options.
local function ttl_of(given)
  if type(given) == "table" then given = given.ttl end
  if type(given) == "string" then given = duration.seconds(given) end
  return given
end

local READS = { get = "get", fetch = "fetch", entry = "get", exists = "exists", ttl = "exists" }
local WRITES = { set = "set", add = "set", replace = "set", cas = "set", get_set = "set" }
local DELETES = { delete = "delete", get_delete = "delete" }

local function answer_of(event)
  if event.outcome == "hit" or event.outcome == "miss" then
    return event.source and event.outcome .. " " .. event.source or event.outcome
  end
  return event.outcome
end

--- What tells the ttl of each key of a set_many.
local function ttl_of_many(opts)
  local given = opts
  if type(opts) == "table" then given = opts.ttl end
  if type(given) == "table" then return function(key) return ttl_of(given[key]) end end
  local one = ttl_of(given)
  return function() return one end
end

--- An iterator for set_many that notes what it gives.  The lines are written as it goes, before anybody knows whether the call
-- succeeds: there may be more of them than memory holds.
---@param items function|table a callable one
---@param opts any of set_many
---@param namespace string
---@return function
function Recorder:listen(items, opts, namespace)
  local ttl = ttl_of_many(opts)
  local tags = tags_of(self, { namespace = namespace }, opts)
  local function heard(key, value, own_ttl, ...)
    if key ~= nil and self.left > 0 then
      line(self, { namespace = namespace, at = system.wall() }, key, "set", "sent", size_of(self, value),
        ttl_of(own_ttl) or ttl(key), 0, tags)
    end
    return key, value, own_ttl, ...
  end
  if type(items) == "function" then return function(...) return heard(items(...)) end end
  return function() return heard(items()) end
end

local function note_many(self, event, keys, opts, found)
  if event.outcome ~= "done" or type(keys) ~= "table" then return end
  local op = event.name == "set_many" and "set" or event.name == "delete_many" and "delete" or READS.get
  local seconds = event.seconds
  if op == "set" then
    local ttl, tags = ttl_of_many(opts), tags_of(self, event, opts)
    for key, value in next, keys do
      line(self, event, key, op, "done", size_of(self, value), ttl(key), seconds / math.max(event.count or 1, 1), tags)
    end
    return
  end
  for i = 1, #keys do
    local value = nil
    if op ~= "delete" then value = found[keys[i]] end
    line(self, event, keys[i], op, op == "delete" and "done" or value ~= nil and "hit" or "miss", size_of(self, value), nil,
      seconds / #keys)
  end
end

-- Calls on more than the keys that they name.
local WHOLE = {
  scan = function(self, event)
    put(self, event, "scan", "", "", event.bytes, nil, ("done %d"):format(event.count), event.seconds)
  end,
  keys = function(self, event, _, list)
    local bytes = 0
    for i = 1, #list do bytes = bytes + #list[i] end
    put(self, event, "scan", "", "", bytes, nil, ("done %d"):format(#list), event.seconds)
  end,
  clear = function(self, event, opts)
    put(self, event, "clear", type(opts) == "table" and opts.all and "*" or "", "", "", nil, "done", event.seconds)
  end,
  invalidate_tag = function(self, event, tags)
    put(self, event, "tag", "", "", "", nil, "done", event.seconds, tags_of(self, event, { tags = tags }) or "")
  end,
}
WHOLE.count = function(self, event) -- no key comes back
  put(self, event, "scan", "", "", 0, nil, ("done %d"):format(event.count or 0), event.seconds)
end

--- Takes note of a call; those that are about no key are passed over.
---@param event table
---@param first any the call's arguments
---@param second any
---@param third any
---@param result any its first result
function Recorder:note(event, first, second, third, result)
  local name = event.name
  if event.kind ~= "call" or self.left <= 0 then return end
  if event.key then
    if READS[name] then
      line(self, event, event.key, READS[name], answer_of(event), event.bytes or READS[name] ~= "exists"
        and size_of(self, result) or "", name == "fetch" and ttl_of(second), event.seconds)
    elseif WRITES[name] then
      local value, opts = second, third
      if name == "cas" then value, opts = third, nil end -- its ttl comes fourth: nobody tells
      line(self, event, event.key, "set", event.outcome, size_of(self, value), ttl_of(opts), event.seconds,
        tags_of(self, event, opts))
    elseif DELETES[name] then
      line(self, event, event.key, "delete", event.outcome, "", nil, event.seconds)
    elseif name == "incr" or name == "decr" then
      line(self, event, event.key, "set", event.outcome, 8, nil, event.seconds)
    end
  elseif name == "get_many" or name == "set_many" or name == "delete_many" or name == "fetch_many" then
    note_many(self, event, first, second, result)
  elseif WHOLE[name] and event.outcome == "done" then
    WHOLE[name](self, event, first, result)
  end
  if event.at >= self.flush_at then
    self.flush_at = event.at + FLUSH_S
    self:flush()
  end
end

---@return table stats file, lines, dropped, last_error
function Recorder:stats()
  return { file = self.path, lines = self.lines, dropped = self.dropped, last_error = self.last_error }
end

--- Writes what is left; repeatable.
function Recorder:close()
  if io.type(self.file) == "file" then self.file:close() end
  self.left = 0
end

return recorder

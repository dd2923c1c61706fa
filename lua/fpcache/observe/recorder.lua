--- Writes a trace of a cache's calls, for `fpcache replay`; docs/replay.md tells the format.
--
-- A line is a call on one key; a call on many keys is that many lines.  Lines go into the file's own buffer, which the C
-- library writes when the program ends, unless a signal kills it.  The buffer is emptied before it is full, so what
-- reaches the file is whole lines, and several processes may append to one file.
local core = require("fpcache.core")
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
    limit = o.sample * 2 ^ 32, left = o.max_bytes, buffered = 0, lines = 0, flush_at = 0, dropped = 0 }, Recorder)
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

--- A key as it is written: hashed with its namespace, or escaped.  nil when it is not in the sample.
local function disguise(self, space, key)
  local digits = core.disguise_key(self.secret, space .. "\0" .. key)
  if not digits or tonumber(digits:sub(1, 8), 16) >= self.limit then return nil end
  if not self.plain then return digits end
  local whole = space == "" and key or space .. "/" .. key
  return (whole:gsub('[%c%%,"]', function(char) return ("%%%02x"):format(char:byte()) end))
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

local function line(self, event, key, op, answer, bytes, ttl, seconds)
  if type(key) ~= "string" then return end
  local shown = disguise(self, event.namespace, key)
  if not shown then return end
  self:write(("%.6f,%s,%s,%d,%s,%s,%s,%.0f"):format(event.at, op, shown, #key, bytes, number(ttl), answer, seconds * 1e6))
end

local function ttl_of(given)
  if type(given) == "table" then return given.ttl end
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

local function note_many(self, event, keys, opts, found)
  if event.outcome ~= "done" or type(keys) ~= "table" then return end
  local op = event.name == "set_many" and "set" or event.name == "delete_many" and "delete" or READS.get
  local seconds = event.seconds
  if op == "set" then
    local ttl = ttl_of(opts)
    for key, value in next, keys do
      line(self, event, key, op, "done", size_of(self, value), type(ttl) == "table" and ttl[key] or ttl,
        seconds / math.max(event.count or 1, 1))
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
      line(self, event, event.key, "set", event.outcome, name ~= "cas" and size_of(self, second) or "", ttl_of(third),
        event.seconds)
    elseif DELETES[name] then
      line(self, event, event.key, "delete", event.outcome, "", nil, event.seconds)
    elseif name == "incr" or name == "decr" then
      line(self, event, event.key, "set", event.outcome, 8, nil, event.seconds)
    end
  elseif name == "get_many" or name == "set_many" or name == "delete_many" or name == "fetch_many" then
    note_many(self, event, first, second, result)
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

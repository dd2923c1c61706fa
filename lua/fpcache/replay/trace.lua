--- Traces of cache calls, read line by line, whatever their format:
--
--   fpcache   ours, as the option `record` writes it (docs/replay.md)
--   twitter   timestamp, key, key size, value size, client id, operation, TTL (Twitter's production traces)
--   csv       libCacheSim's: columns of time, object and size; every line is a read
--   oracle    libCacheSim's oracleGeneral: 24 bytes a read, little endian: u32 time, u64 object, u32 size, i64 next
--
-- A trace has next(), which answers time, op, key, key bytes, value bytes, ttl, about; nil, err for a bad record; nothing at the
-- end.  `op` is "get", "fetch" (a get that loads), "exists", "set" or "delete"; "scan" (a page of a walk), "clear" and "tag" (the
-- invalidation of tags) have no key.  Sizes and ttl are nil where nobody knows them, and so is `about`, a table of what is seldom
-- there: `none` (the origin had no value), `took` (seconds of loading), `space` (a namespace), `tags`, `rows`, `all`.
local core = require("fpcache.core")
local reader = require("fpcache.warm.reader")
local recorder = require("fpcache.observe.recorder")

local HEADER = "^" .. recorder.HEADER:gsub("%p", "%%%0") .. " (%d+)"
local MAX_LINE = 1024 * 1024 -- with what was read ahead
local ORACLE_BYTES = 24

---@class fpcache.Trace
---@field format string
---@field sample number share of the keys that were recorded
---@field fills boolean whether a read that found nothing is followed by a load that the trace does not show
local Trace = {}
Trace.__index = Trace

local trace = { FORMATS = { "fpcache", "twitter", "csv", "oracle" },
  WHOLE = { scan = true, clear = true, tag = true } } -- calls without a key

--- A number that is not negative, or nil.
local function count(text)
  local value = tonumber(text)
  if value and value >= 0 and value < math.huge then return value end
end

local NEXT = {}

-- --- ours ---

local OPS = { get = "get", exists = "exists", fetch = "fetch", set = "set", delete = "delete", scan = "scan", clear = "clear",
  tag = "tag" }
local LINE = "^([^,]+),([^,]+),([^,]*),([^,]*),([^,]*),([^,]*),([^,]*),?([^,]*),?([^,]*),?([^,]*)$"
local UNDONE = { refused = true, error = true, raised = true }

--- A header: another writer begins.
local function read_header(self, line)
  local version = tonumber(line:match(HEADER))
  if version and version > recorder.VERSION then
    error({ fatal = ("invalid: %s is a trace of version %d, and this fpcache knows %d"):format(self.name, version,
      recorder.VERSION) })
  end
  return version ~= nil
end

--- What is seldom told of a call.
local function about_of(op, key, bytes, answer, took, space, tags)
  local loaded = op == "fetch" and answer:find("^loaded")
  local none = op == "get" and answer:find("^miss") or loaded and not bytes
  local rows = op == "scan" and count(answer:match(" (%d+)$"))
  if not (loaded or none or rows) and space == "" and tags == "" and op ~= "clear" then return nil end
  local about = { none = none and true or nil, rows = rows or nil, space = space, all = key == "*" or nil }
  took = loaded and count(took)
  if took then about.took = took / 1e6 end
  if tags ~= "" then
    about.tags = {}
    for tag in tags:gmatch("%S+") do about.tags[#about.tags + 1] = tag end
  end
  return about
end

function NEXT.fpcache(self)
  while true do
    local line = self.reader:line()
    if not line then return end
    if line:byte(1) == 35 then
      if not read_header(self, line) then return nil, "no header of a trace" end
    elseif line ~= "" then
      local time, op, key, key_bytes, bytes, ttl, answer, took, space, tags = line:match(LINE)
      time, op = count(time), OPS[op]
      if not (time and op) or key == "" and not trace.WHOLE[op] then return nil, "no call of a trace" end
      if not UNDONE[answer] or op ~= "set" and op ~= "delete" then
        bytes = count(bytes)
        return time, op, key, count(key_bytes), bytes, count(ttl), about_of(op, key, bytes, answer, took, space, tags)
      end
    end
  end
end

-- --- Twitter's ---

local TWITTER_OPS = { get = "get", gets = "get", set = "set", add = "set", replace = "set", cas = "set", append = "set",
  prepend = "set", incr = "set", decr = "set", delete = "delete" }
-- A key may hold commas: the other fields are found from both ends.
local TWITTER_LINE = "^(%d+),(.+),(%d*),(%d*),[^,]*,(%a+),(%d*)$"

function NEXT.twitter(self)
  local line
  repeat
    line = self.reader:line()
    if not line then return end
  until line ~= ""
  local time, key, key_bytes, bytes, op, ttl = line:match(TWITTER_LINE)
  op = TWITTER_OPS[op]
  if not op then return nil, "not timestamp,key,key size,value size,client,operation,TTL" end
  ttl, bytes = count(ttl), count(bytes)
  if ttl == 0 then ttl = nil end
  local about
  if op == "get" and bytes == 0 then bytes, about = nil, { none = true } end -- a miss
  return tonumber(time), op, key, count(key_bytes), bytes, ttl, about
end

-- --- libCacheSim's ---

local function fields_of(line)
  local fields = {}
  for field in (line .. ","):gmatch("[ \t]*([^,]-)[ \t]*,") do fields[#fields + 1] = field end
  return fields
end

function NEXT.csv(self)
  local line
  repeat
    line = self.reader:line()
    if not line then return end
  until line:find("%S") and line:byte(1) ~= 35
  local fields, columns = fields_of(line), self.columns
  local time, key = count(fields[columns.time]), fields[columns.key]
  if not time and not self.began then -- the header
    self.began = true
    return NEXT.csv(self)
  end
  self.began = true
  if not time or not key or key == "" then return nil, "no time or no object in its column" end
  return time, "get", key, #key, columns.size and count(fields[columns.size])
end

function NEXT.oracle(self)
  local r = self.reader
  while #r.buffer - r.at + 1 < ORACLE_BYTES do
    if not r:read_more() then
      local rest = #r.buffer - r.at + 1
      if rest == 0 then return end
      r:take(rest)
      return nil, ("the file ends within a record of %d bytes"):format(ORACLE_BYTES)
    end
  end
  local buffer, at = r.buffer, r.at
  local a, b, c, d = buffer:byte(at, at + 3)
  local key = buffer:sub(at + 4, at + 11)
  local e, f, g, h = buffer:byte(at + 12, at + 15)
  r.at, r.offset = at + ORACLE_BYTES, r.offset + ORACLE_BYTES
  r.line_number = r.line_number + 1
  return a + b * 256 + c * 65536 + d * 16777216, "get", key, 8, e + f * 256 + g * 65536 + h * 16777216
end

--- The format of what begins so, and is called so.
local function guess(path, start)
  if start:sub(1, #recorder.HEADER) == recorder.HEADER then return "fpcache" end
  if path:lower():find("oracle") or start:sub(1, 240):find("%z") then return "oracle" end
  local line = start:match("^[^\r\n]*")
  if TWITTER_OPS[(select(5, line:match(TWITTER_LINE)))] then return "twitter" end
  if #fields_of(line) >= 2 then return "csv" end
end

--- Columns as in "time=1,key=2,size=3".
---@param text string
---@return table? columns, string? err
function trace.columns(text)
  local columns = {}
  for name, number in text:gmatch("(%a+)=(%d+)") do columns[name] = tonumber(number) end
  if not (columns.time and columns.key) or text:gsub("%a+=%d+,?", "") ~= "" then
    return nil, ("invalid: %s does not say which columns are what, as time=1,key=2,size=3 does"):format(text)
  end
  return columns
end

--- Whether a key is in a sample.
---@param key string
---@param limit number the sample's share times 2^32
---@return boolean
function trace.is_sampled(key, limit)
  return tonumber(core.disguise_key("fpcache replay", key):sub(1, 8), 16) < limit
end

--- Opens a trace.
---@param path string "-" is standard input
---@param opts table? { format = one of trace.FORMATS, columns = { time =, key =, size = } of a csv }
---@return fpcache.Trace? trace
---@return string? err
function trace.open(path, opts)
  opts = opts or {}
  local opened, err = reader.open(path, path, MAX_LINE)
  if not opened then return nil, err end
  local self = setmetatable({ reader = opened, name = path, sample = 1,
    columns = opts.columns or { time = 1, key = 2, size = 3 } }, Trace)
  local ok, problem = pcall(opened.read_more, opened)
  local format = opts.format or (ok and guess(path, opened.buffer))
  if not ok or not NEXT[format] then
    opened:close()
    if not ok then return nil, type(problem) == "table" and problem.fatal or tostring(problem) end
    return nil, ("invalid: what format has the trace %s? one of %s"):format(path, table.concat(trace.FORMATS, ", "))
  end
  self.format, self.fills = format, format == "csv" or format == "oracle"
  local sample = format == "fpcache" and count(opened.buffer:match("^[^\n]* sample=(%S+)"))
  if sample and sample > 0 and sample <= 1 then self.sample = sample end
  return self
end

--- The next call; see above.  A file that cannot be read, or a line without an end, raises { fatal = err }.
function Trace:next()
  return NEXT[self.format](self)
end

--- Which record was read last.
function Trace:place() return self.reader.line_number end

function Trace:close() self.reader:close() end

return trace

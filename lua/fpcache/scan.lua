--- Walking over keys: pages of bounded size by keyset, so that nothing is held between them.
local key_range = require("fpcache.key_range")
local options = require("fpcache.options")
local core = require("fpcache.core")
local Cache = require("fpcache.client")

local SCAN_OPTIONS = {
  prefix = { type = "string", default = "" }, -- at most 1,024 bytes
  page = { type = "integer", default = 1000, check = options.between(1, 1000000, "") }, -- rows fetched at a time
  values = { type = "boolean", default = true }, -- false: keys only
  tag = { type = "string" }, -- only keys that have this tag
}

---@class fpcache.Scan
---@field err string? why the walk ended early
---@field on_page fun(began: number, rows: table?, count_or_err: any)? is told of each page, for observe
local Scan = {}
Scan.__index = Scan

local function fetch(self)
  local cache, began = self.cache, core.system.now()
  local name = (self.tag and "scan_tag_" or "scan_") .. (self.values and "values" or "keys")
  local rows, count
  if self.tag then
    rows, count = cache.db:rows(cache.statements[name], cache.bulk_timeout, cache.space, self.tag, self.first, self.last,
      self.page)
  else
    rows, count = cache.db:rows(cache.statements[name], cache.bulk_timeout, cache.space, self.first, self.last, self.page)
  end
  if self.on_page then self.on_page(began, rows, count) end
  if not rows then return nil, count end
  self.rows, self.count, self.at = rows, count, 0
  local width = self.values and 4 or 2
  if count > 0 then self.first = rows[(count - 1) * width + 1] .. "\0" end -- the next possible key
  self.is_last = count < self.page
  return true
end

--- The next key and its value.
---@return string? key nil at the end, and when it failed
---@return any value_or_err
function Scan:next()
  if self.err then return nil, self.err end
  if self.at == self.count then
    if self.is_last then return nil end
    local ok, err = fetch(self)
    if not ok then
      self.err = err
      return nil, err
    end
    if self.count == 0 then return nil end
  end
  local width = self.values and 4 or 2
  local i = self.at * width
  self.at, self.walked = self.at + 1, self.walked + 1
  local rows = self.rows
  local key = rows[i + 2] or rows[i + 1]
  if not self.values then return key end
  local value, err = core.value_decode(rows[i + 3], rows[i + 4], self.cache.codec, self.cache.parse_json,
    rows[i + 1])
  if value == nil then
    self.err = ("%s (key %d of the walk)"):format(err, self.walked)
    return nil, self.err
  end
  return key, value
end

--- In a `for` loop a failure has no other way to be noticed, so there it raises.
Scan.__call = function(self)
  local key, value = self:next()
  if key == nil and self.err then error(self.err, 2) end
  return key, value
end

--- Walks over keys in their order, a page at a time.  Keys written meanwhile may or may not appear; each appears once.
--
--     for key, value in cache:scan{ prefix = "user:" } do … end     -- raises when the server fails
--     local scan = cache:scan{}; local key, value = scan:next()     -- nil, err when it fails
---@param opts table? { prefix, tag, page = 1000, values = true }
---@return fpcache.Scan? scan
---@return string? err
function Cache:scan(opts)
  local read = options.read(SCAN_OPTIONS, opts, 2)
  local first, last = key_range.of_prefix(read.prefix)
  if not first then return nil, last end
  return setmetatable({ cache = self, first = first, last = last, page = read.page, values = read.values,
    tag = read.tag,
    at = 0, count = 0, walked = 0, is_last = false }, Scan)
end

local KEYS_OPTIONS = {
  prefix = { type = "string", default = "" },
  tag = { type = "string" },
  limit = { type = "integer", check = options.not_negative }, -- keys at most
}
local KEYS_PAGE = 10000

--- The keys of this namespace in order.
---@param opts string|table|nil prefix, or { prefix, tag, limit }
---@return string[]? keys
---@return string? err
function Cache:keys(opts)
  if type(opts) == "string" then opts = { prefix = opts } end
  local read = options.read(KEYS_OPTIONS, opts, 2)
  local page = math.max(math.min(read.limit or KEYS_PAGE, KEYS_PAGE), 1)
  local scan, err = self:scan({ prefix = read.prefix, tag = read.tag, values = false, page = page })
  if not scan then return nil, err end
  local keys = {}
  while #keys < (read.limit or math.huge) do
    local key
    key, err = scan:next()
    if err then return nil, err end
    if key == nil then break end
    keys[#keys + 1] = key
  end
  return keys
end

local COUNT_OPTIONS = { prefix = { type = "string" }, tag = { type = "string" }, all = { type = "boolean" } }

--- How many keys there are; counts them one by one.
---@param opts string|table|nil prefix, or { prefix, tag }, or { all = true } for every namespace of this user
---@return integer? count
---@return string? err
function Cache:count(opts)
  if type(opts) == "string" then opts = { prefix = opts } end
  local read = options.read(COUNT_OPTIONS, opts, 2)
  if read.all and (read.prefix or read.tag) then
    error(("options: all and %s exclude each other"):format(read.prefix and "prefix" or "tag"), 2)
  end
  local found, count
  if read.all then
    found, count = self.db:row(self.statements.count_all, self.bulk_timeout)
  else
    local first, last = key_range.of_prefix(read.prefix or "")
    if not first then return nil, last end
    if read.tag then
      found, count = self.db:row(self.statements.count_tag, self.bulk_timeout, self.space, read.tag, first, last)
    else
      found, count = self.db:row(self.statements.count, self.bulk_timeout, self.space, first, last)
    end
  end
  if not found then return nil, count end
  return count
end

return Cache

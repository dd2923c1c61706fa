--- Sources and values from HTTP servers: several at once, tried again, bounded.
local codec = require("fpcache.codec")
local core = require("fpcache.core")
local lines = require("fpcache.warm.lines")
local options = require("fpcache.options")
local scheduler = require("fpcache.scheduler")

local system = core.system

local remote = {}

remote.OPTIONS = {
  parallel = { type = "integer", default = 8, check = options.between(1, 1000, "") }, -- at once
  tries = { type = "integer", default = 5, check = options.between(1, 100, "") },
  timeout = { type = "number", default = 30, check = options.positive }, -- seconds, of one try for one value
  stall = { type = "number", default = 30, check = options.between(1, 86400, " seconds") }, -- without a byte
  first_pause = { type = "number", default = 0.2, check = options.positive }, -- seconds before the second try; doubles
  longest_pause = { type = "number", default = 10, check = options.positive },
  max_bytes = { type = "integer", check = options.positive }, -- of one body; values 16 MiB, sources 16 GiB
  headers = { type = "table" }, -- lines "Name: value"
  ca_file = { type = "string" },
}

local VALUE_BYTES, SOURCE_BYTES = 16 * 1024 * 1024, 16 * 1024 * 1024 * 1024
local WAIT_S = 0.02 -- for HTTP, before other tasks may run
local FORMATS = { -- by Content-Type, where the name has no suffix
  ["application/x-ndjson"] = "jsonl", ["application/jsonl"] = "jsonl", ["application/x-jsonlines"] = "jsonl",
  ["application/json"] = "json", ["text/csv"] = "csv", ["text/tab-separated-values"] = "tsv", ["text/plain"] = "lines",
}

local Remote = {}
Remote.__index = Remote

--- Whether a source is to be fetched.
---@param name string
---@return boolean
function remote.is_url(name)
  return name:find("^[hH][tT][tT][pP][sS]?://") ~= nil
end

--- The name of a URL for people and files: its query may be secret.
---@param url string
---@return string
function remote.shown(url)
  return (url:gsub("[?#].*$", ""))
end

local function downloads(o, timeout, max_bytes)
  return core.downloads {
    parallel = o.parallel, tries = o.tries, timeout = timeout, stall = o.stall, first_pause = o.first_pause,
    longest_pause = o.longest_pause, max_bytes = o.max_bytes or max_bytes, headers = o.headers, ca_file = o.ca_file,
  }
end

--- Whatever has to be fetched for one job.
---@param opts table? remote.OPTIONS
---@param urls string[] the sources among them, in order; [i] = false for one that is none
---@return table? remote
---@return string? err
function remote.new(opts, urls, level)
  local o = options.read(remote.OPTIONS, opts, level + 1)
  for _, line in ipairs(o.headers or {}) do
    if type(line) ~= "string" or not line:find("^[^:%s]+:[^\r\n%z]*$") then
      error("options.headers: lines such as \"Accept: text/csv\" are expected", level + 1)
    end
  end
  return setmetatable({ o = o, urls = urls, files = {}, asked = {}, loading = {} }, Remote)
end

-- --- sources: into files that are removed as soon as they are open ---

--- Asks for the sources from this one on, a few ahead.
local function ask_ahead(self, index)
  for i = index, math.min(index + self.o.parallel - 1, #self.urls) do
    if self.urls[i] and not self.asked[i] then
      local path = ("%s/%d"):format(self.dir, i)
      local id, err = self.sources:add(self.urls[i], path)
      if not id then return nil, err end
      self.asked[i], self.files[id] = id, { path = path }
    end
  end
  return true
end

local function take_source(self, one)
  local file = self.files[one.id]
  file.is_done, file.error, file.type, file.tag = true, one.error, one.type, one.tag
end

--- Moves bytes that are there; waits for nothing.
function Remote:pump()
  if not self.sources or self.sources:left() == 0 then return end
  local one = self.sources:wait(0)
  if one then take_source(self, one) end
end

local function format_of(url, content_type)
  return lines.format_of(remote.shown(url)) or FORMATS[content_type:match("^[^;%s]*"):lower()]
end

--- Opens the index-th source, once it is there.
---@param index integer
---@param format string? else by the URL's suffix, else by its Content-Type
---@return table? source
---@return string? err
function Remote:open(index, format)
  local err
  if not self.sources then
    self.sources, err = downloads(self.o, 0, SOURCE_BYTES)
    if not self.sources then return nil, err end
    self.dir, err = system.mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/fpcache-warm-")
    if not self.dir then return nil, err end
  end
  local ok
  ok, err = ask_ahead(self, index)
  if not ok then return nil, err end
  local id, url = self.asked[index], self.urls[index]
  local file = self.files[id]
  while not file.is_done do
    local one
    one, err = self.sources:wait(WAIT_S)
    if one then
      take_source(self, one)
    elseif err and err:find("^timeout:") then
      ok, err = scheduler.sleep(0)
      if not ok then return nil, err end
    else
      return nil, err
    end
  end
  self.files[id] = nil
  if file.error then return nil, file.error end
  local source
  source, err = lines.open(file.path, format or format_of(url, file.type), remote.shown(url))
  os.remove(file.path)
  if not source then return nil, err end
  source.tag = file.tag ~= "" and file.tag or nil
  return source
end

-- --- values: into memory ---

--- JSON where the server says so, else the bytes.
local function value_of(one)
  local kind = one.type:match("^[^;%s]*"):lower()
  if kind ~= "application/json" and not kind:find("+json", 1, true) then return one.body end
  local value, err = codec.json.decode(one.body)
  if value == nil then return nil, (err:gsub("^%a+: ", "")) end
  return value
end

local function take_value(self, one)
  local owner = self.loading[one.id]
  self.loading[one.id] = nil
  owner.left = owner.left - 1
  local value, why = nil, one.error
  if not why then value, why = value_of(one) end
  if value == nil then owner.complain(owner.place[one.id], why) else owner.values[owner.place[one.id]] = value end
end

--- Replaces each URL of a list by its body.
---@param values table
---@param complain fun(i: integer, why: string)
---@return boolean? ok
---@return string? err
function Remote:load(values, complain)
  local err
  if not self.bodies then
    self.bodies, err = downloads(self.o, self.o.timeout, VALUE_BYTES)
    if not self.bodies then return nil, err end
  end
  local owner = { left = 0, place = {}, values = values, complain = complain }
  for i, url in ipairs(values) do
    local id
    id, err = self.bodies:add(url)
    if not id then return nil, err end
    self.loading[id], owner.place[id], owner.left = owner, i, owner.left + 1
  end
  while owner.left > 0 do
    local one
    one, err = self.bodies:wait(WAIT_S)
    if one then
      take_value(self, one)
    elseif err and err:find("^timeout:") then
      local ok, why = scheduler.sleep(0)
      if not ok then return nil, why end
    else
      return nil, err
    end
  end
  return true
end

function Remote:close()
  if self.sources then self.sources:close() end
  if self.bodies then self.bodies:close() end
  if self.dir then system.remove_tree(self.dir) end
end

return remote

--- Doing the same for many things, several at once.
local core = require("fpcache.core")
local options = require("fpcache.options")
local scheduler = require("fpcache.loop").tasks

local pack = table.pack or function(...) return { n = select("#", ...), ... } end
local unpack = table.unpack or unpack -- luacheck: ignore 143

local OPTIONS = {
  jobs = { type = "integer", default = 64, check = options.between(1, 100000, "") }, -- at once
  each = { type = "table function" }, -- a list, or an iterator that ends with nil
  run = { type = "function" },        -- called with what the iterator gives, or with an item and its place in the list
}

--- An iterator over a list.
local function list_source(list)
  local i = 0
  return function()
    i = i + 1
    if list[i] ~= nil then return list[i], i end
  end
end

--- Tasks take items from one source; one at a time, since an iterator may itself wait.
local function guarded(source)
  local is_taken = false
  return function()
    while is_taken do
      local ok, err = scheduler.sleep(0)
      if not ok then return { n = 0, err = err } end
    end
    is_taken = true
    local item = pack(pcall(source))
    is_taken = false
    return item
  end
end

--- One of the tasks: takes an item, runs, and so on.
local function work(state)
  while not state.is_over do
    local item = state.take()
    if not item[1] or item[2] == nil then -- the iterator raised, ended, or we were cancelled
      state.is_over = true
      if item.n > 0 and not item[1] then error(item[2], 0) end
      return
    end
    if state.is_over then return end
    local place = state.results.n + 1
    state.results.n = place
    local ok, value, err = pcall(state.run, unpack(item, 2, item.n))
    if not ok then value, err = nil, "raised: " .. tostring(value) end
    if value == nil and err ~= nil then
      state.errors = state.errors or {}
      state.errors[place] = err
      if core.interrupted() then state.is_over = true end
    else
      state.results[place] = value
    end
  end
end

local parallel = {}

--- Calls run(...) for each item, for `jobs` items at once; their cache calls travel together.  In the order of the items
-- they begin, not in that in which they end.
---@param opts table { jobs = 64, each = list or iterator, run = function }
---@return table? results { n = items, [i] = what run returned for the i-th } nil when the iterator raised or the program ends
---@return table|string|nil errors { [i] = err } of those for which run raised ("raised: ...") or returned nil, err; nil: none
function parallel.run(opts)
  local read = options.read(OPTIONS, opts, 2)
  if read.each == nil then error("options.each is missing (a list or an iterator)", 2) end
  if read.run == nil then error("options.run is missing (a function)", 2) end
  local source = type(read.each) == "table" and getmetatable(read.each) == nil and list_source(read.each) or read.each
  local state = { take = guarded(source), run = read.run, results = { n = 0 }, is_over = false }
  local jobs = read.jobs
  if type(read.each) == "table" and getmetatable(read.each) == nil then jobs = math.min(jobs, #read.each) end
  local workers, failure = {}, nil
  for i = 1, jobs do
    workers[i], failure = scheduler.spawn(work, state)
    if not workers[i] then return nil, failure end -- the first one; then none could be started
  end
  for i = 1, jobs do
    local _, err = scheduler.await(workers[i])
    if err then state.is_over, failure = true, failure or err end
  end
  if core.interrupted() then failure = "interrupted: interrupted" end
  if failure then return nil, failure end
  return state.results, state.errors
end

return parallel

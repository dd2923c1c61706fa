--- The sweeper: removes what has expired, evicts what is beyond a quota, in small slices with pauses between them.
--
-- Any number of processes may run one: one at a time does a pass, and not before the last began `every` ago.  It holds no session
-- state, so it works behind a transaction pooler.
local core = require("fpcache.core")
local options = require("fpcache.options")
local waiting = require("fpcache.waiting")
local Cache = require("fpcache.client")

local SLICE_PAGES = 1000 -- 8 MB: a few milliseconds of work and of locks
local SIGN_OF_LIFE = 20 -- seconds; a pass that gave none for a minute is taken for dead (schema/m018_one_pass.lua)

---@class fpcache.Sweeper
---@field cache fpcache.Cache
local Sweeper = {}
Sweeper.__index = Sweeper

local sweeper = {}

local function share(value)
  if not (value > 0 and value <= 1) then return ("must be more than 0 and at most 1, got %s"):format(tostring(value)) end
end

sweeper.OPTIONS = {
  every = { type = "duration", default = 10, check = options.positive },
  duty = { type = "number", default = 0.25, check = share }, -- part of the time it works, while it has work
}

local OVERTAKEN = "busy: the sweep was silent for so long that another one has begun; this one ends"

--- A statement of (first page, number of pages, pass) over all pages of a table, `left` rows at most.
---@param pass? { number: integer, rest: fun(worked: number): boolean?, string? } rests between the slices; nil: none of a sweeper
local function walk(cache, pages_statement, statement, pass, left)
  local found, pages = cache.db:row(pages_statement, cache.timeout)
  if not found then return nil, pages end
  local done = 0
  for first = 0, tonumber(pages), SLICE_PAGES do
    if left and done >= left then break end
    local began = core.system.now()
    local ok, rows = cache.db:row(statement, cache.bulk_timeout, first, SLICE_PAGES, pass and pass.number)
    if not ok then return nil, rows end
    if not rows then return nil, OVERTAKEN end
    done = done + rows
    if pass then
      if core.interrupted() then return nil, "interrupted: the sweep was stopped" end
      local may_go_on, err = pass.rest(core.system.now() - began)
      if not may_go_on then return nil, err end
    end
  end
  return done
end

--- Deletes expired rows, everybody's, in small slices; rows being written are passed over.
---@return integer? deleted
---@return string? err
function Cache:cleanup()
  local statements = self.statements
  local deleted, err = walk(self, statements.pages, statements.sweep)
  if not deleted then return nil, err end
  local ok
  ok, err = walk(self, statements.tag_pages, statements.sweep_tags)
  if not ok then return nil, err end
  return deleted
end

--- A sweeper on a cache of its own, which it closes in the end.
---@param cache fpcache.Cache
---@param opts { every: number, duty: number } read by sweeper.OPTIONS
---@return fpcache.Sweeper
function sweeper.new(cache, opts)
  return setmetatable({ cache = cache, every = opts.every, duty = opts.duty,
    sleep = waiting.sleep }, Sweeper)
end

--- Rests after a slice; a long rest is interrupted to say that the pass goes on.
local function rest(self, number, worked)
  local cache = self.cache
  local left = worked * (1 / self.duty - 1)
  while left > 0 do
    self.sleep(math.min(left, SIGN_OF_LIFE))
    left = left - SIGN_OF_LIFE
    if left > 0 then
      local found, may_go_on = cache.db:row(cache.statements.go_on, cache.timeout, number)
      if not found then return nil, may_go_on end
      if not may_go_on then return nil, OVERTAKEN end
    end
  end
  return true
end

--- What a pass does, in this order.
local function keep(cache, pass)
  local statements, report, err = cache.statements, { evicted = 0 }
  report.expired, err = walk(cache, statements.pages, statements.sweep, pass)
  if not report.expired then return nil, err end
  local found, planned = cache.db:row(statements.plan_evictions, cache.bulk_timeout, pass.number)
  if not found then return nil, planned end
  if not planned then return nil, OVERTAKEN end
  planned = tonumber(planned)
  if planned > 0 then
    report.evicted, err = walk(cache, statements.pages, statements.evict, pass, planned)
    if not report.evicted then return nil, err end
  end
  report.tags, err = walk(cache, statements.tag_pages, statements.sweep_tags, pass)
  if not report.tags then return nil, err end
  return report
end

--- One pass over the table, if one is due and nobody else is at it.
---@return table|false|nil report { expired, evicted, tags, seconds }; false: not due, or done by somebody else
---@return string? err
function Sweeper:pass()
  local cache, began = self.cache, core.system.now()
  local found, number = cache.db:row(cache.statements.begin_pass, cache.timeout, self.every * 0.9)
  if not found then return nil, number end
  if not number then return false end
  local report, err = keep(cache, { number = number, rest = function(worked) return rest(self, number, worked) end })
  cache.db:row(cache.statements.end_pass, cache.timeout, number) -- where this fails, others wait until it is taken for dead
  if not report then return nil, err end
  report.seconds = core.system.now() - began
  return report
end

--- Passes until stop() or a signal ends it; each failure is told and the next pass tries again.
---@param tell? fun(report: table|false|nil, err: string?) called after each
---@return boolean true
function Sweeper:run(tell)
  self.is_stopped = false
  while not self.is_stopped and not core.interrupted() do
    local report, err = self:pass()
    if tell then tell(report, err) end
    local until_time = core.system.now() + self.every
    while not self.is_stopped and not core.interrupted() and core.system.now() < until_time do
      self.sleep(math.min(0.2, until_time - core.system.now())) -- short ones: a signal is noticed
    end
  end
  return true
end

--- Ends run() after the pass it is at; for `tell`.
function Sweeper:stop() self.is_stopped = true end

--- Closes its connection.
function Sweeper:close() self.cache:close() end

Sweeper.__close = Sweeper.close

return sweeper

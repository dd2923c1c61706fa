--- The sweeper: removes what has expired, in small slices.
local Cache = require("fpcache.client")

local SWEEP_PAGES = 1000 -- 8 MB: a few milliseconds of work and of locks

--- Runs a statement of (first page, number of pages) over a whole table; how many rows it removed.
local function sweep(self, pages_statement, statement)
  local found, pages = self.db:row(pages_statement, self.timeout)
  if not found then return nil, pages end
  local deleted = 0
  for first = 0, tonumber(pages), SWEEP_PAGES do
    local ok, swept = self.db:row(statement, self.bulk_timeout, first, SWEEP_PAGES)
    if not ok then return nil, swept end
    deleted = deleted + swept
  end
  return deleted
end

--- Deletes expired rows, everybody's, in small slices; rows being written are passed over.
---@return integer? deleted
---@return string? err
function Cache:cleanup()
  local statements = self.statements
  local deleted, err = sweep(self, statements.pages, statements.sweep)
  if not deleted then return nil, err end
  local ok
  ok, err = sweep(self, statements.tag_pages, statements.sweep_tags)
  if not ok then return nil, err end
  return deleted
end

return Cache

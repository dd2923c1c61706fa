--- A source of records: the rows of an SQL query on any PostgreSQL, fetched in pages by a cursor.
local connection = require("fpcache.connection")
local options = require("fpcache.options")

local query = {}

local PAGE_ROWS = 2000

local Source = {}
Source.__index = Source

local function fetch(self)
  local rows, err = self.conn:query(("FETCH %d FROM fpcache_warm"):format(PAGE_ROWS), self.timeout)
  if not rows then error({ fatal = err .. " (in the source's query)" }) end
  self.rows, self.at = rows, 0
end

function Source:next()
  if self.at == #self.rows then
    if self.is_over then return nil end
    fetch(self)
    if #self.rows < PAGE_ROWS then self.is_over = true end
    if #self.rows == 0 then return nil end
  end
  self.at, self.count = self.at + 1, self.count + 1
  return self.rows[self.at], self.count
end

function Source:place() return { count = self.count } end

--- Passes over the rows that were read before: right only when the query orders them.
function Source:go_to(place)
  local moved, err = self.conn:query(("MOVE FORWARD %d FROM fpcache_warm"):format(place.count), self.timeout)
  if not moved then return nil, err end
  self.count = place.count
  return true
end

function Source:close()
  self.conn:close()
  self.pool:close()
end

--- Runs the query, read only.
---@param text string SQL, one SELECT
---@param opts table connection options: where it runs
---@return table? source
---@return string? err
function query.open(text, opts)
  local o = options.read(connection.OPTIONS, opts, 2)
  o.minconn, o.maxconn = 1, 1
  local pool, err = connection.open(o, 2)
  if not pool then return nil, err end
  local conn
  conn, err = pool:acquire(o.timeout)
  if not conn then
    pool:close()
    return nil, err
  end
  local self = setmetatable({ pool = pool, conn = conn, timeout = o.bulk_timeout, rows = {}, at = 0, count = 0,
    name = "query" }, Source)
  local ok
  ok, err = conn:script("BEGIN READ ONLY", o.timeout)
  if ok then ok, err = conn:query("DECLARE fpcache_warm NO SCROLL CURSOR FOR " .. text, o.bulk_timeout) end
  if ok then return self end
  self:close()
  return nil, err .. " (in the source's query)"
end

return query

--- A live stream of changes: what anybody sets and deletes, from the change feed.  Reads leave no trace, so they are not seen.
local connection = require("fpcache.connection")
local options = require("fpcache.options")
local schema = require("fpcache.schema")
local sql = require("fpcache.sql")
local statements = require("fpcache.statements.top")

---@class fpcache.Monitor
local Monitor = {}
Monitor.__index = Monitor

local monitor = {}

local OPTIONS = options.join(connection.OPTIONS, {
  of_user = { type = "string" },      -- changes of this user's entries; others' are seen by superusers only
  of_namespace = { type = "string" }, -- and of this namespace
})

---@param opts table connection options of fpcache.new, of_user, of_namespace
---@return fpcache.Monitor? monitor
---@return string? err
function monitor.open(opts)
  local o = options.read(OPTIONS, opts, 2)
  local pool, quoted = connection.open_few(o, 1, 2)
  if not pool then return nil, quoted end
  local text = sql.fill(statements.monitor, schema.places(quoted))
  local self = setmetatable({ pool = pool, o = o, text = text }, Monitor)
  local ok, err = self:poll() -- from here on
  if not ok then
    pool:close()
    return nil, err
  end
  return self
end

local function kind_of(row)
  if row.namespace == nil then return "clear all" end
  if row.is_all then return "clear" end
  return row.is_there and "set" or "deleted"
end

--- The changes since the last call, in order of their transactions; and what else is to be told.
---@return table[]? events { what, login, namespace, key, bytes, ttl }: what is "set", "deleted" (there is no such key any more),
-- "clear" (a namespace), "clear all", "emptied" (the table), "off" (the feed is switched off), "missed" (too late for some)
---@return string? err
function Monitor:poll()
  local conn, err = self.pool:acquire(self.o.timeout)
  if not conn then return nil, err end
  local rows
  rows, err = conn:query(self.text, self.o.timeout, self.snapshot, self.o.of_user, self.o.of_namespace)
  conn:close()
  if not rows then return nil, err end
  local events, head = {}, rows[1]
  if not head.is_on and self.is_on ~= false then events[1] = { what = "off" } end
  if self.snapshot then
    if head.incarnation ~= self.incarnation then events[#events + 1] = { what = "emptied" } end
    if head.fell_behind then events[#events + 1] = { what = "missed" } end
    for _, row in ipairs(rows) do
      if row.is_change and (row.is_all or row.has_key) then
        events[#events + 1] = { what = kind_of(row), login = row.login, namespace = row.namespace, key = row.key,
          bytes = row.bytes, ttl = row.ttl }
      end
    end
  end
  self.snapshot, self.incarnation, self.is_on = head.snapshot, head.incarnation, head.is_on
  return events
end

function Monitor:close() self.pool:close() end

return monitor

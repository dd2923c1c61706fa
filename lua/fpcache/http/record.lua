--- A response as it stands in the table: text for its head, then the body byte for byte.
--
--     fpcache-http 1
--     200 1763870000125 0 60000 30000 600000 -    status; ms: received, initial age, lifetime, while revalidate, if error; flag
--     Content-Type: text/html
--
--     <html>...
local record = {}

local MAGIC = "fpcache-http 1\n"
local MARKS = { vary = "fpcache-vary 1\n", pass = "fpcache-pass 1\n" }

---@class fpcache.HttpRecord
---@field status integer
---@field received number seconds since 1970
---@field initial_age number seconds
---@field lifetime number seconds from when it was made
---@field while_revalidate number seconds
---@field if_error number seconds
---@field revalidate boolean it must be asked for each time
---@field fields table<string, table>
---@field body string

--- Whether a field can stand in a record; nginx lets no others through.
local function is_plain(name, value)
  return not name:find("[%c: ]") and name ~= "" and not value:find("[\r\n%z]")
end

---@param response fpcache.HttpRecord
---@return string
function record.pack(response)
  local lines = { ("%d %.0f %.0f %.0f %.0f %.0f %s"):format(response.status, response.received * 1000,
    response.initial_age * 1000, response.lifetime * 1000, response.while_revalidate * 1000, response.if_error * 1000,
    response.revalidate and "r" or "-") }
  local names = {}
  for name in pairs(response.fields) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local field = response.fields[name]
    for _, value in ipairs(field) do
      if is_plain(field.name, value) then lines[#lines + 1] = field.name .. ": " .. value end
    end
  end
  return MAGIC .. table.concat(lines, "\n") .. "\n\n" .. response.body
end

--- Reads what pack wrote.
---@param text any
---@return fpcache.HttpRecord? response nil: it is something else
function record.unpack(text)
  if type(text) ~= "string" or text:sub(1, #MAGIC) ~= MAGIC then return nil end
  local head_end = text:find("\n\n", #MAGIC, true)
  if not head_end then return nil end
  local first_end = text:find("\n", #MAGIC + 1, true)
  local status, received, initial_age, lifetime, while_revalidate, if_error, flag =
    text:sub(#MAGIC + 1, first_end - 1):match("^(%d%d%d) (%d+) (%d+) (%d+) (%d+) (%d+) ([r-])$")
  if not status then return nil end
  local fields = {}
  for name, value in text:sub(first_end + 1, head_end):gmatch("([^\n:]+): ([^\n]*)\n") do
    local lower = name:lower()
    local field = fields[lower] or { name = name }
    field[#field + 1] = value
    fields[lower] = field
  end
  return {
    status = tonumber(status), received = received / 1000, initial_age = initial_age / 1000, lifetime = lifetime / 1000,
    while_revalidate = while_revalidate / 1000, if_error = if_error / 1000, revalidate = flag == "r", fields = fields,
    body = text:sub(head_end + 2),
  }
end

--- A mark in the place of a response: that answers vary by these fields, or that they are not kept.
---@param kind "vary"|"pass"
---@param names string[]?
---@return string
function record.mark(kind, names)
  return MARKS[kind] .. table.concat(names or {}, ",")
end

--- Reads a mark.
---@param text any
---@return "vary"|"pass"|nil kind
---@return string[]? names
function record.read_mark(text)
  if type(text) ~= "string" then return nil end
  for kind, magic in pairs(MARKS) do
    if text:sub(1, #magic) == magic then
      local names = {}
      for name in text:sub(#magic + 1):gmatch("[^,]+") do names[#names + 1] = name end
      return kind, names
    end
  end
end

return record

--- Cache-Control (RFC 9111, 5.2): read in one pass over the text, whatever it holds; no text makes it raise.
local headers = require("fpcache.http.headers")

local directives = {}

local MAX_SECONDS = 2147483648 -- what does not fit is taken as this (RFC 9111, 1.2.2)

--- Reads a quoted string that begins at `at`.
---@return string value without quotes and escapes
---@return integer after
local function quoted(text, at)
  local parts, from = {}, at + 1
  while true do
    local stop = text:find('["\\]', from)
    if not stop then -- it is never closed: the rest is its value
      parts[#parts + 1] = text:sub(from)
      return table.concat(parts), #text + 1
    end
    parts[#parts + 1] = text:sub(from, stop - 1)
    if text:byte(stop) == 34 then return table.concat(parts), stop + 1 end
    parts[#parts + 1] = text:sub(stop + 1, stop + 1)
    from = stop + 2
  end
end

--- The end of the member that begins at `at`: the comma after it that stands in no quotes, or beyond the text.  A semicolon,
-- which some origins write instead, ends it too: else "no-store; max-age=60" would say nothing.
local function end_of_member(text, at)
  while true do
    local stop = text:find('[,;"]', at)
    if not stop then return #text + 1 end
    if text:byte(stop) ~= 34 then return stop end
    local _
    _, at = quoted(text, stop)
  end
end

--- The directives of a Cache-Control field: { [name in lower case] = true or its argument as text }.
--
-- Of the same directive twice the first counts (RFC 9111, 4.2.1); but no-cache and private count without their list of fields
-- when they stand without one anywhere, which is the more restrictive.
---@param text string? the lines joined
---@return table<string, true|string>
function directives.parse(text)
  local found = {}
  if not text then return found end
  local at = 1
  while at <= #text do
    local from = text:find("[^,;%s]", at)
    if not from then break end
    local name_end = text:find('[=,;%s"]', from) or #text + 1
    local name = text:sub(from, name_end - 1):lower()
    local value, after = true, name_end
    local equals = text:match("^%s*=%s*()", name_end)
    if equals then
      if text:byte(equals) == 34 then
        value, after = quoted(text, equals)
      else
        after = text:find("[,;%s]", equals) or #text + 1
        value = text:sub(equals, after - 1)
      end
    end
    if name ~= "" then
      if found[name] == nil then
        found[name] = value
      elseif value == true and (name == "no-cache" or name == "private") then
        found[name] = true
      end
    end
    at = end_of_member(text, after) + 1
  end
  return found
end

--- The directives of a set of fields.
---@param fields table<string, table>
---@return table<string, true|string>
function directives.of(fields)
  return directives.parse(headers.joined(fields, "cache-control"))
end

--- The seconds of a directive such as max-age.
---@param found table<string, true|string>
---@param name string
---@return number? seconds nil: it is not there; 0 when it has no valid number, so that what it says is over (RFC 9111, 4.2.1)
---@return boolean? is_valid
function directives.seconds(found, name)
  local value = found[name]
  if value == nil then return nil end
  if value == true or not value:find("^%d+$") then return 0, false end
  if #value > 10 then return MAX_SECONDS, true end
  return math.min(tonumber(value), MAX_SECONDS), true
end

--- The field names that no-cache="..." or private="..." lists, in lower case; nil when the directive stands without a list.
---@param found table<string, true|string>
---@param name string
---@return string[]?
function directives.fields(found, name)
  local value = found[name]
  if value == nil or value == true then return nil end
  local list = headers.members(value)
  for i, field in ipairs(list) do list[i] = field:lower() end
  if #list == 0 then return nil end -- a list without names: as if it had none
  return list
end

return directives

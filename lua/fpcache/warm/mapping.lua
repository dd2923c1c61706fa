--- From a record to an entry: by the caller's function, or by templates.
local duration = require("fpcache.duration")
local template = require("fpcache.warm.template")

local mapping = {}

--- The function from a record to key, value, ttl.
---@return (fun(record: any): string?, any, number?)? map answers nil, why for a bad record; nil alone: nothing to store
---@return string? err
function mapping.new(o, level)
  if o.map then
    if o.key or o.value or o.url then error("options.map: excludes key, value and url", level + 1) end
    local ttl = o.ttl
    if type(ttl) == "string" then error("options.ttl: a time is expected with map, not a template", level + 1) end
    return function(record)
      local key, value, own_ttl = o.map(record)
      if own_ttl == nil then own_ttl = ttl end
      return key, value, own_ttl
    end
  end
  if not o.key then error("options: key or map is needed", level + 1) end
  if o.url and o.value then error("options.url: excludes value", level + 1) end
  local key_of, value_of, ttl_of, err
  key_of, err = template.text(o.key)
  if not key_of then return nil, err end
  if o.url then value_of, err = template.text(o.url) else value_of, err = template.value(o.value) end
  if not value_of then return nil, err end
  if type(o.ttl) == "string" then
    ttl_of, err = template.text(o.ttl)
    if not ttl_of then return nil, err end
  end
  return function(record)
    local key, why = key_of(record)
    if not key then return nil, why end
    local value
    value, why = value_of(record)
    if value == nil then return nil, why end
    local ttl = o.ttl
    if ttl_of then
      local text
      text, why = ttl_of(record)
      if not text then return nil, why end
      ttl = tonumber(text) or duration.parse(text)
      if not ttl then return nil, "the ttl is no time" end
    end
    return key, value, ttl
  end
end

return mapping

-- traces.lua -- reads whole traces.
local trace = require "fpcache.replay.trace"

local traces = {}

--- All records as { time, op, key, key_bytes, bytes, ttl }, bad ones as texts.
function traces.read(path, opts)
  local source, list = assert(trace.open(path, opts)), {}
  while true do
    local record = { source:next() }
    if record[1] == nil and record[2] == nil then break end
    list[#list + 1] = record[1] and record or record[2]
  end
  source:close()
  return list, source.format
end

return traces

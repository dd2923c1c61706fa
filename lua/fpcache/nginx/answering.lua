--- Sends a response to the client, and measures how long that takes.
local conditional = require("fpcache.http.conditional")
local freshness = require("fpcache.http.freshness")
local headers = require("fpcache.http.headers")

local answering = {}

local NO_BODY = { [204] = true, [304] = true }
local WITHOUT_ORIGIN = { HIT = true, STALE = true }

--- Sends it, as 304 where the client has it.
---@param request table { method, fields }
---@param answer table fpcache.HttpRecord or fpcache.HttpResponse
---@param outcome string for X-Cache
---@param now number seconds since 1970
function answering.send(request, answer, outcome, now)
  local fields, status = headers.storable(answer.fields, { "content-length", "age", "x-cache", "surrogate-key", "cache-tag",
    "surrogate-control" }), answer.status
  local is_ours = outcome ~= "BYPASS"
  if is_ours and conditional.is_not_modified(request.method, request.fields, status, answer.fields, now) then
    status, fields = 304, conditional.fields_of_304(fields)
  end
  ngx.status = status
  for _, field in pairs(fields) do
    local values = {}
    for i, value in ipairs(field) do values[i] = value end
    ngx.header[field.name] = #values == 1 and values[1] or values
  end
  if not fields["content-type"] then ngx.header["Content-Type"] = nil end -- and not the server's default
  -- Age says that the origin did not make or confirm it for this request (RFC 9111, 5.1), or that a cache behind us said so.
  if WITHOUT_ORIGIN[outcome] or is_ours and answer.fields.age then
    ngx.header.Age = ("%d"):format(math.floor(freshness.age(answer, now)))
  end
  ngx.header["X-Cache"] = outcome
  if NO_BODY[status] then return ngx.send_headers() end
  ngx.header["Content-Length"] = #answer.body
  if request.method == "HEAD" then return ngx.send_headers() end
  ngx.print(answer.body)
end

-- Upper ends in seconds; what is beyond the last counts in one more.
answering.BUCKETS = { 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 }

--- Counts by latency, and their sum.
---@return table { counts = one for each bucket and one beyond, sum = seconds, count = }
function answering.new_histogram()
  local counts = {}
  for i = 1, #answering.BUCKETS + 1 do counts[i] = 0 end
  return { counts = counts, sum = 0, count = 0 }
end

function answering.observe(histogram, seconds)
  local buckets, counts, i = answering.BUCKETS, histogram.counts, 1
  while i <= #buckets and seconds > buckets[i] do i = i + 1 end
  counts[i] = counts[i] + 1
  histogram.sum, histogram.count = histogram.sum + seconds, histogram.count + 1
end

return answering

--- `fpcache admin quota|sweep`.
local admin = require("fpcache.admin")
local answer = require("fpcache.cli.answer")
local codec = require("fpcache.codec")
local connection_flags = require("fpcache.cli.connection_flags")
local core = require("fpcache.core")
local fpcache = require("fpcache")
local size = require("fpcache.units").read_bytes

local keeping = {}

local function count(text)
  local number = tonumber(text)
  if not number then return nil, text .. " is no number" end
  return number
end

--- Adds the commands to a parser; `command(name, description)` makes one with the usual flags.
function keeping.add(command)
  local q = command("quota", "Limit the cache, or one user's part of it; without limits tells them.")
  q:option("--cache-of", "Of this user (default: of all together).", ""):argname("ROLE")
  q:option("--max-entries", "Entries at most."):argname("N"):convert(count)
  q:option("--max-bytes", "Bytes at most, such as 512MB."):argname("SIZE"):convert(size)
  q:flag("--remove", "Take the limit away.")
  local s = command("sweep", "Remove what has expired, evict what is beyond a quota.")
  s:option("--every", "Go on, with a pass so often, such as 10s (default: one pass)."):argname("TIME")
end

local RUN = {}

local function of(value, limit) return limit and ("%d of %d"):format(value, limit) or tostring(value) end

function RUN.quota(flags, opts)
  opts.cache_of, opts.max_entries, opts.max_bytes = flags.cache_of, flags.max_entries, flags.max_bytes
  opts.remove = flags.remove
  local quotas, err = connection_flags.call(admin.quota, opts)
  if not quotas then return nil, err end
  return setmetatable(quotas, codec.array_mt), function()
    for _, q in ipairs(quotas) do
      print(("%s: about %s entries, %s bytes"):format(q.cache_of == "" and "all together" or q.cache_of,
        of(q.entries, q.max_entries), of(q.bytes, q.max_bytes)))
    end
    if #quotas == 0 then print("No quota is set.") end
  end
end

local function words_of(report)
  return ("expired %d, evicted %d, tags in vain %d, %.2f s"):format(report.expired, report.evicted, report.tags, report.seconds)
end

function RUN.sweep(flags, opts)
  local is_once = not flags.every
  opts.every = flags.every or 0.001
  local sweeper, err = connection_flags.call(fpcache.sweeper, opts)
  if not sweeper then return nil, err end
  local last
  if is_once then
    last, err = sweeper:pass()
  else
    sweeper:run(function(report, reason)
      if report then
        io.stdout:write(flags.json and codec.json.encode(report) or words_of(report), "\n")
        io.stdout:flush()
      elseif report == nil and not core.interrupted() then
        answer.complain(reason)
      end
    end)
    last = { is_ended = true }
  end
  sweeper:close()
  if last == nil then return nil, err end
  if last == false then return { swept = false }, function() print("Somebody else is sweeping.") end end
  return last, function() if is_once then print(words_of(last)) end end
end

--- Runs one of the commands.
---@return any report nil when it failed
---@return function|string print_or_err
function keeping.run(flags, opts)
  return RUN[flags.command](flags, opts)
end

--- Whether a command is one of these.
function keeping.has(name) return RUN[name] ~= nil end

return keeping

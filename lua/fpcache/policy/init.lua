--- fpcache.policy: how an entry is loaded, kept and renewed, under a name that calls of fetch share.
--
--     local users = fpcache.policy { ttl = "5m", stale_ttl = "1h", negative_ttl = "30s", refresh_ahead = 0.8 }
--     local user, err = cache:fetch("user:17", users, load_user, 17)
--
-- A policy is checked when it is made: what contradicts itself raises, with the reason.  docs/policies.md explains each field.
local lifetimes = require("fpcache.policy.lifetimes")
local limits = require("fpcache.limits")
local options = require("fpcache.options")

local LOCKS = { process = true, host = true, cluster = true }
local MAX_SECONDS = 1e10 -- as of a ttl

---@class fpcache.Policy
---@field ttl number? seconds; nil: no expiry
---@field jitter number
---@field negative_ttl number?
---@field stale_ttl number?
---@field error_backoff number
---@field refresh_ahead number?
---@field beta number?
---@field lock "process"|"host"|"cluster"
---@field lock_timeout number
---@field soft_timeout number?
---@field hard_timeout number
---@field sliding boolean
---@field near boolean
---@field tags string[]?
--- Set by those who build upon fetch (nginx/response.lua), and no option:
---@field gives_old (fun(old: any, key: string): boolean)? whether this older value may be given while another is loaded; nil: any
---@field background (fun(run: function): boolean)? where loading goes that nobody waits for; nil: waiting.background
local Policy = {}
Policy.__index = Policy

local policy = { Policy = Policy }

local function seconds_check(value)
  if not (value > 0 and value <= MAX_SECONDS) then
    return ("must be more than 0 and at most %g seconds, got %s"):format(MAX_SECONDS, tostring(value))
  end
end

local function jitter_check(value)
  if not (value >= 0 and value < 1) then return ("must be at least 0 and less than 1, got %s"):format(tostring(value)) end
end

local function lock_check(value)
  if not LOCKS[value] then return ('must be "process", "host" or "cluster", got %q'):format(value) end
end

local tags_check = options.caught(function(value)
  local list, err = limits.tags(value, 1)
  if not list then return (err:gsub("^invalid: ", "")) end
  if #list == 0 then return "must not be an empty list (leave it out)" end
end)

local function seconds(default) return { type = "duration", default = default, check = seconds_check } end

policy.OPTIONS = {
  ttl = { type = "duration", check = function(value) if value ~= math.huge then return seconds_check(value) end end },
  jitter = { type = "number", default = 0, check = jitter_check }, -- share of the ttl that chance takes off
  negative_ttl = seconds(),       -- "there is none" is remembered for so long; none: it is not
  stale_ttl = seconds(),          -- after its ttl an entry may be given for so long while it is loaded, or cannot be
  error_backoff = seconds(),      -- after a failure nobody loads for so long; the lesser of 5 s and stale_ttl
  refresh_ahead = { type = "number", check = options.share },      -- from this share of its ttl on an entry is loaded anew
  beta = { type = "number", check = options.positive },    -- XFetch: loaded anew by chance, the earlier the more it costs
  lock = { type = "string", default = "cluster", check = lock_check }, -- among whom only one loads a key
  lock_timeout = seconds(15),     -- who waits for another's loading waits so long at most
  soft_timeout = seconds(),       -- with an older value at hand: it is given when loading takes longer
  hard_timeout = seconds(lifetimes.USUAL_LEASE), -- loading may take so long; then another may try
  sliding = { type = "boolean", default = false }, -- being read prolongs an entry's life
  near = { type = "boolean", default = true },     -- answer from the near cache
  tags = { type = "string table", check = tags_check },
}

local DEFAULT_BACKOFF = 5 -- seconds

-- What does not go together: a test of the fields, and why.
local CONTRADICTIONS = {
  { function(p) return p.jitter > 0 and not p.ttl end, "jitter needs a ttl, of which it takes a share" },
  { function(p) return p.stale_ttl and not p.ttl end, "stale_ttl needs a ttl: an entry that never expires never gets stale" },
  { function(p) return p.refresh_ahead and not p.ttl end, "refresh_ahead needs a ttl, of which it is a share" },
  { function(p) return p.beta and not p.ttl end, "beta needs a ttl: an entry that never expires is never renewed early" },
  { function(p) return p.sliding and not p.ttl end, "sliding needs a ttl, which being read prolongs" },
  { function(p) return p.sliding and p.refresh_ahead end,
    "sliding excludes refresh_ahead: an entry that is read does not grow old" },
  { function(p) return p.sliding and p.beta end, "sliding excludes beta: an entry that is read does not grow old" },
  { function(p) return p.sliding and p.jitter > 0 end, "sliding excludes jitter: the next read undoes it" },
  { function(p) return p.error_backoff and not (p.stale_ttl or p.refresh_ahead or p.beta) end,
    "error_backoff needs stale_ttl, refresh_ahead or beta: without an older value nobody can be told to wait" },
  { function(p) return p.soft_timeout and not (p.stale_ttl or p.refresh_ahead or p.beta) end,
    "soft_timeout needs stale_ttl, refresh_ahead or beta: without an older value there is nothing to give meanwhile" },
  { function(p) return p.soft_timeout and p.soft_timeout >= p.hard_timeout end,
    "soft_timeout must be less than hard_timeout" },
}

--- Makes a policy.
---@param opts table see docs/policies.md; durations are seconds or texts such as "5m"
---@param level integer? whose line is blamed, default the caller's
---@return fpcache.Policy
function policy.new(opts, level)
  level = (level or 1) + 1
  local read = options.read(policy.OPTIONS, opts, level, "policy")
  if read.ttl == math.huge then read.ttl = nil end
  for _, rule in ipairs(CONTRADICTIONS) do
    if rule[1](read) then error("policy: " .. rule[2], level) end
  end
  read.error_backoff = read.error_backoff or math.min(DEFAULT_BACKOFF, read.stale_ttl or DEFAULT_BACKOFF)
  if read.tags then read.tags = limits.tags(read.tags, level) end
  read.is_early = (read.refresh_ahead or read.beta) ~= nil -- may be loaded before it expires
  read.first_lease = read.lock ~= "host" and read.hard_timeout or nil -- on a host its lock comes first
  local kind = read.tags and "_tagged" or read.first_lease == lifetimes.USUAL_LEASE and "_usual" or ""
  read.asks, read.asks_with_life = "fetch" .. kind, "fetch_with_ttl" .. kind -- statements
  if read.sliding then read.asks = read.asks_with_life end
  read.is_plain = read.asks == "fetch_usual" and not read.is_early -- a hit needs nothing but the key
  read.stops_waiting = opts ~= nil and opts.hard_timeout ~= nil -- who asked for it shall not wait longer
  return setmetatable(read, Policy)
end

policy.DEFAULT = policy.new({})

--- What a caller of fetch may pass: a policy, its fields, or a ttl.
---@param given fpcache.Policy|table|number|string|nil
---@param level integer
---@return fpcache.Policy
function policy.of(given, level)
  if given == nil then return policy.DEFAULT end
  local kind = type(given)
  if kind == "table" then
    if getmetatable(given) == Policy then return given end
    return policy.new(given, level + 1)
  end
  if kind == "number" or kind == "string" then return policy.new({ ttl = given }, level + 1) end
  error(("bad policy (fpcache.policy, table or ttl expected, got %s)"):format(kind), level + 1)
end

return policy

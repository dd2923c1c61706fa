--- Responses of a location or a proxied upstream, cached in PostgreSQL by the rules of HTTP (lua/fpcache/http).
--
--     init_worker: require("fpcache.nginx").cache_response { name = "api", location = "/origin", stale_if_error = "1h" }
--     content:     require("fpcache.nginx").response("api"):serve()
--
-- A response stands under the key of its place.  Where it varies by fields of the request, a mark stands there that names the
-- fields, and each variant has a key of its own.  A mark may also say that a place's responses are not kept, so that requests for
-- them do not wait for one another.  docs/nginx_responses.md.
local answering = require("fpcache.nginx.answering")
local duration = require("fpcache.duration")
local freshness = require("fpcache.http.freshness")
local headers = require("fpcache.http.headers")
local options = require("fpcache.options")
local policies = require("fpcache.policy")
local purging = require("fpcache.nginx.purging")
local record = require("fpcache.http.record")
local serving = require("fpcache.nginx.serving")
local vary = require("fpcache.http.vary")

---@class fpcache.nginx.Responses
local Responses = {}
Responses.__index = Responses

local response = {}

local function seconds_check(value)
  local seconds, reason = duration.seconds(value)
  if reason then return reason end
  return options.not_negative(seconds)
end

local function seconds(default) return { type = "number string", default = default, check = seconds_check } end

local function list_check(value)
  for i, one in ipairs(value) do
    if type(one) ~= "string" then return ("must be a list of strings; number %d is a %s"):format(i, type(one)) end
  end
end

response.OPTIONS = {
  name = { type = "string", default = "default" },
  cache = { type = "table" },                             -- default: the worker's own
  location = { type = "string" },                         -- internal, of the origin; needed
  key_headers = { type = "table", default = {}, check = list_check }, -- fields of the request that make another key
  ignore_args = { type = "table", default = {}, check = list_check }, -- arguments that do not; "utm_*": all that begin so
  normalize_encoding = { type = "boolean", default = true }, -- Accept-Encoding is "gzip" or nothing
  default_ttl = seconds(),                                -- where a response does not say how long it is fresh; none: not kept
  heuristic = { type = "number", check = options.not_negative }, -- or this share of the time since Last-Modified
  heuristic_max = seconds("1d"),
  stale_while_revalidate = seconds(0),                    -- where a response does not say
  stale_if_error = seconds(0),
  revalidate_ttl = seconds("1h"),                         -- what has expired is kept for so long, to ask the origin by
  max_bytes = { type = "integer", default = 1048576, check = options.between(1, 1000000000, " bytes") }, -- larger bodies pass
  pass_ttl = seconds(10),                                 -- "not kept" is known for so long
  lock_timeout = seconds(5),                              -- who waits for another's loading then asks himself
  load_timeout = seconds(30),                             -- loading may take so long; then another may try
  error_backoff = seconds(1),                             -- after a failure the origin is left alone, where stale is allowed
  store_private = { type = "boolean", default = false },
  store_set_cookie = { type = "boolean", default = false },
  request_directives = { type = "boolean", default = true }, -- heed Cache-Control of requests
  bypass = { type = "function" },                         -- bypass() true: this request passes by
}

local DURATIONS = { "default_ttl", "heuristic_max", "stale_while_revalidate", "stale_if_error", "revalidate_ttl", "pass_ttl",
  "lock_timeout", "load_timeout", "error_backoff" }
local MOST_FAILURES = 1000 -- keys remembered as failing by a worker
-- Pauses of error_backoff for which a failure is remembered: meanwhile what is stale is given at once, and the origin is tried
-- after the answer; so clients do not wait for what fails again.
local REMEMBERED_PAUSES = 10

--- How old values are treated: see fpcache.Policy.gives_old and .background.
local function policy_of(self, more)
  local fields = {
    ttl = 60, stale_ttl = math.max(self.rules.stale_while_revalidate, self.rules.stale_if_error, self.revalidate_ttl, 1),
    lock_timeout = math.max(self.lock_timeout, 0.001), hard_timeout = math.max(self.load_timeout, 0.001),
    error_backoff = math.max(self.error_backoff, 0.001),
  }
  for name, value in pairs(more or {}) do fields[name] = value end
  local policy = policies.new(fields)
  policy.stops_waiting = false -- a request waits for its own loading; the location's timeouts end that
  function policy.gives_old(old, key) return self:may_give(old, key) end
  function policy.background(run)
    local after = ngx.ctx.fpcache_after or {}
    ngx.ctx.fpcache_after = after
    after[#after + 1] = run
    return true
  end
  return policy
end

--- Responses of one origin; see response.OPTIONS and docs/nginx_responses.md.
---@param opts table
---@param level integer? whose line wrong options blame
---@param find_cache (fun(): fpcache.Cache)? for when opts.cache is not given
---@return fpcache.nginx.Responses
function response.new(opts, level, find_cache)
  level = (level or 1) + 1
  local read = options.read(response.OPTIONS, opts, level)
  if not read.location or read.location:sub(1, 1) ~= "/" then
    error("options.location: the path of an internal location is needed, such as \"/origin\"", level)
  end
  if not read.cache and not find_cache then error("options.cache: a cache is needed", level) end
  for _, name in ipairs(DURATIONS) do read[name] = duration.seconds(read[name]) end
  local self = setmetatable({
    find_cache = read.cache and function() return read.cache end or find_cache,
    counts = { HIT = 0, MISS = 0, STALE = 0, BYPASS = 0, EXPIRED = 0, REVALIDATED = 0, purged = 0 },
    now = ngx.now, -- seconds since 1970; specs have their own
    failing = {}, failing_count = 0, latency = answering.new_histogram(), upstream_latency = answering.new_histogram(),
  }, Responses)
  for name, value in pairs(read) do
    if name ~= "cache" then self[name] = value end
  end
  self.rules = {
    default_ttl = read.default_ttl, heuristic = read.heuristic, heuristic_max = read.heuristic_max,
    stale_while_revalidate = read.stale_while_revalidate, stale_if_error = read.stale_if_error,
    store_private = read.store_private, store_set_cookie = read.store_set_cookie,
  }
  self.ignored = {}
  for _, name in ipairs(read.ignore_args) do self.ignored[name] = true end
  self.key_names = vary.names(headers.read { Vary = read.key_headers })
  if self.key_names == "*" then error("options.key_headers: up to 20 names of fields are expected", level) end
  self.tags_all = #self.key_names > 0 -- then a purge cannot know the keys of a place
  self.policy = policy_of(self)
  self.forced_policy = policy_of(self, { near = false, refresh_ahead = 1e-6 }) -- asks the origin though what is kept is fresh
  self.forced_policy.gives_old = function() return false end
  return self
end

--- Whether the origin failed for this key just now.
function Responses:is_failing(key)
  local until_time = self.failing[key]
  return until_time ~= nil and self.now() < until_time
end

--- A failure of the origin, while which others do not wait for one another.
function Responses:note_failure(key)
  if self.failing_count >= MOST_FAILURES then self.failing, self.failing_count = {}, 0 end
  if not self.failing[key] then self.failing_count = self.failing_count + 1 end
  self.failing[key] = self.now() + self.error_backoff * REMEMBERED_PAUSES
end

--- The origin answered.
function Responses:note_success(key)
  if self.failing[key] then self.failing[key], self.failing_count = nil, self.failing_count - 1 end
end

function Responses:note_upstream(answer) answering.observe(self.upstream_latency, answer.took) end

--- Whether what is old is given to those who come while it is loaded: where it is allowed, and where waiting is in vain.
function Responses:may_give(old, key)
  local kept = record.unpack(old)
  if not kept then return false end -- a mark is made anew before it is followed
  if kept.revalidate or self:is_failing(key) then return true end -- each asks for himself, or is given what is stale
  return kept.while_revalidate > 0 and freshness.age(kept, self.now()) - kept.lifetime <= kept.while_revalidate
end

--- Counts an answered request.
---@param outcome string
---@param began number
function Responses:count(outcome, began)
  self.counts[outcome] = self.counts[outcome] + 1
  answering.observe(self.latency, ngx.now() - began)
end

--- Answers the request; for content_by_lua.
function Responses:serve() return serving.serve(self) end

--- Removes everything that is kept of a URL: all variants, whatever the request's fields.
---@param url string such as "https://example.org/a?b=1"
---@return boolean? true, string? err
function Responses:purge(url)
  if type(url) ~= "string" then error(("bad url (string expected, got %s)"):format(type(url)), 2) end
  local ok, err = purging.url(self, url)
  return ok, err
end

--- Removes what carries a tag (Surrogate-Key, Cache-Tag), or any of a list of tags.
---@param tags string|string[]
---@param opts table? { soft = true }: only ends their life, so that they may be given stale while they are loaded anew
---@return integer? removed, string? err
function Responses:purge_tag(tags, opts)
  local read = options.read({ soft = { type = "boolean" } }, opts, 2)
  local count, err = purging.tags(self, tags, read.soft)
  return count, err
end

--- Answers a PURGE of the request's own URL, or of the tags in its Surrogate-Key; for content_by_lua, behind your access rules.
function Responses:serve_purge() return purging.serve(self) end

return response

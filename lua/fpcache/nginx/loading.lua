--- How a response is loaded for cache:fetch: what the origin says becomes a record, a mark, or a failure.
--
-- What is to be stored goes back to fetch; what this very request is answered with stays in its `turn`.
local conditional = require("fpcache.http.conditional")
local headers = require("fpcache.http.headers")
local keys = require("fpcache.http.keys")
local record = require("fpcache.http.record")
local storing = require("fpcache.http.storing")
local upstream = require("fpcache.nginx.upstream")
local vary = require("fpcache.http.vary")

local loading = {}

local SHORTEST = 0.001        -- seconds; a ttl cannot be 0
local FAILED_PASS = 1         -- seconds for which requests for a failing response without an older one are not held up
local LONGEST_MARK = 86400    -- seconds that "these fields make a difference" is known
local MAX_TAGS = 90           -- of the 100 that an entry may have
local GONE = { [404] = true, [410] = true }
local FAILURES = { [500] = true, [502] = true, [503] = true, [504] = true } -- RFC 5861, 4
local OURS = { "surrogate-key", "surrogate-control", "cache-tag", "age", "x-cache" } -- for us, or made anew for each answer

---@class fpcache.HttpTurn what one request goes through
---@field request table { method, fields, scheme, host, uri }
---@field place string
---@field response fpcache.HttpResponse? from the origin, for this request
---@field failed fpcache.HttpResponse? an error of the origin, for which there is an older response
---@field outcome string? "MISS", "EXPIRED" or "REVALIDATED", once it loaded
---@field names string[] the fields that answers vary by, as far as is known

--- Whether an origin's answer is a failure, in whose place a stale response may be given.
---@param response table { status }
---@return boolean
function loading.has_failed(response) return FAILURES[response.status] or false end

--- The tag by which everything of one place is purged.
function loading.place_tag(place)
  if #place <= 240 then return "url " .. place end
  return "url " .. ngx.md5(place)
end

--- How long a record is fresh, and how long it is kept beyond that: stale, or only to ask the origin by.
---@return number? fresh, number? kept nil: it is of no use to anybody
local function times_of(self, response, plan)
  local fresh = plan.revalidate and 0 or plan.lifetime - response.initial_age
  local kept = math.max(plan.while_revalidate, plan.if_error)
  if response.status == 200 and conditional.questions(response.fields) then kept = math.max(kept, self.revalidate_ttl) end
  if fresh + kept <= 0 then return nil end
  return math.max(fresh, SHORTEST), math.max(kept, SHORTEST)
end

local function pass_mark(context, seconds)
  context.ttl, context.stale_ttl = seconds, SHORTEST
  return record.mark("pass")
end

--- Whether this answer, which is not kept, says nothing of what is kept and fresh: the origin objects to this client's request,
-- or answers to his credentials.  By a request with no-cache and such a field anybody could have that thrown away.
local function is_of_client(turn, response)
  if not turn.is_forced then return false end
  if turn.request.fields.authorization then return true end
  return response.status >= 400 and response.status < 500 and not GONE[response.status]
end

--- What is stored of a response.
local function storable(self, turn, context, response)
  local request = turn.request
  local plan = storing.plan(request, response, self.rules)
  turn.reason = plan.reason
  if not plan.store and is_of_client(turn, response) then context.store = false end
  if not plan.store then return pass_mark(context, loading.has_failed(response) and FAILED_PASS or self.pass_ttl) end
  if #response.body > self.max_bytes then
    turn.reason = ("a body of %d bytes is more than max_bytes (%d)"):format(#response.body, self.max_bytes)
    return pass_mark(context, self.pass_ttl)
  end
  local needs_tag = self.tags_all or #turn.names > 0 -- a purge cannot know this key
  local all, is_more = vary.union(turn.names, plan.vary)
  if is_more then -- it belongs under another key; here a mark tells so
    turn.names = all
    context.ttl = LONGEST_MARK
    context.tags = needs_tag and { loading.place_tag(turn.place) } or nil
    return record.mark("vary", all)
  end
  local fresh, kept = times_of(self, response, plan)
  if not fresh then
    turn.reason = "it is stale already, and nothing allows to give or to ask by what is stale"
    return pass_mark(context, self.pass_ttl)
  end
  context.ttl, context.stale_ttl = fresh, kept
  local tags = keys.tags(response.fields, MAX_TAGS)
  if needs_tag then tags[#tags + 1] = loading.place_tag(turn.place) end
  context.tags = #tags > 0 and tags or nil
  for _, name in ipairs(OURS) do plan.drop[#plan.drop + 1] = name end
  return record.pack {
    status = response.status, received = response.received, initial_age = response.initial_age, lifetime = plan.lifetime,
    while_revalidate = plan.while_revalidate, if_error = plan.if_error, revalidate = plan.revalidate,
    fields = headers.storable(response.fields, plan.drop), body = response.body,
  }
end

--- Asks the origin, by what is kept where there is something.
---@param old fpcache.HttpRecord?
---@return fpcache.HttpResponse response whole: what a 304 says is put together with what is kept
---@return string outcome
function loading.ask(self, turn, old)
  local questions = old and old.status == 200 and conditional.questions(old.fields) or nil
  local response = upstream.get(self.location, questions, turn.encoding, self.now)
  local outcome = old and "EXPIRED" or "MISS"
  if response.status == 304 and questions then
    if conditional.is_about(old.fields, response.fields) then
      response.status, response.body = old.status, old.body
      response.fields = conditional.freshened(old.fields, response.fields)
      return response, "REVALIDATED"
    end
    response = upstream.get(self.location, nil, turn.encoding, self.now) -- it speaks of something that we do not have
  end
  return response, outcome
end

--- The loader of fetch.
---@param self table fpcache.nginx.Responses
---@param turn fpcache.HttpTurn
---@param context fpcache.Context
---@return string? stored, string? err
function loading.load(self, turn, context)
  local old = record.unpack(context.old)
  local response = turn.response -- loaded already, under a key that turned out to be too coarse
  if not response then
    response, turn.outcome = loading.ask(self, turn, old)
    self:note_upstream(response)
  end
  if old and loading.has_failed(response) then
    turn.failed = response
    self:note_failure(context.key)
    return nil, ("upstream: status %d"):format(response.status)
  end
  turn.response = response
  if not loading.has_failed(response) then self:note_success(context.key) end
  return storable(self, turn, context, response)
end

return loading

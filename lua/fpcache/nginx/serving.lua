--- One request: answered from what is kept, or from the origin, or handed over to it.
local answering = require("fpcache.nginx.answering")
local asking = require("fpcache.nginx.asking")
local directives = require("fpcache.http.directives")
local freshness = require("fpcache.http.freshness")
local headers = require("fpcache.http.headers")
local keys = require("fpcache.http.keys")
local loading = require("fpcache.nginx.loading")
local purging = require("fpcache.nginx.purging")
local record = require("fpcache.http.record")
local storing = require("fpcache.http.storing")
local upstream = require("fpcache.nginx.upstream")
local vary = require("fpcache.http.vary")

local serving = {}

--- Hands the request over to the origin's location, which answers the client directly.
local function pass(self, began)
  self:count("BYPASS", began)
  ngx.header["X-Cache"] = "BYPASS"
  return ngx.exec(self.location, ngx.var.args)
end

local function purge(self, request, uri)
  local place = keys.place({ scheme = request.scheme, host = request.host, uri = uri }, self.ignored)
  local ok, err = purging.place(self, place)
  if not ok then ngx.log(ngx.ERR, "fpcache: what is kept of ", uri, " could not be purged: ", err) end
end

--- A request that may change something: passed on, and if it succeeded, what is kept of its place goes, and of those that the
-- answer names (RFC 9111, 4.4).
local function change(self, request, began)
  local answer = upstream.pass(self.location, request.method, self.now)
  if storing.invalidates(request.method, answer.status) then
    purge(self, request, request.uri)
    for _, uri in ipairs(keys.named(request, answer.fields)) do purge(self, request, uri) end
  end
  self:count("BYPASS", began)
  return answering.send(request, answer, "BYPASS", self.now())
end

--- Whether what is kept may be given though it is stale.
local function may_be_stale(kept, age, is_error)
  local over = math.max(age - kept.lifetime, 0) -- purged softly, it is stale from then on
  local allowed = math.max(kept.while_revalidate, is_error and kept.if_error or 0)
  return allowed > 0 and over <= allowed
end

--- What a request is given of a record, if anything.
---@return string? outcome nil: the origin must be asked
local function judge(self, turn, kept, key, source, why)
  local age = freshness.age(kept, self.now())
  if kept.revalidate then return nil end
  local is_enough = why or not self.request_directives or turn.is_forced
    or freshness.asked(turn.asked, age, kept.lifetime) == "give"
  if source ~= "stale" and age < kept.lifetime then return is_enough and "HIT" or nil end
  local is_error = why ~= nil or self:is_failing(key)
  return (is_enough or is_error) and may_be_stale(kept, age, is_error) and "STALE" or nil
end

--- What was to be loaded after the answer.
---@return function[]?
local function take_deferred()
  local after = ngx.ctx.fpcache_after
  ngx.ctx.fpcache_after = nil
  return after
end

--- Asks the origin for this request, by what is kept where there is something.  Where it was to be asked after the answer, that
-- is done now; else nothing is stored, since others do that.
local function ask_alone(self, turn, kept)
  for _, run in ipairs(take_deferred() or {}) do run() end
  local answer, outcome = turn.response or turn.failed, turn.outcome
  if not answer then
    answer, outcome = loading.ask(self, turn, kept)
    self:note_upstream(answer)
  end
  if kept and loading.has_failed(answer) and may_be_stale(kept, freshness.age(kept, self.now()), true) then
    return kept, "STALE"
  end
  return answer, outcome
end

local STATUS_OF = { timeout = 504, upstream = 502 }

--- An answer of ours for a loading that failed and left nothing to give: another request's, or one that raised.
local function failure(self, err)
  local status = tonumber(err:match("^upstream: status (%d%d%d)")) or STATUS_OF[err:match("^(%l+):")] or 502
  return {
    status = status, fields = headers.read { ["Content-Type"] = "text/plain", ["Cache-Control"] = "no-store" },
    body = ("%d: the origin did not answer\n"):format(status), received = self.now(), initial_age = 0,
  }
end

--- The answer to a request, from what is kept or from the origin.
---@return table answer
---@return string outcome
local function find(self, cache, turn, policy)
  local key = turn.key
  for _ = 1, 4 do -- a mark leads from the place to the variant; the fields may become more meanwhile
    local names = turn.names
    local value, err, source, why = cache:fetch(key, policy, loading.load, self, turn)
    if turn.response and source == "loader" and #turn.names == #names then return turn.response, turn.outcome end
    if value == nil then
      if turn.failed then return turn.failed, turn.outcome end
      if not err then break end -- a mark of absence, which is not ours
      if err:find("^loader:") then ngx.log(ngx.ERR, "fpcache: ", err, "\n", why or "") end
      if source == "loader" then return failure(self, err) end
      ngx.log(ngx.WARN, "fpcache: ", turn.request.uri, " passes by, since the cache cannot be used: ", err)
      return ask_alone(self, turn)
    end
    local mark, fields = record.read_mark(value)
    if mark == "vary" then
      turn.names = vary.union(turn.names, fields)
      if #turn.names == #names and key ~= turn.key then break end
      key = keys.secondary(turn.key, turn.names, turn.request.fields)
    elseif mark == "pass" then
      return nil, "BYPASS"
    else
      local kept = record.unpack(value)
      if not kept then break end
      local outcome = judge(self, turn, kept, key, source, why)
      if outcome then return kept, outcome end
      if turn.failed then return turn.failed, turn.outcome end
      if source == "stale" or kept.revalidate or turn.is_forced then return ask_alone(self, turn, kept) end
      turn.is_forced, policy = true, self.forced_policy -- fresh, and not enough for this client
    end
  end
  return ask_alone(self, turn)
end

--- A client that keeps its connection would wait, with its next request, for what is left for after the answer.
local function part_if_deferred()
  if ngx.ctx.fpcache_after then ngx.header.Connection = "close" end
end

--- Runs what was left for after the answer.
local function run_deferred()
  local after = take_deferred()
  if not after then return end
  ngx.eof()
  for _, run in ipairs(after) do run() end
end

--- What is kept and can be given, without the origin being asked.
---@return fpcache.HttpRecord? kept
---@return string? outcome
local function find_kept(self, cache, turn)
  local key = turn.key
  for _ = 1, 2 do
    local value = cache:get(key)
    local mark, fields = record.read_mark(value)
    if mark == "vary" then
      key = keys.secondary(turn.key, fields, turn.request.fields)
    else
      local kept = record.unpack(value)
      local outcome = kept and judge(self, turn, kept, key, "db")
      if outcome then return kept, outcome end
      return nil
    end
  end
end

local has_warned = false

--- Whether nginx's Lua can make subrequests of this request; of HTTP/2 and later it cannot.
local function can_ask()
  if (ngx.req.http_version() or 1) < 2 then return true end
  if not has_warned then
    has_warned = true
    ngx.log(ngx.WARN, "fpcache: requests by HTTP/2 are answered from what is kept, and what they bring is not kept: ",
      "nginx's Lua makes no subrequests of them; docs/nginx_responses.md says how to have them arrive by HTTP/1.1")
  end
  return false
end

local READS = { GET = true, HEAD = true }

--- The answer to a client that wants only what is kept, where nothing is that fits (RFC 9111, 5.2.1.7).
local function refuse(self, request, began)
  self:count("MISS", began)
  return answering.send(request, failure(self, "timeout:"), "MISS", self.now())
end

--- Answers the request; for content_by_lua.
function serving.serve(self)
  local began, request = ngx.now(), asking.read()
  local asked = directives.of(request.fields)
  local may_ask = can_ask()
  if not storing.is_safe(request.method) then
    if may_ask and upstream.knows(request.method) then return change(self, request, began) end
    purge(self, request, request.uri) -- before, since nobody tells how it ends
  end
  local is_only_kept = self.request_directives and asked["only-if-cached"] and READS[request.method]
  if asking.bypass_reason(request, asked, self.bypass) then
    if is_only_kept then return refuse(self, request, began) end
    return pass(self, began)
  end
  local cache, err = self.find_cache()
  if not cache then
    ngx.log(ngx.WARN, "fpcache: ", request.uri, " passes by: ", err)
    return pass(self, began)
  end
  local turn = { request = request, asked = asked, names = {}, place = keys.place(request, self.ignored) }
  if self.normalize_encoding then
    local encoding = vary.encoding(headers.joined(request.fields, "accept-encoding"))
    turn.encoding = encoding or false
    request.fields["accept-encoding"] = encoding and { name = "Accept-Encoding", encoding } or nil
  end
  turn.key = keys.primary(turn.place, self.key_names, request.fields)
  local answer, outcome
  if is_only_kept then
    answer, outcome = find_kept(self, cache, turn)
    if not answer then return refuse(self, request, began) end
  elseif not may_ask then
    answer, outcome = find_kept(self, cache, turn)
    if outcome ~= "HIT" then answer = nil end -- what is stale would stay so
  else
    answer, outcome = find(self, cache, turn, self.policy)
  end
  if not answer then return pass(self, began) end
  self:count(outcome or "MISS", began)
  part_if_deferred()
  answering.send(request, answer, outcome or "MISS", self.now())
  return run_deferred()
end

return serving

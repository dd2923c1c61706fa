--- Older values: which of what the cache still has may be given, and as what.
local older = {}

--- What is given when loading failed.
---@param policy fpcache.Policy
---@param answer fpcache.Answer? what the server said
---@return any value nil: nothing
---@return string? source "db": it lives; "stale"
function older.after_failure(policy, answer)
  local value = answer and answer.value
  if value == nil then return nil end
  if answer.is_fresh then return value, "db" end
  if policy.stale_ttl then return value, "stale" end
end

--- What is given while another value is loaded.
---@param key string
---@return any value, string? source as above
function older.meanwhile(policy, answer, key)
  local value, source = older.after_failure(policy, answer)
  if value ~= nil and policy.gives_old and not policy.gives_old(value, key) then return nil end
  return value, source
end

--- What is given when the server does not answer: what the near cache last had.  For as long as the near cache may keep it, it is
--- given at once.  From then on it is due: the loader is asked first, and what is remembered is given when that fails, up to
--- stale_ttl after the end of its life at the server.
---@param self fpcache.Cache
---@param key string
---@return any value nil: nothing that may be given
---@return boolean? is_due
function older.remembered(self, policy, key)
  if policy.near and policy.stale_ttl and self.near then
    return self.near:remembered(self.space, key, policy.stale_ttl)
  end
end

--- The same as if the server had said it.
---@return fpcache.Answer?
---@return boolean? is_due
function older.remembered_answer(self, policy, key)
  local value, is_due = older.remembered(self, policy, key)
  if value ~= nil then return { value = value, is_stale = true, is_remembered = true }, is_due end
end

--- Whether who could have the older value at once waits for its loading: what that gives is kept nowhere, so nobody else could
--- ever have it.
---@param answer fpcache.Answer
function older.is_waited_for(policy, answer) return answer.is_remembered and not policy.soft_timeout end

--- Takes note of what loading anew a key that is remembered came to.
---@param ok boolean
---@param value any nil: there is none
function older.loaded(self, policy, key, ok, value)
  if not ok then
    self.near:spare(self.space, key, policy.error_backoff)
  elseif value == nil then
    self.near:drop(self.space, key)
  end
end

return older

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

--- What is given when the server does not answer: what the near cache last had.
---@param self fpcache.Cache
---@param key string
---@return any value
function older.remembered(self, policy, key)
  if policy.stale_ttl and self.near then return self.near:remembered(self.space, key, policy.stale_ttl) end
end

return older

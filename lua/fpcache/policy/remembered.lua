--- What this process remembers of a key whose server cannot be asked: the near cache's last value, for who allows stale ones.
--
-- For as long as the near cache may keep it, it is given at once.  From then on it is due: the loader is asked first, and what is
-- remembered is given when that fails, up to stale_ttl after the end of its life at the server.
local remembered = {}

---@param self fpcache.Cache
---@param policy fpcache.Policy
---@param key string
---@return fpcache.Answer? answer as if the server had said it; nil: nothing that may be given
---@return boolean? is_due
function remembered.find(self, policy, key)
  local near = policy.near and policy.stale_ttl and self.near
  if not near then return nil end
  local value, is_due = near:remembered(self.space, key, policy.stale_ttl)
  if value == nil then return nil end
  return { value = value, is_stale = true, is_remembered = true }, is_due
end

--- Takes note of what loading such a key came to.
---@param ok boolean
---@param value any nil: there is none
function remembered.loaded(self, policy, key, ok, value)
  if not ok then
    self.near:spare(self.space, key, policy.error_backoff)
  elseif value == nil then
    self.near:drop(self.space, key)
  end
end

return remembered

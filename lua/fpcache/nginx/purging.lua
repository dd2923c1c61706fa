--- Purging: what is kept of a place, or what carries a tag, goes.
local keys = require("fpcache.http.keys")
local loading = require("fpcache.nginx.loading")
local asking = require("fpcache.nginx.asking")

local purging = {}

local MOST_TAGS = 1000 -- of one request

--- Removes everything that is kept of one place: by its key, and by the tag of those whose keys hold fields of requests.
---@param place string by keys.place
---@return boolean? true, string? err
function purging.place(self, place)
  local cache, err = self.find_cache()
  if not cache then return nil, err end
  local ok
  ok, err = cache:delete(keys.primary(place, {}, {}))
  if ok == nil then return nil, err end
  ok, err = cache:invalidate_tag(loading.place_tag(place))
  if ok == nil then return nil, err end
  self.counts.purged = self.counts.purged + 1
  return true
end

---@param url string
---@return boolean? true, string? err
function purging.url(self, url)
  local scheme, host, uri = url:match("^(%a[%w+.-]*)://([^/?#]+)([^#]*)")
  if not scheme then return nil, ("invalid: %q is no URL such as http://host/path"):format(url) end
  return purging.place(self, keys.place({ scheme = scheme, host = host, uri = uri }, self.ignored))
end

---@return integer? removed, string? err
function purging.tags(self, tags, is_soft)
  local cache, err = self.find_cache()
  if not cache then return nil, err end
  local count
  count, err = cache:invalidate_tag(tags, { expire = is_soft or nil })
  if not count then return nil, err end
  self.counts.purged = self.counts.purged + count
  return count
end

--- Answers a PURGE.
function purging.serve(self)
  local request = asking.read()
  local tags = keys.tags(request.fields, MOST_TAGS)
  local ok, err
  if #tags > 0 then
    ok, err = purging.tags(self, tags)
  else
    ok, err = purging.place(self, keys.place(request, self.ignored))
  end
  ngx.status = ok and 200 or 503
  ngx.header["Content-Type"], ngx.header["Cache-Control"] = "text/plain", "no-store"
  ngx.say(ok and "purged" or err)
end

return purging

--- Compression and encryption of values: the options, and what they make of the codec.  The work is done in C
-- (src/lua/seal.h); docs/sealing.md is for users.
local core = require("fpcache.core")
local options = require("fpcache.options")

local sealing = {}

local COMPRESS = {
  above = { type = "integer", default = 1024, check = options.not_negative }, -- bytes; smaller values stay as they are
  level = { type = "integer", default = 3, check = options.between(1, 19, "") },
}

local ENCRYPT = {
  keys = { type = "table" },                     -- { id = secret }: 32 bytes, or 64 hexadecimal digits
  use = { type = "string" },                     -- the id of the key that writes; not needed where there is one
  only = { type = "boolean", default = false },  -- true: what is not encrypted is refused
}

--- The 32 bytes of a secret, or nil.
local function secret_of(text)
  if type(text) ~= "string" then return nil end
  if #text == 64 and not text:find("[^%x]") then
    text = text:gsub("%x%x", function(digits) return string.char(tonumber(digits, 16)) end)
  end
  return #text == 32 and text or nil
end

--- Why a table of keys cannot be used; never tells a secret.
local function check_keys(value)
  local encrypt = options.read(ENCRYPT, value, 1, "encrypt")
  if not encrypt.keys or next(encrypt.keys) == nil then return "keys: a table of { id = secret } is expected" end
  local count, last = 0, nil
  for id, secret in pairs(encrypt.keys) do
    if type(id) ~= "string" or id == "" or #id > 64 then return "keys: an id is a string of 1 to 64 bytes" end
    if not secret_of(secret) then return ("keys: the secret of %q must be 32 bytes or 64 hexadecimal digits"):format(id) end
    count, last = count + 1, id
  end
  if count > 16 then return ("keys: at most 16, got %d"):format(count) end
  if not encrypt.use and count > 1 then return "use: which of the keys writes?" end
  if not encrypt.keys[encrypt.use or last] then return ("use: there is no key %q"):format(encrypt.use) end
end

sealing.OPTIONS = {
  compress = { type = "boolean table", default = false, check = options.caught(function(value)
    if type(value) == "table" then options.read(COMPRESS, value, 1, "compress") end
  end) },
  encrypt = { type = "table", check = options.caught(check_keys) },
}

--- What C needs to know; nil where values are stored as they are.
---@param o table the options of fpcache.new
---@param user string? the login, to which encrypted values are bound
---@return table? plan
function sealing.plan(o, user)
  if not o.compress and not o.encrypt and o.max_value_bytes <= 64 * 1024 * 1024 then return nil end
  local plan = { limit = o.max_value_bytes, codec = o.codec, user = user, keys = {} }
  if o.compress then
    local compress = options.read(COMPRESS, type(o.compress) == "table" and o.compress or {}, 1)
    plan.above, plan.level = compress.above, compress.level
  end
  if o.encrypt then
    local encrypt = options.read(ENCRYPT, o.encrypt, 1)
    plan.only_sealed = encrypt.only
    for id, secret in pairs(encrypt.keys) do
      plan.keys[#plan.keys + 1] = { id = id, secret = secret_of(secret) }
      if id == encrypt.use or not encrypt.use then plan.used = #plan.keys end
    end
  end
  return plan
end

--- The codec of a cache in one namespace: what core takes where a codec stands.
---@param plan table? as sealing.plan() gave it
---@param codec any the user's
---@param space string
function sealing.codec(plan, codec, space)
  if not plan then return codec end
  local all = { space = space }
  for name, value in pairs(plan) do all[name] = value end
  return core.seal(all)
end

return sealing

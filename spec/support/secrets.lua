-- secrets.lua -- every secret that a run of the tests gives out, and everything that the run said: at its end `./dev test`
-- looks for the one in the other (secrets.sh).
--
--   secrets.note(token)              -- this was given out: nothing may say it
--   secrets.heard("name", text)      -- this was said: an error, the output of a program
--   secrets.heard_file(path)         -- the same of a file that is about to go: a server's log
--
-- FPC_TEST_SECRETS is the list, one a line; FPC_TEST_HEARD the folder.  Where they are not set nothing is kept.
local secrets = {}

local LEAST = 12 -- bytes; shorter words appear by themselves

local list, folder = os.getenv("FPC_TEST_SECRETS"), os.getenv("FPC_TEST_HEARD")

local function append(path, text)
  local file = assert(io.open(path, "ab"))
  file:write(text)
  file:close()
end

--- A secret, and the parts of it by which a cut or quoted one is found: the start of a JWT and its other parts, a signature.
---@param secret string
function secrets.note(secret)
  if not list or #secret < LEAST then return end
  local lines = { secret }
  local head, claims, signature = secret:match("^(eyJ[%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  if head then lines = { secret, head:sub(1, 24), claims, signature } end
  lines[#lines + 1] = secret:match("X%-Amz%-Signature=(%x+)$")
  for i = #lines, 1, -1 do
    if #lines[i] < LEAST then table.remove(lines, i) end
  end
  append(list, table.concat(lines, "\n") .. "\n") -- one write: other processes add to it too
end

---@param name string where it came from
---@param text string
function secrets.heard(name, text)
  if not folder or text == "" then return end
  append(folder .. "/" .. name:gsub("[^%w.-]", "_"), text .. "\n")
end

---@param path string
function secrets.heard_file(path)
  local file = folder and io.open(path, "rb")
  if not file then return end
  secrets.heard(path, file:read("*a"))
  file:close()
end

return secrets

--- Random numbers of our own: those of the program stay as it seeded them, and LuaJIT's are the same in each process.
local core = require("fpcache.core")

local chance = {}

local MODULUS, FACTOR = 2147483647, 16807 -- Park and Miller's: exact in a double

local function seed()
  local number = 0
  for _, byte in ipairs { assert(core.system.random(6)):byte(1, 6) } do number = (number * 256 + byte) % MODULUS end
  return number == 0 and 1 or number
end

local state, owner

--- A number above 0 and below 1.  A test may put another function in its place.
---@return number
function chance.draw()
  if owner ~= core.system.pid() then state, owner = seed(), core.system.pid() end -- also after a fork
  state = state * FACTOR % MODULUS
  return state / MODULUS
end

--- Runs a function for which chance gives the same numbers each time.
---@param number integer 1 to 2^31 - 2
---@param run function
---@return any ... what it returns
function chance.seeded(number, run, ...)
  local own, draw = number, chance.draw
  chance.draw = function()
    own = own * FACTOR % MODULUS
    return own / MODULUS
  end
  local function restored(ok, ...)
    chance.draw = draw
    if not ok then error((...), 0) end
    return ...
  end
  return restored(pcall(run, ...))
end

return chance

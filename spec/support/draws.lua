-- draws.lua -- random numbers from a seed, the same on every Lua; FPC_SEED takes the place of a spec's own seed.
--
--   local SEED = draws.seed(20261123)
--   local draw, chance = draws.new(SEED)
--   draw(6)         -- 1 to 6
--   chance(30)      -- true 30 times of 100
local draws = {}

---@param own integer of the spec, 1 to 2147483646
---@return integer
function draws.seed(own) return tonumber(os.getenv("FPC_SEED") or "") or own end

--- Park and Miller's generator, exact in a double.
---@param seed integer 1 to 2147483646
---@return fun(n: integer): integer draw
---@return fun(percent: integer): boolean chance
---@return { state: integer } source where it is; another state may be put there
function draws.new(seed)
  local source = { state = seed }
  local function draw(n)
    source.state = source.state * 16807 % 2147483647
    return source.state % n + 1
  end
  return draw, function(percent) return draw(100) <= percent end, source
end

return draws

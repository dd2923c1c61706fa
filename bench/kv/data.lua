--- What every side of the bench stores and asks for; the C sides have the same numbers.
local data = {
  NAMESPACE = "bench",
  ROWS = 100000,
  FIRST_KEY = 10000000, -- keys are numbers of eight digits, which pgbench can make too
  VALUE = ("x"):rep(100),
  TTL = 3600,     -- seconds
  WARM_UP = 1000, -- operations before the clock starts
  LIST = 1000,    -- keys of one get_many
  LISTS = 20,
  SCATTER = 38197, -- no common divisor with ROWS
}

function data.key(i)
  return ("%d"):format(data.FIRST_KEY + i)
end

--- The key that arrives as number `i` in a bulk load: each key once, in no order.
function data.scattered_key(i)
  return data.key(i * data.SCATTER % data.ROWS)
end

--- `count` keys of the loaded rows; the same ones for the same seed (Park and Miller's generator).
function data.random_keys(count, seed)
  local keys, state = {}, seed * 7919
  for i = 1, count do
    state = state * 16807 % 2147483647
    keys[i] = data.key(state % data.ROWS)
  end
  return keys
end

return data

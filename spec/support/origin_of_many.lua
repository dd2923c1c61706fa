-- origin_of_many.lua -- a loader of many keys that gives the same values each time, and notes what it was asked for.
--
--   local origin = require "support.origin_of_many"
--   local load = origin({ a = 1, b = 2 })   -- load.asked: { "a b", … }
--   local failing = origin(nil, "origin: down")
return function(values, err)
  return setmetatable({ asked = {} }, { __call = function(self, keys)
    self.asked[#self.asked + 1] = table.concat(keys, " ")
    return values, err
  end })
end

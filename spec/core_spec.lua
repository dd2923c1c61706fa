-- core_spec.lua -- the C module loads in this Lua and says what it is.
local core = require "fpcache.core"

describe("fpcache.core", function()
  it("has a version of three numbers", function()
    assert.matches("^%d+%.%d+%.%d+$", core.version)
  end)

  it("was built for this Lua", function()
    local path = assert(package.searchpath and package.searchpath("fpcache.core", package.cpath))
    assert.matches(rawget(_G, "jit") and "lua5%.1/fpcache/core%.so$" or "lua5%.4/fpcache/core%.so$", path)
  end)

  it("puts nothing into the global table", function()
    assert.is_nil(rawget(_G, "fpcache"))
  end)
end)

-- busted.lua -- runs busted inside the Lua that runs this file: HOST spec/support/busted.lua [OPTIONS] [FILES].
-- Called through pcall, busted sees no calling script and leaves by os.exit(1) when tests failed;
-- otherwise it raises nil on LuaJIT, which reads like a crash.
require("support.eavesdrop").start()
local ok, problem = pcall(require "busted.runner", { standalone = false })
if not ok then error(problem, 0) end

-- busted.lua -- runs busted inside the Lua that runs this file: HOST spec/support/busted.lua [OPTIONS] [FILES].
require "busted.runner"({ standalone = false })

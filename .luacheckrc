-- Every Lua file runs on Lua 5.4 and on LuaJIT, so both sets of globals are known.
std = "lua54+luajit"
max_line_length = 130
read_globals = { "ngx" }
files["lua/fpcache/nginx"] = { globals = { "ngx" } } -- its tables are written: headers, context
files["spec"] = { std = "+busted" }
exclude_files = { "build*/" }

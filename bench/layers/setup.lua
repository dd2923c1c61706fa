--- Makes the tables, and the role that all parts use.
local common = require("common")

local sql = common.superuser()
sql("CREATE ROLE app LOGIN")
assert(require("fpcache.admin").setup({ connection_string = common.super, grant = "app" }))

--- Prints the results of all parts that ran as one JSON object.
local common = require("common")
local system = require("fpcache.core").system

local members = {}
for _, name in ipairs(assert(system.readdir(common.environment("BENCH_TMP")))) do
  local part = name:match("^(.*)%.json$")
  if part then
    members[#members + 1] = ('"%s": %s'):format(part, common.read_file(os.getenv("BENCH_TMP") .. "/" .. name))
  end
end
table.sort(members)
print(("{%s}"):format(table.concat(members, ",\n ")))

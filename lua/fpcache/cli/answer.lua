--- What the commands of `fpcache` say at their end, and their exit codes: 0 done, 1 failed, 2 a wrong command line.
local codec = require("fpcache.codec")

local answer = {}

--- Says on standard error what went wrong, or what a person should know.
---@param message any
function answer.complain(message)
  io.stderr:write("fpcache: ", tostring(message), "\n")
end

--- The end of a command that failed.
---@param err any
---@return integer exit_code 1
function answer.failed(err)
  answer.complain(err)
  return 1
end

--- The end of a command whose words make no sense.
---@param mistake any
---@return integer exit_code 2
function answer.misused(mistake)
  answer.complain(tostring(mistake) .. "; see --help")
  return 2
end

--- Prints a value as one line of JSON.
---@param value any
function answer.json(value)
  io.stdout:write(assert(codec.json.encode(value)), "\n")
end

--- Prints what was found, for programs or for people.
---@param found any
---@param as_json boolean?
---@param show fun(found: any) prints it for people
---@return integer exit_code 0
function answer.found(found, as_json, show)
  if as_json then answer.json(found) else show(found) end
  return 0
end

return answer

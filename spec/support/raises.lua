-- raises.lua -- an error of the programmer: its text, and that it blames the line of the caller.

--- `call` must raise exactly `text`, with the place of its own call before it.  Write `call` in one line,
--- or with the call alone in its last but one, and not as `return f(...)`, which leaves no place to blame.
---@param text string
---@param call function
return function(text, call)
  local ok, problem = pcall(call)
  if ok then error("nothing was raised; expected: " .. text, 2) end
  local about = debug.getinfo(call, "S")
  local file, line, said = tostring(problem):match("^([^:]*):(%d+): (.*)$")
  line = tonumber(line)
  if said ~= text then error(("raised: %s\nexpected: %s"):format(tostring(problem), text), 2) end
  if file ~= about.short_src or line < about.linedefined or line > about.lastlinedefined then
    error(("blamed %s:%d instead of %s:%d"):format(file, line, about.short_src, about.linedefined), 2)
  end
end

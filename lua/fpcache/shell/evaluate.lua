--- From typed lines to results: an expression gives its value, a statement is run, an unfinished one waits for more.
local evaluate = {}

--- Compiles what was typed so far.
---@param text string one or more lines
---@param env table what its globals are
---@return function? chunk
---@return string? err why it cannot be run; nil when it is only unfinished
local function compile(text, env)
  local expression = text:gsub("^%s*=", "") -- as in the shells of Lua 5.1
  local chunk, unlike = load("return " .. expression, "=(shell)", "t", env)
  if chunk then return chunk end
  local err
  chunk, err = load(text, "=(shell)", "t", env)
  if chunk then return chunk end
  if err:find("near <eof>", 1, true) or unlike:find("near <eof>", 1, true) then return nil end
  return nil, err
end

--- Reads until a piece of Lua is complete.  An empty line ends what would otherwise wait for ever.
---@param read fun(is_first: boolean): string?, string?
---@param env table
---@return string? text nil at the end of the input, and when it was interrupted
---@return function|string|nil chunk_or_why
---@return string? err of the compiler
function evaluate.read(read, env)
  local lines = {}
  while true do
    local line, why = read(#lines == 0)
    if not line then return nil, why end
    if #lines > 0 or line:find("%S") then
      lines[#lines + 1] = line
      local text = table.concat(lines, "\n")
      local chunk, err = compile(text, env)
      if chunk then return text, chunk end
      if not err and not line:find("%S") then err = "unfinished; an empty line gave it up" end
      if err then return text, nil, err end
    end
  end
end

return evaluate

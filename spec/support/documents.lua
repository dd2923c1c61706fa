-- documents.lua -- README.md and docs/*.md, and the blocks of code in them.
--
--   documents.paths()                      -- { "README.md", "docs/…" }
--   documents.snippets()                   -- { { path, line, language, code } }
local core = require "fpcache.core"

local documents = {}

function documents.paths()
  local list = { "README.md" }
  for _, name in ipairs(core.system.readdir("docs")) do
    if name:find("%.md$") then list[#list + 1] = "docs/" .. name end
  end
  table.sort(list)
  return list
end

--- Every fenced block; `line` is that of its fence.
function documents.snippets()
  local list = {}
  for _, path in ipairs(documents.paths()) do
    local at, block = 0, nil
    for line in io.lines(path) do
      at = at + 1
      local language = line:match("^```(.*)$")
      if language and block then
        list[#list + 1], block = block, nil
      elseif language then
        block = { path = path, line = at, language = language, code = "" }
      elseif block then
        block.code = block.code .. line .. "\n"
      end
    end
    assert(not block, path .. " has a block without an end")
  end
  return list
end

return documents

--- One self-contained HTML page: headings, words, charts and the numbers behind them.
local charts = require("fpcache.report.charts")

local escape = charts.escape

local page = {}

local CSS = [[
* { box-sizing: border-box; }
body { margin: 0; background: var(--surface); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 1rem; color: var(--muted); max-width: 46rem; }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1.25rem 0; }
.tile b { display: block; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: .85rem; }
details { margin: .5rem 0 0; } summary { cursor: pointer; color: var(--muted); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { text-align: right; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { color: var(--muted); font-weight: 500; } th:first-child, td:first-child { text-align: left; }
]]

---@class fpcache.Page
---@field parts string[]
local Page = {}
Page.__index = Page

---@param title string
---@param words string?
---@return fpcache.Page
function page.new(title, words)
  local self = setmetatable({ title = title, parts = {} }, Page)
  self:add(("<h1>%s</h1>"):format(escape(title)))
  if words then self:words(words) end
  return self
end

--- Adds HTML as it is.
function Page:add(html)
  self.parts[#self.parts + 1] = html
end

function Page:words(text) self:add(("<p>%s</p>"):format(escape(text))) end

function Page:heading(text, words)
  self:add(("<h2>%s</h2>"):format(escape(text)))
  if words then self:words(words) end
end

--- The numbers that matter most, large.
---@param list { [1]: string, [2]: string }[] value and what it is
function Page:tiles(list)
  local parts = {}
  for i, one in ipairs(list) do
    parts[i] = ('<div class="tile"><b>%s</b><span>%s</span></div>'):format(escape(one[1]), escape(one[2]))
  end
  self:add('<div class="tiles">' .. table.concat(parts) .. "</div>")
end

--- The numbers behind a chart, folded away unless `is_open`.
---@param head string[]
---@param rows string[][]
---@param is_open boolean?
function Page:numbers(head, rows, is_open)
  local parts = { is_open and "<details open>" or "<details>", "<summary>Numbers</summary><div class=\"wide\"><table><tr>" }
  for _, cell in ipairs(head) do parts[#parts + 1] = ("<th>%s</th>"):format(escape(cell)) end
  parts[#parts + 1] = "</tr>"
  for _, row in ipairs(rows) do
    parts[#parts + 1] = "<tr>"
    for _, cell in ipairs(row) do parts[#parts + 1] = ("<td>%s</td>"):format(escape(cell)) end
    parts[#parts + 1] = "</tr>"
  end
  parts[#parts + 1] = "</table></div></details>"
  self:add(table.concat(parts))
end

--- The whole document.
---@return string html
function Page:html()
  return table.concat({
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'; img-src data:">',
    '<link rel="icon" href="data:,">', -- else a browser asks for one
    ("<title>%s</title>"):format(escape(self.title)),
    "<style>" .. charts.CSS .. CSS .. "</style></head><body><main>",
    table.concat(self.parts, "\n"), "</main></body></html>\n",
  }, "\n")
end

return page

-- torture.lua -- `./dev torture [--seconds N] [--workers N] [--seed N]`: tries to break the promises of
-- docs/coherence.md, says what it saw, and fails when one was broken.
local run = require "torture.run"

local opts = { seconds = 60, workers = 4, max_staleness = 1, seed = os.time() % 100000 }
local i = 1
while arg[i] do
  local name = arg[i]:match("^%-%-(%a+)$")
  if not opts[name] or not tonumber(arg[i + 1]) then
    io.stderr:write("torture: [--seconds N] [--workers N] [--seed N]\n")
    os.exit(2)
  end
  opts[name], i = tonumber(arg[i + 1]), i + 2
end

local report = run(opts)
print(("%d reads, %d writes by %d processes, seed %d"):format(report.reads, report.writes, opts.workers, opts.seed))
for _, what in ipairs { "sources", "troubles", "layers" } do
  local words = {}
  for name, count in pairs(report[what]) do words[#words + 1] = ("%s %d"):format(name, count) end
  table.sort(words)
  print(("%-9s %s"):format(what .. ":", table.concat(words, ", ")))
end
print(("largest staleness seen: %.3f s (allowed: %g s)"):format(report.largest_staleness, opts.max_staleness))
for number, sentence in ipairs(report.broken) do
  if number > 20 then break end
  print("BROKEN " .. sentence)
end
print(("%d promises broken"):format(#report.broken))
os.exit(#report.broken == 0 and 0 or 1)

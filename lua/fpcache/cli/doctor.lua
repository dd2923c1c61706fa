--- `fpcache doctor`: what is wrong and what to do.
--
-- Exit codes: 0 nothing; 1 something is wrong, or the server could not be asked; 3 only advice.
local answer = require("fpcache.cli.answer")
local argparse = require("argparse")
local connection_flags = require("fpcache.cli.connection_flags")
local doctor = require("fpcache.doctor")

local cli = {}

local function make_parser()
  local parser = argparse("fpcache doctor", "Tell what is wrong with a cache and what to do.  Run it as the login that uses it.")
  parser:epilog("Exit code: 0 nothing is wrong, 1 something is, 3 there is only advice.")
  connection_flags.add(parser)
  parser:flag("--json", "Print the findings as JSON.")
  parser:flag("--no-prepared", "The applications run with prepared = false.")
  parser:option("--cuckoo-capacity", "What the applications set, if they do."):argname("N"):convert(math.tointeger)
  return parser
end

local function print_findings(findings)
  for _, finding in ipairs(findings) do
    print(("%-7s %-12s %s"):format(finding.level, finding.name, finding.seen))
    if finding.cure then print(("%-7s %-12s -> %s"):format("", "", finding.cure)) end
  end
end

---@param words string[]
---@return integer exit_code
function cli.run(words)
  local flags, code = connection_flags.parse(make_parser(), words)
  if not flags then return code end
  local opts = connection_flags.read(flags)
  opts.prepared = not flags.no_prepared
  opts.cuckoo_capacity = flags.cuckoo_capacity
  local findings, err = connection_flags.call(doctor.examine, opts)
  if not findings then return answer.failed(err) end
  answer.found(findings, flags.json, print_findings)
  local worst = { good = 0, advice = 3, bad = 1 }
  code = 0
  for _, finding in ipairs(findings) do
    if finding.level == "bad" or code == 0 then code = worst[finding.level] end
  end
  return code
end

return cli

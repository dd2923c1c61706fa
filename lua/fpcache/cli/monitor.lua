--- `fpcache monitor`: changes by anybody, as they come.
local answer = require("fpcache.cli.answer")
local argparse = require("argparse")
local codec = require("fpcache.codec")
local connection_flags = require("fpcache.cli.connection_flags")
local core = require("fpcache.core")
local monitor = require("fpcache.top.monitor")
local view = require("fpcache.top.view")

local system = core.system
local cli = {}

local PAUSE_S = 0.2 -- between two looks

local function make_parser()
  local parser = argparse("fpcache monitor", "Show what anybody sets, deletes and clears, as it comes.")
  parser:epilog("Reads leave no trace at the server: they cannot be seen.  What became of a key is looked up when its\n"
    .. "change is seen, so of several changes in a moment each shows the last.\n"
    .. "A login sees its own entries, a superuser everybody's.")
  connection_flags.add(parser)
  parser:option("--of-user", "Only entries of this user."):argname("NAME")
  parser:option("--namespace", "Only of this namespace."):argname("NAME")
  parser:option("--for", "End after so many seconds."):argname("SECONDS"):convert(tonumber)
  parser:flag("--json", "A line of JSON for each change.")
  return parser
end

local WORDS = {
  emptied = "the table was emptied", missed = "some changes came faster than they could be seen",
  off = "the change feed is switched off (fpcache admin feed on), or this is a standby: nothing is seen",
}

local function line_of(event)
  local when = os.date("%H:%M:%S", math.floor(event.at))
  if WORDS[event.what] then return ("%s  -- %s"):format(when, WORDS[event.what]) end
  local parts = { when, view.plain(event.login), event.what }
  if event.namespace and event.namespace ~= "" then parts[#parts + 1] = "[" .. view.plain(event.namespace) .. "]" end
  if event.key then parts[#parts + 1] = view.plain(event.key) end
  if event.bytes then
    parts[#parts + 1] = ("%d bytes, %s"):format(event.bytes, event.ttl < 0 and "no expiry" or ("ttl %.0f s"):format(event.ttl))
  end
  return table.concat(parts, "  ")
end

---@param words string[]
---@return integer exit_code
function cli.run(words)
  local flags, code = connection_flags.parse(make_parser(), words)
  if not flags then return code end
  local opts = connection_flags.read(flags)
  opts.of_user, opts.of_namespace = flags.of_user, flags.namespace
  local opened, err = connection_flags.call(monitor.open, opts)
  if not opened then return answer.failed(err) end
  if not flags.json then io.stderr:write("Changes from now on; reads cannot be seen.  Ctrl-C ends.\n") end
  local ends = flags["for"] and system.now() + flags["for"] or math.huge
  if opened.is_on == false then answer.complain(WORDS.off) end
  while system.now() < ends and not core.interrupted() do
    local events, reason = opened:poll()
    if not events and not core.interrupted() then answer.complain(reason) end
    for _, event in ipairs(events or {}) do
      event.at = system.wall()
      io.stdout:write(flags.json and assert(codec.json.encode(event)) or line_of(event), "\n")
    end
    io.stdout:flush()
    system.sleep(PAUSE_S)
  end
  opened:close()
  return 0
end

return cli

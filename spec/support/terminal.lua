-- terminal.lua -- a program on a real terminal (tmux), typed at and looked at.
--
--   local t = terminal.start({ "build/fpcache" }, { HOME = dir })
--   t:type("1 + 1\n"); t:sees("2")          t:key("C-c")          t:stop()
local core = require "fpcache.core"
local database = require "support.database"

local Terminal = {}
Terminal.__index = Terminal

local terminal = {}

local function tmux(self, ...)
  local argv = { "tmux", "-S", self.dir .. "/tmux", "-f", "/dev/null", ... }
  local result = assert(core.run { argv = argv, env = self.env, clear_env = true, timeout = 20, max_output = 1024 * 1024 })
  return result.output, result.status
end

---@param argv string[]
---@param env table<string, string>
function terminal.start(argv, env)
  local dir = assert(core.system.mkdtemp("/tmp/fpcache-tty-"))
  local self = setmetatable({ dir = dir, env = { "PATH=" .. os.getenv("PATH"), "LC_ALL=C.UTF-8", "TERM=xterm" } }, Terminal)
  for name, value in pairs(env) do self.env[#self.env + 1] = name .. "=" .. value end
  -- A shell notes the exit code: tmux itself loses that of a program that ends at once now and then.
  self.env[#self.env + 1] = "CODE=" .. dir .. "/code"
  local command = { "set-option", "-g", "remain-on-exit", "on", ";", "new-session", "-d", "-x", "120", "-y", "50",
    "/bin/sh", "-c", 'trap : INT; "$0" "$@"; echo $? >"$CODE.new"; mv "$CODE.new" "$CODE"' }
  for _, word in ipairs(argv) do command[#command + 1] = word end
  local out, status = tmux(self, (table.unpack or unpack)(command))
  assert(status == 0, out)
  return self
end

--- Types characters as they are; "\n" is the Enter key.
function Terminal:type(text)
  for line, enter in text:gmatch("([^\n]*)(\n?)") do
    if line ~= "" then tmux(self, "send-keys", "-l", line) end
    if enter ~= "" then tmux(self, "send-keys", "Enter") end
  end
end

--- Presses a key by tmux's name: "C-c", "Tab", "Up".
function Terminal:key(name)
  tmux(self, "send-keys", name)
end

function Terminal:screen()
  return (tmux(self, "capture-pane", "-p", "-S", "-"))
end

--- Makes the window another size.
function Terminal:resize(columns, rows)
  tmux(self, "resize-window", "-x", tostring(columns), "-y", tostring(rows))
end

--- The process id of the shell around the program.
function Terminal:pid()
  return tonumber((tmux(self, "display-message", "-p", "#{pane_pid}")))
end

--- Whether a program shows the terminal's other screen.
function Terminal:is_full_screen()
  return tmux(self, "display-message", "-p", "#{alternate_on}"):find("1", 1, true) ~= nil
end

function Terminal:clear()
  tmux(self, "send-keys", "C-l")
  tmux(self, "clear-history")
end

--- Waits until the screen holds a text; raises with the screen when it does not come to.
function Terminal:sees(text, seconds)
  local screen
  local found = database.eventually(function()
    screen = self:screen()
    return screen:find(text, 1, true)
  end, seconds or 15)
  if not found then error(("not on the screen: %s\n%s"):format(text, screen), 2) end
  return screen
end

--- The exit code, once it has ended.
function Terminal:code()
  local file = database.eventually(function() return (io.open(self.dir .. "/code")) end, 15)
  if not file then return nil end
  local code = file:read("*n")
  file:close()
  return code
end

function Terminal:stop()
  tmux(self, "kill-server")
  assert(core.system.remove_tree(self.dir))
end

return terminal

-- folder.lua -- the folder of a private server: where things are, making it, removing it.
--
--   DIR/fpcache-local-server  the marker: this folder is ours, and may be removed
--   DIR/lock                  held by whoever starts, stops or destroys
--   DIR/alive                 held by the server as long as one of its processes lives
--   DIR/server.conf, pg_hba.conf, custom.conf, socket-dir, setup-pending
--   DIR/data, DIR/log, DIR/run    the server's own (its socket is in run, if clients can use that path)
--
-- When root runs the server, DIR belongs to root (0711) and only the last three to the account
-- that the server runs as: that account cannot replace what root will read, write or remove.
local system = require("fpcache.core").system

local MARKER = "fpcache-local-server"
local MARKER_TEXT = "A private PostgreSQL of fpcache.  `fpcache local destroy --dir` removes this folder.\n"
local ROOT_DIR = "/var/lib/fpcache"
local SOCKET = "/.s.PGSQL.5432"
local MAX_SOCKET_PATH = 107 -- bytes, of the system's socket addresses

local folder = {}

--- Where the private server of this user lives: /var/lib/fpcache for root, else below
--- $XDG_STATE_HOME or ~/.local/state.
---@return string? dir, string? err
function folder.default_dir()
  if system.geteuid() == 0 then return ROOT_DIR end
  local state = system.getenv("XDG_STATE_HOME")
  if state and state:sub(1, 1) == "/" then return state .. "/fpcache" end
  local home = system.getenv("HOME")
  if not home or home:sub(1, 1) ~= "/" then
    local user = system.user(system.geteuid())
    home = user and user.home
  end
  if not home then return nil, "invalid: no home folder for the private server; give --dir or set XDG_STATE_HOME" end
  return home .. "/.local/state/fpcache"
end

--- The absolute form of a folder's name, without a slash at its end.
---@param dir string
---@return string
function folder.absolute(dir)
  if dir:sub(1, 1) ~= "/" then dir = assert(system.realpath(".")) .. "/" .. dir end
  return (dir:gsub("/+", "/"):gsub("(.)/$", "%1"))
end

--- The account that the server runs as: nil for ourselves.
---@return {name: string, uid: integer, gid: integer}? account
---@return string? err
function folder.account()
  if system.geteuid() ~= 0 then return nil end
  local account = system.user("postgres") or system.user("nobody")
  if not account then
    return nil, "invalid: PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody"
  end
  return account
end

function folder.is_ours(dir)
  local marker = system.lstat(dir .. "/" .. MARKER)
  return marker ~= nil and marker.type == "file"
end

---@return string? text nil if there is no such file
function folder.read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  return text
end

--- Writes a file that the server may read, whole or not at all.
---@return boolean? ok, string? err
function folder.write(path, text)
  local new = path .. ".new"
  local file, why = io.open(new, "wb")
  if not file then return nil, "denied: could not write " .. why end
  local written = file:write(text)
  if not (file:close() and written) then
    system.unlink(new)
    return nil, "server: could not write " .. path .. ": is the disk full?"
  end
  local ok, err = system.chmod(new, tonumber("644", 8))
  if not ok then return nil, err end
  return system.rename(new, path)
end

local function make_parents(dir)
  local parent = dir:match("^(.+)/[^/]+$")
  if not parent or system.stat(parent) then return true end
  local ok, err = make_parents(parent)
  if not ok then return nil, err end
  ok, err = system.mkdir(parent, tonumber("755", 8))
  if not ok and not system.stat(parent) then return nil, err end -- not: another process was faster
  return true
end

-- Ours, or new: nothing in it but what another starting process puts there before the marker.
local function may_use(dir)
  local names, err = system.readdir(dir)
  if not names then return nil, err end
  for _, name in ipairs(names) do
    if name ~= "lock" and name ~= MARKER .. ".new" then
      if folder.is_ours(dir) then return true end
      return nil, ("invalid: %s is not empty and is no private server of fpcache; choose another folder"):format(dir)
    end
  end
  return true
end

--- Makes the folder if it is not there.  Refuses one that holds something else or is not ours.
---@param dir string
---@return boolean? ok, string? err
function folder.make(dir)
  local there = system.stat(dir)
  if not there then
    local ok, err = make_parents(dir)
    if not ok then return nil, err end
    local mode = system.geteuid() == 0 and "711" or "700"
    ok, err = system.mkdir(dir, tonumber(mode, 8))
    there = system.stat(dir)
    if not ok and not there then return nil, err end
  end
  if there.type ~= "directory" then return nil, ("invalid: %s is not a folder"):format(dir) end
  if there.uid ~= system.geteuid() then
    return nil, ("denied: the folder %s belongs to another user"):format(dir)
  end
  return may_use(dir)
end

--- Puts the marker and the server's own folders into DIR; to be called with the lock held.
---@param dir string
---@param account {uid: integer, gid: integer}?
---@return boolean? ok, string? err
function folder.furnish(dir, account)
  local ok, err = may_use(dir)
  if ok and not folder.is_ours(dir) then ok, err = folder.write(dir .. "/" .. MARKER, MARKER_TEXT) end
  -- An empty folder that was there before may be open to others.
  if ok then ok, err = system.chmod(dir, tonumber(account and "711" or "700", 8)) end
  for _, name in ipairs { "log", "run" } do
    if ok and not system.lstat(dir .. "/" .. name) then ok, err = folder.make_owned(dir .. "/" .. name, account) end
  end
  return ok, err
end

--- Makes a folder for the server alone.
---@return boolean? ok, string? err
function folder.make_owned(path, account)
  local ok, err = system.mkdir(path, tonumber("700", 8))
  if ok and account then ok, err = system.chown(path, account.uid, account.gid) end
  return ok, err
end

-- Whether `path` is a folder that nobody but the server's account can enter or replace.
local function is_private(path, account)
  local there = system.lstat(path)
  return there ~= nil and there.type == "directory" and there.mode == tonumber("700", 8)
    and there.uid == (account and account.uid or system.geteuid())
end

--- Where the socket is.  Without `make`, where the last start put it.
---@param dir string
---@param account {uid: integer, gid: integer}?
---@param make boolean? make a short folder if DIR/run cannot be used
---@return string? socket_dir, string? err
function folder.socket_dir(dir, account, make)
  local run = dir .. "/run"
  -- libpq takes a comma for the end of a host, however it is written.
  if #run + #SOCKET <= MAX_SOCKET_PATH and not run:find(",", 1, true) then return run end
  local remembered = (folder.read(dir .. "/socket-dir") or ""):match("^(/[^\n]+)\n")
  if remembered and (not make or is_private(remembered, account)) then return remembered end
  if not make then return run end

  local base = "/tmp"
  local runtime = not account and system.getenv("XDG_RUNTIME_DIR")
  if runtime and runtime:sub(1, 1) == "/" and #runtime < 60 and is_private(runtime) then base = runtime end
  local path, err = system.mkdtemp(base .. "/fpcache-")
  if not path then return nil, err end
  local ok = true
  if account then ok, err = system.chown(path, account.uid, account.gid) end
  if ok then ok, err = folder.write(dir .. "/socket-dir", path .. "\n") end
  if not ok then
    system.unlink(path)
    return nil, err
  end
  return path
end

--- Whether a server takes connections there.
function folder.socket_answers(socket_dir)
  return system.socket_answers(socket_dir .. SOCKET)
end

--- Removes what a crashed server left there, if it did.
function folder.remove_socket(socket_dir)
  system.unlink(socket_dir .. SOCKET)
  system.unlink(socket_dir .. SOCKET .. ".lock")
end

--- Removes the folder and all in it, if it is ours; to be called with the lock held.  The marker
--- goes last but one, so that an interrupted removal can be repeated.
---@param dir string
---@param account {uid: integer}?
---@return boolean? ok, string? err
function folder.remove(dir, account)
  if not folder.is_ours(dir) then return nil, ("invalid: %s is no private server of fpcache"):format(dir) end
  local socket_dir = folder.socket_dir(dir, account)
  local ok, err = true, nil
  if socket_dir ~= dir .. "/run" and is_private(socket_dir, account) then ok, err = system.remove_tree(socket_dir) end
  for _, name in ipairs(system.readdir(dir) or {}) do
    if ok and name ~= MARKER and name ~= "lock" then ok, err = system.remove_tree(dir .. "/" .. name) end
  end
  if not ok then return nil, err end
  ok, err = system.unlink(dir .. "/" .. MARKER)
  if ok then ok, err = system.unlink(dir .. "/lock") end
  system.unlink(dir) -- stays if another process is already starting anew in it, or the parent is not ours
  return ok, err
end

return folder

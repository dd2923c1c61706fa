-- programs.lua -- finds the PostgreSQL server programs that are installed on this machine.
--
-- FPCACHE_PG_BINDIR is obeyed or refused, never passed over.  Else the places are asked in order:
-- `pg_config --bindir`, Debian's folders (newest first), PATH.  A cluster can be run only by
-- the major version that made it, so a caller may ask for one.
local core = require "fpcache.core"
local system = core.system

local OLDEST = 10 -- the first version whose postmaster.pid says when the server is ready
local ADVICE = "install postgresql-15 (Debian: apt-get install postgresql) or set FPCACHE_PG_BINDIR"

local programs = {
  debian = "/usr/lib/postgresql", -- where Debian has a folder for each version
}

local function has_server(bindir)
  return system.stat(bindir .. "/postgres") ~= nil and system.stat(bindir .. "/initdb") ~= nil
end

local function major_of(bindir)
  local result = core.run { argv = { bindir .. "/postgres", "--version" }, timeout = 10 }
  return result and tonumber(result.output:match("PostgreSQL%)%s+(%d+)"))
end

-- Where to look, in order; each place is {path, words for the message}.
local function places()
  local list = {}
  local config = core.run { argv = { "pg_config", "--bindir" }, timeout = 10 }
  if config and config.status == 0 then
    list[#list + 1] = { config.output:gsub("%s+$", ""), "pg_config --bindir" }
  end
  local versions = system.readdir(programs.debian) or {}
  table.sort(versions, function(a, b) return (tonumber(a) or 0) > (tonumber(b) or 0) end)
  for _, version in ipairs(versions) do
    local path = programs.debian .. "/" .. version .. "/bin"
    list[#list + 1] = { path, path }
  end
  for path in (system.getenv("PATH") or ""):gmatch("[^:]+") do
    list[#list + 1] = { path, "PATH" }
  end
  return list
end

local function chosen(path, major)
  if not has_server(path) then
    return nil, ("connect: FPCACHE_PG_BINDIR is %s, but there is no postgres and initdb in it"):format(path)
  end
  local found = major_of(path)
  if not found or found < OLDEST then
    return nil, ("connect: FPCACHE_PG_BINDIR is %s, whose postgres is not PostgreSQL %d or newer"):format(path, OLDEST)
  end
  if major and found ~= major then
    return nil, ("connect: the cluster was made by PostgreSQL %d, but FPCACHE_PG_BINDIR has PostgreSQL %d; "
      .. "`fpcache local destroy` lets the next start make a new one"):format(major, found)
  end
  return { bindir = path, major = found }
end

--- The server programs to use.
---@param major integer? only this major version (of an existing cluster); nil: the first found
---@return {bindir: string, major: integer}? programs
---@return string? err "connect: ..." when there are none; names the places looked at
function programs.find(major)
  local forced = system.getenv("FPCACHE_PG_BINDIR")
  if forced and forced ~= "" then return chosen(forced, major) end

  local looked, others, seen = {}, {}, {}
  for _, place in ipairs(places()) do
    local path, words = place[1], place[2]
    if not seen[words] then
      seen[words] = true
      looked[#looked + 1] = words
    end
    if not seen["dir " .. path] and has_server(path) then
      seen["dir " .. path] = true
      local found = major_of(path)
      if found and found >= OLDEST and (major == nil or found == major) then
        return { bindir = path, major = found }
      end
      others[#others + 1] = ("%s in %s"):format(found or "unknown", path)
    end
  end
  if major and #others > 0 then
    return nil, ("connect: the cluster was made by PostgreSQL %d, whose programs are not installed (found: %s); "
      .. "install postgresql-%d, or `fpcache local destroy` lets the next start make a new one")
      :format(major, table.concat(others, ", "), major)
  end
  if #others > 0 then
    return nil, ("connect: no PostgreSQL %d or newer found (found: %s); %s")
      :format(OLDEST, table.concat(others, ", "), ADVICE)
  end
  return nil, ("connect: no PostgreSQL server programs found (looked in %s, %s/*/bin); %s")
    :format(table.concat(looked, ", "), programs.debian, ADVICE)
end

return programs

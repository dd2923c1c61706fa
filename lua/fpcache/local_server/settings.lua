-- settings.lua -- the configuration of a private server, as text: each choice with its reason.
local settings = {}

-- {name, value, why, first major version that knows it (nil: all)}
local CHOICES = {
  { "listen_addresses", "''", "no network: only who may enter the socket's folder can connect" },
  { "port", "5432", "part of the socket's name; set so that PGPORT cannot change it" },
  { "unix_socket_permissions", "0700", "a second fence behind the folder's mode" },
  { "max_connections", "100", "clients pool their connections" },

  { "shared_buffers", "128MB", "holds the hot rows of a usual cache; the system caches the rest" },
  { "maintenance_work_mem", "64MB", "one vacuum pass over some ten million dead rows" },
  { "dynamic_shared_memory_type", "mmap", "containers often have a tiny /dev/shm" },
  { "max_parallel_workers_per_gather", "0", "cache statements touch few rows; workers would only compete" },
  { "jit", "off", "compiling a statement takes longer than answering it", 11 },

  { "synchronous_commit", "off", "the cache's tables are UNLOGGED: nothing in the log is worth waiting for" },
  { "fsync", "on", "not for the rows, but for the catalogue: a power cut must not cost the cluster" },
  { "wal_level", "minimal", "nobody replicates a private cache" },
  { "max_wal_senders", "0", "goes with wal_level=minimal" },
  { "max_wal_size", "256MB", "UNLOGGED tables write almost no log; keep the folder small" },
  { "min_wal_size", "80MB", "two to five segment files are enough" },
  { "checkpoint_timeout", "15min", "a checkpoint has next to nothing to do here" },

  { "autovacuum", "on", "overwritten and expired rows must be reused, or the table grows" },
  { "autovacuum_naptime", "10s", "caches turn over in minutes, not in days" },
  { "autovacuum_vacuum_scale_factor", "0.05", "clean after 5 % changed rows instead of 20 %" },
  { "autovacuum_vacuum_cost_limit", "2000", "finish before the next round; the pages are in memory anyway" },

  { "logging_collector", "on", "the server outlives its starter, so it keeps its own log" },
  { "log_filename", "'server-%a.log'", "one file a weekday" },
  { "log_rotation_age", "1d", "start the next weekday's file" },
  { "log_rotation_size", "0", "by day only: a second file of one day would need another name" },
  { "log_truncate_on_rotation", "on", "over last week's, so that at most seven files stay" },
  { "log_line_prefix", "'%m [%p] %u@%d '", "when, which process, who" },
  { "log_checkpoints", "off", "not news" },
}

--- A string as a PostgreSQL configuration value.
local function quote(text)
  return "'" .. text:gsub("\\", "\\\\"):gsub("'", "''") .. "'"
end

--- The configuration file of a cluster.
---@param options {major: integer, log_dir: string, socket_dir: string, hba: string, extra: table<string, string>?}
--- `hba` is the path of the access rules; `extra` has more settings, values as they stand in the file
---@return string text
function settings.text(options)
  local lines = {
    "# Written by fpcache at each start.  Your own settings go into custom.conf beside this file.",
    "include 'data/postgresql.conf'",
    "hba_file = " .. quote(options.hba),
    -- The setting is a list; double quotes make a path with a comma one element of it.
    "unix_socket_directories = " .. quote('"' .. options.socket_dir:gsub('"', '""') .. '"'),
    "log_directory = " .. quote(options.log_dir),
  }
  for _, choice in ipairs(CHOICES) do
    local name, value, why, since = choice[1], choice[2], choice[3], choice[4]
    if not since or options.major >= since then
      lines[#lines + 1] = ("%s = %s  # %s"):format(name, value, why)
    end
  end
  local names = {}
  for name in pairs(options.extra or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do lines[#lines + 1] = ("%s = %s"):format(name, options.extra[name]) end
  lines[#lines + 1] = "include_if_exists 'custom.conf'"
  return table.concat(lines, "\n") .. "\n"
end

--- The access rules when nothing else is asked for.
settings.HBA = [[
# Written by fpcache at each start.  The socket's folder is open to its owner (and root) only, so
# whoever reaches the socket may come in; the network is shut.
local all all trust
]]

return settings

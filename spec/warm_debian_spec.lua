-- warm_debian_spec.lua -- the whole package index of this machine, through the command, within bounds.
local core = require "fpcache.core"
local database = require "support.database"
local interpreter = require "support.interpreter"

local MOST_KB = 300 * 1024 -- of memory

if os.getenv("ASAN_OPTIONS") then return end -- ASan's memory is not ours, and warm_spec runs the same C

describe("a warm-up of this machine's Debian package index", function()
  local db, tool, index, packages

  setup(function()
    tool = interpreter.new()
    index = tool.dir .. "/index"
    local made = core.run { argv = { "/bin/sh", "-c", 'apt-cache dumpavail >"$0" && grep -c "^Package:" "$0"', index } }
    packages = made and made.status == 0 and tonumber(made.output)
    if packages then db = database.new() end
  end)
  teardown(function()
    if db then db:close_all() end
    tool:remove()
  end)

  it("stores every package", function()
    if not packages then return pending("there is no index: no apt here, or apt-get update was never run") end
    tool:remove()
    tool = interpreter.new { FPCACHE_URL = db:url_of() }
    index = tool.dir .. "/index"
    assert(core.run { argv = { "/bin/sh", "-c", 'apt-cache dumpavail >"$0"', index } })
    local answer = tool { program = "/bin/sh", timeout = 600, "-c", [[
      "$0" warm "$1" --format deb822 --key 'deb:{Package}:{Architecture}' --quiet &
      pid=$!; most=0
      while kb=$(awk '/VmHWM/ { print $2 }' /proc/$pid/status 2>/dev/null); [ -n "$kb" ]; do most=$kb; sleep 0.3; done
      wait $pid && echo "$most"]], interpreter.path, index }
    assert.equal(0, answer.code, answer.err)
    assert.is_true(tonumber(answer.out) < MOST_KB, answer.out .. " kB")
    -- A package may be there in several versions.
    local names = assert(core.run { argv = { "/bin/sh", "-c", [[
      awk '/^Package:/ { p = $2 } /^Architecture:/ { print p ":" $2 }' "$0" | sort -u | wc -l]], index } }).output
    assert.equal(tonumber(names), tonumber(db:sql("SELECT count(*) FROM cache")))
    local entry = db:open():get("deb:libc6:" .. core.run({ argv = { "dpkg", "--print-architecture" } }).output:match("%S+"))
    assert.equal("libc6", entry.Package)
    assert.matches("GNU C Library", entry.Description)
  end)
end)

-- report.lua -- busted's plain report, what failed as soon as it did, and the counts in a file for ./dev test.
-- The file named by FPC_TEST_COUNTS gets "PASSED FAILED SKIPPED" after the last test, so a run
-- that died in the middle leaves none and cannot pass for a success.  The one named by FPC_TEST_FAILED
-- gets a line for each failure: the spec file, a tab, what failed and why.
local busted = require "busted"
local eavesdrop = require "support.eavesdrop"

return function(options)
  local handler = require "busted.outputHandlers.plainTerminal"(options)

  local spec_file
  busted.subscribe({ "file", "start" }, function(file)
    spec_file = file.name
    return nil, true
  end)
  busted.subscribe({ "file", "end" }, function()
    eavesdrop.collect()
    return nil, true
  end)

  -- busted tells what failed at its end, which a run that is stopped never reaches.
  local function tell(element, _, message)
    local where = element.trace and element.trace.source and element.trace.short_src .. ":" .. element.trace.currentline or ""
    io.stdout:write(("\nfailed: %s (%s): %s\n"):format(tostring(element.name), where, tostring(message)))
    io.stdout:flush()
    local path = os.getenv("FPC_TEST_FAILED")
    if path then
      local file = assert(io.open(path, "a"))
      local line = ("%s: %s"):format(tostring(element.name), tostring(message)):gsub("%s+", " "):sub(1, 500)
      assert(file:write(("%s\t%s\n"):format(spec_file or element.name, line)))
      assert(file:close())
    end
    return nil, true
  end
  busted.subscribe({ "failure" }, tell)
  busted.subscribe({ "error" }, tell)

  busted.subscribe({ "exit" }, function()
    local path = os.getenv("FPC_TEST_COUNTS")
    if path then
      local file = assert(io.open(path, "w"))
      assert(file:write(("%d %d %d\n"):format(handler.successesCount,
        handler.failuresCount + handler.errorsCount, handler.pendingsCount)))
      assert(file:close())
    end
    return nil, true
  end)

  return handler
end

-- report.lua -- busted's plain report, what failed as soon as it did, and the counts in a file for ./dev test.
-- The file named by FPC_TEST_COUNTS gets "PASSED FAILED SKIPPED" after the last test, so a run
-- that died in the middle leaves none and cannot pass for a success.
local busted = require "busted"
local eavesdrop = require "support.eavesdrop"

return function(options)
  local handler = require "busted.outputHandlers.plainTerminal"(options)

  busted.subscribe({ "file", "end" }, function()
    eavesdrop.collect()
    return nil, true
  end)

  -- busted tells what failed at its end, which a run that is stopped never reaches.
  local function tell(element, _, message)
    local where = element.trace and element.trace.source and element.trace.short_src .. ":" .. element.trace.currentline or ""
    io.stdout:write(("\nfailed: %s (%s): %s\n"):format(tostring(element.name), where, tostring(message)))
    io.stdout:flush()
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

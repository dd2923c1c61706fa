--- Transactions whose coroutine nginx took away (client gone, thread killed): nobody would end them.
--
-- Who hands out an answer sees whether anybody still waits for it.  One who was woken may be taken away before he runs, in the
-- same turn of nginx's loop; so he is looked for once more, when many turns have passed.
local vanished = {}

local AFTER = 0.1  -- seconds from an answer to the look
local AGAIN = 0.01 -- and to the one that decides: the first may have come late in a very long turn

local WEAK = { __mode = "v" } -- what the collector takes needs no look: it closes pins too

local woken, is_watching = {}, false

local function is_asleep(entry)
  local slot = entry.slot
  return slot and entry.pin and slot.is_asleep and slot.serial == entry.serial
end

local look

local function watch()
  is_watching = next(woken) ~= nil and ngx.timer.at(AFTER, look) == true
end

function look(premature)
  local list, suspects = woken, {}
  woken = {}
  watch()
  if premature then return end -- the worker ends, and its connections with it
  for _, entry in ipairs(list) do
    if is_asleep(entry) then suspects[#suspects + 1] = entry end
  end
  if #suspects == 0 then return end
  ngx.sleep(AGAIN)
  for _, entry in ipairs(suspects) do
    local pin = entry.pin
    if pin and is_asleep(entry) then pin:close() end
  end
end

--- Whether the one who waits in this slot is gone.
---@param slot table with a semaphore in which somebody began to wait
---@return boolean
function vanished.is_gone(slot) return slot.semaphore:count() >= 0 end

--- Has who is woken now looked for later; without him its pin is closed.
---@param slot table { pin, is_asleep, serial } is_asleep is set back by who was woken, serial is another for each wait
function vanished.will_look(slot)
  woken[#woken + 1] = setmetatable({ slot = slot, serial = slot.serial, pin = slot.pin }, WEAK)
  if not is_watching then watch() end
end

return vanished

--- A file read in pieces, line by line or by a scanner of bytes; it knows where it is, so that a job can go on there.
local PIECE = 256 * 1024
local MAX_RECORD = 256 * 1024 * 1024 -- bytes; one record has to fit into memory several times over

---@class fpcache.warm.Reader
---@field offset integer bytes before what comes next
---@field line_number integer of the line that was read last
---@field size integer? bytes of the whole file; nil when it has no end that is known
local Reader = {}
Reader.__index = Reader

local reader = {}

--- Opens a file; "-" is standard input.
---@param path string
---@param name string? for messages; unless given, the path
---@param max_record integer? bytes of a line, at most
---@return fpcache.warm.Reader?
---@return string? err
function reader.open(path, name, max_record)
  local file = io.stdin
  if path ~= "-" then
    local err
    file, err = io.open(path, "rb")
    if not file then return nil, "invalid: cannot read " .. err end
  end
  local size = path ~= "-" and file:seek("end") or nil
  if size then file:seek("set", 0) end
  return setmetatable({ file = file, path = name or path, size = size, buffer = "", at = 1, offset = 0, line_number = 0,
    max_record = max_record or MAX_RECORD }, Reader)
end

--- Goes to a place that was told by `place()`.
---@return boolean? ok, string? err
function Reader:go_to(place)
  if not self.size then return nil, "invalid: " .. self.path .. " cannot be resumed, it is no file" end
  if place.size ~= self.size then
    return nil, ("invalid: %s has %d bytes now and had %d when the job was interrupted; remove the resume file to begin "
      .. "anew"):format(self.path, self.size, place.size)
  end
  self.file:seek("set", place.offset)
  self.buffer, self.at, self.offset, self.line_number = "", 1, place.offset, place.line
  return true
end

function Reader:place()
  return { offset = self.offset, line = self.line_number, size = self.size }
end

--- Reads more behind what is in the buffer.
---@return boolean more false at the end
function Reader:read_more()
  local piece, err = self.file:read(PIECE)
  if err then error({ fatal = ("invalid: cannot read %s: %s"):format(self.path, err) }) end
  if not piece then return false end
  self.buffer, self.at = self.buffer:sub(self.at) .. piece, 1
  if #self.buffer > self.max_record then
    error({ fatal = ("invalid: a record of %s near line %d has more than %d bytes"):format(self.path, self.line_number,
      self.max_record) })
  end
  return true
end

--- Takes `count` bytes off the buffer.
function Reader:take(count)
  local text = self.buffer:sub(self.at, self.at + count - 1)
  self.at, self.offset = self.at + count, self.offset + count
  return text
end

--- The next line without its end ("\n" or "\r\n"); nil at the end.
---@return string?
function Reader:line()
  local from = self.at
  while true do
    local stop = self.buffer:find("\n", from, true)
    if stop then
      local text = self:take(stop - self.at + 1)
      self.line_number = self.line_number + 1
      return text:sub(1, text:byte(-2) == 13 and -3 or -2)
    end
    local rest = #self.buffer - self.at + 1
    if not self:read_more() then
      if rest == 0 then return nil end
      self.line_number = self.line_number + 1
      return (self:take(rest):gsub("\r$", ""))
    end
    from = self.at + rest
  end
end

function Reader:close()
  if self.path ~= "-" then self.file:close() end
end

return reader

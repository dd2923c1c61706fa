--- Sources of records in files: JSON Lines, JSON arrays, CSV, TSV, Debian's control format and plain lines.
--
-- A source has next(), which answers the record and the number of its line; nil, err, line for one that is bad; nil at
-- the end.  place() and go_to() are the reader's.
local codec = require("fpcache.codec")
local reader = require("fpcache.warm.reader")

local lines = {}

local Source = {}
Source.__index = Source

function Source:place()
  local place = self.reader:place()
  place.count, place.header, place.is_over, place.tag = self.count, self.header, self.is_over, self.tag
  return place
end

function Source:go_to(place)
  if place.tag ~= self.tag then
    return nil, ("invalid: %s is another one than when the job was interrupted; remove the resume file to begin anew"):format(
      self.name)
  end
  local ok, err = self.reader:go_to(place)
  if not ok then return nil, err end
  self.count, self.header, self.is_over = place.count, place.header, place.is_over
  return true
end

function Source:close() self.reader:close() end

local function decode(text)
  local value, err = codec.json.decode(text)
  if value == nil then return nil, (err:gsub("^%a+: ", "")) end
  return value
end

--- The next line that is not empty.
local function line_with_text(self)
  local line
  repeat line = self.reader:line() until not line or line:find("%S")
  return line
end

--- JSON Lines: one value a line, empty lines between them.
local function next_jsonl(self)
  local line = line_with_text(self)
  if not line then return nil end
  local record, err = decode(line)
  if record == nil then return nil, err, self.reader.line_number end
  return record, self.reader.line_number
end

--- Plain lines: records { line = text }, empty ones left out.
local function next_line(self)
  local line = line_with_text(self)
  if not line then return nil end
  return { line = line:match("^%s*(.-)%s*$") }, self.reader.line_number
end

--- Debian's control format (deb822): "Name: value", lines that begin with a blank go on, an empty line ends the record.
local function next_stanza(self)
  local r = self.reader
  local record, name, first, broken
  while true do
    local line = r:line()
    if not line or not line:find("%S") then
      if record or not line then break end
    else
      record, first = record or {}, first or r.line_number
      local word, value = line:match("^([^%s:#][^%s:]*):%s*(.-)%s*$")
      if word then
        name, record[word] = word, value
      elseif name and line:find("^%s") then
        record[name] = record[name] .. "\n" .. line:match("^%s(.-)%s*$")
      elseif line:byte() ~= 35 then -- a comment begins with #
        broken = broken or r.line_number
      end
    end
  end
  if broken then return nil, "a line that is no field", broken end
  return record, first
end

-- --- JSON arrays: the elements are cut at the commas outside of strings and brackets, each is then parsed alone. ---

--- Where the next byte that is not space stands; nil at the end.
local function skip_space(r)
  while true do
    local at = r.buffer:find("[^ \t\r\n]", r.at)
    if at then
      local _, ends = r:take(at - r.at):gsub("\n", "")
      r.line_number = r.line_number + ends
      return r.buffer:sub(r.at, r.at)
    end
    local _, ends = r:take(#r.buffer - r.at + 1):gsub("\n", "")
    r.line_number = r.line_number + ends
    if not r:read_more() then return nil end
  end
end

--- The text of one element, up to the comma or bracket behind it; nil when the file ends before.
local function cut_element(r)
  local depth, from, in_string = 0, r.at, false
  while true do
    local at = r.buffer:find(in_string and '["\\]' or '[%[%]{}",]', from)
    if not at or (in_string and at == #r.buffer) then
      local done = (at or #r.buffer + 1) - r.at
      if not r:read_more() then return nil end
      from = r.at + done
    else
      local char = r.buffer:byte(at)
      from = at + 1
      if in_string then
        if char == 92 then from = at + 2 else in_string = false end
      elseif char == 34 then
        in_string = true
      elseif char == 91 or char == 123 then
        depth = depth + 1
      elseif depth == 0 then
        return r:take(at - r.at)
      elseif char ~= 44 then
        depth = depth - 1
      end
    end
  end
end

local function fatal(r, what)
  error({ fatal = ("invalid: %s, line %d: %s"):format(r.path, r.line_number + 1, what) })
end

local function next_element(self)
  local r = self.reader
  if self.is_over then return nil end
  local char = skip_space(r)
  if self.count == 0 and not self.inside then
    if char ~= "[" then fatal(r, "a JSON array begins with [") end
    r:take(1)
    self.inside = true
    char = skip_space(r)
    if char == "]" then
      self.is_over = true
      return nil
    end
  end
  if not char then fatal(r, "the file ends inside the array") end
  local line = r.line_number + 1
  local text = cut_element(r)
  if not text then fatal(r, "the file ends inside the array") end
  local _, ends = text:gsub("\n", "")
  r.line_number = r.line_number + ends
  self.is_over = r:take(1) == "]" -- else a comma
  self.count = self.count + 1
  local record, err = decode(text)
  if record == nil then return nil, err, line end
  return record, line
end

-- --- CSV and TSV (RFC 4180): a header, then one record a line; quoted fields may hold separators and line ends. ---

local function split_plain(line, separator)
  local fields, from = {}, 1
  while true do
    local at = line:find(separator, from, true)
    fields[#fields + 1] = line:sub(from, (at or 0) - 1)
    if not at then return fields end
    from = at + 1
  end
end

--- The fields of a line with quotes; nil when a quoted field goes on in the next line.
---@return string[]? fields, string? err
local function split_quoted(line, separator)
  local fields, from = {}, 1
  while true do
    local stop
    if line:byte(from) == 34 then
      local at = from + 1
      while true do -- to the quote that is not doubled
        at = line:find('"', at, true)
        if not at then return nil end
        if line:byte(at + 1) ~= 34 then break end
        at = at + 2
      end
      fields[#fields + 1] = line:sub(from + 1, at - 1):gsub('""', '"')
      stop = at + 1
      if stop <= #line and line:sub(stop, stop) ~= separator then
        return nil, "a quoted field ends before its separator"
      end
    else
      stop = line:find(separator, from, true) or #line + 1
      fields[#fields + 1] = line:sub(from, stop - 1)
    end
    if stop > #line then return fields end
    from = stop + 1
  end
end

--- The fields of the next record; nil at the end; nil, err, line for a bad one.
local function next_fields(self)
  local r = self.reader
  local line
  repeat
    line = r:line()
    if not line then return nil end
  until line ~= ""
  local first = r.line_number
  if not line:find('"', 1, true) then return split_plain(line, self.separator), first end
  while true do
    local fields, err = split_quoted(line, self.separator)
    if fields then return fields, first end
    if err then return nil, err, first end
    local more = r:line()
    if not more then return nil, "a quoted field has no end", first end
    line = line .. "\n" .. more
  end
end

local function next_row(self)
  if not self.header then
    local header, err = next_fields(self)
    if not header then
      if err then fatal(self.reader, err) end
      return nil
    end
    header[1] = header[1]:gsub("^\239\187\191", "") -- a byte order mark
    self.header = header
  end
  local fields, line_or_err, line = next_fields(self)
  if not fields then return nil, line_or_err, line end
  local header = self.header
  if #fields ~= #header then
    return nil, ("%d fields, the header has %d"):format(#fields, #header), line_or_err
  end
  local record = {}
  for i = 1, #header do record[header[i]] = fields[i] end
  return record, line_or_err
end

local FORMATS = {
  jsonl = { next = next_jsonl },
  json = { next = next_element },
  csv = { next = next_row, separator = "," },
  tsv = { next = next_row, separator = "\t" },
  lines = { next = next_line },
  deb822 = { next = next_stanza },
}
local BY_SUFFIX = { jsonl = "jsonl", ndjson = "jsonl", json = "json", csv = "csv", tsv = "tsv", tab = "tsv" }

lines.FORMATS = "jsonl json csv tsv lines deb822"

--- The format that a name's suffix tells.
---@param name string
---@return string?
function lines.format_of(name)
  return BY_SUFFIX[(name:match("%.(%w+)$") or ""):lower()]
end

--- Opens a file as a source.
---@param path string "-" is standard input
---@param format string? "jsonl", "json", "csv", "tsv", "lines"; by the file's suffix when it is not given
---@param name string? for messages; default: the path
---@return table? source
---@return string? err
function lines.open(path, format, name)
  name = name or path
  format = format or lines.format_of(name)
  if not FORMATS[format] then
    return nil, ("invalid: what format has %s? one of %s"):format(name, lines.FORMATS)
  end
  local opened, err = reader.open(path, name)
  if not opened then return nil, err end
  local kind = FORMATS[format]
  local source = setmetatable({ reader = opened, next = kind.next, separator = kind.separator, count = 0, name = name,
    format = format }, Source)
  return source
end

--- Bytes that were read, of all; nil, nil where that is not known.
function Source:progress()
  return self.reader.offset, self.reader.size
end

return lines

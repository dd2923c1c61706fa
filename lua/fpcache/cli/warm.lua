--- `fpcache warm`: fills the cache from files and queries.
local answer = require("fpcache.cli.answer")
local argparse = require("argparse")
local connection_flags = require("fpcache.cli.connection_flags")
local fpcache = require("fpcache")
local progress = require("fpcache.warm.progress")
local system = require("fpcache.core").system
local view = require("fpcache.top.view")
local warm = require("fpcache.warm")

local cli = {}

local function number_or_template(text)
  return tonumber(text) or text
end

local function make_parser()
  local parser = argparse("fpcache warm", "Fill the cache from records: files, URLs, or a query on any PostgreSQL.")
  parser:epilog("Templates take fields of the record: --key 'product:{id}' --value '{price}'; {a.b} goes inside, {{ is a brace.\n"
    .. "Exit code: 0 done, also with bad records up to --max-errors; 1 not done; 2 a wrong command line.")
  parser:argument("source", "Files or URLs: JSON Lines, JSON arrays, CSV or TSV with a header; - is standard input."):args("*")
  parser:option("--format", "Format (default: by the suffix)."):choices({ "jsonl", "json", "csv", "tsv", "lines", "deb822" })
  parser:option("--sql", "Instead of files: a SELECT, read by a cursor."):argname("QUERY")
  parser:option("--from", "Where the query runs (default: the cache's database)."):argname("URL")
  parser:flag("--stream", "Let the rows pass through here also where the server could copy them itself.")
  parser:option("--key", "Template of the keys."):argname("TEMPLATE")
  parser:option("--value", "Template of the values (default: the whole record)."):argname("TEMPLATE")
  parser:option("--value-url", "Template of URLs: what they give are the values."):argname("TEMPLATE")
  parser:option("--urls", "A file of URLs, one a line: they give the values, and are the keys unless --key is given.")
    :argname("FILE")
  parser:option("--ttl", "Seconds to live, 5m, or a template (default: no expiry)."):argname("TIME"):convert(number_or_template)
  parser:option("--jobs", "Batches that are stored at once."):argname("N"):convert(math.tointeger):default("4")
  parser:option("--batch", "Records in one statement."):argname("N"):convert(math.tointeger):default("5000")
  parser:option("--rate", "Records per second at most."):argname("N"):convert(tonumber)
  parser:option("--resume", "Keep the place in this file, and go on there if it is left from an interrupted run."):argname("FILE")
  parser:option("--errors", "Write bad records' places and reasons here, as JSON Lines."):argname("FILE")
  parser:option("--max-errors", "Bad records that are passed over."):argname("N"):convert(math.tointeger):default("100")
  parser:flag("--dry-run", "Read and check everything, store nothing.")
  parser:option("--namespace", "Namespace within the user's keys.", ""):argname("NAME")
  parser:option("--http-parallel", "URLs that are fetched at once."):argname("N"):convert(math.tointeger)
  parser:option("--http-tries", "Times that a URL is tried."):argname("N"):convert(math.tointeger)
  parser:option("--http-timeout", "Seconds for one try of one value."):argname("SECONDS"):convert(tonumber)
  parser:option("--http-max-bytes", "Of one body, unpacked."):argname("N"):convert(math.tointeger)
  parser:option("--http-ca", "Certificates that vouch for the servers, instead of the system's."):argname("FILE")
  parser:option("--header", "A line for each request, such as 'Accept: text/csv'; may come again."):argname("LINE"):count("*")
  parser:flag("--json", "Print the result as JSON.")
  parser:flag("--quiet", "No progress.")
  connection_flags.add(parser)
  return parser
end

--- A mistake on the command line that the parser cannot see.
local function misuse(flags)
  if not flags.key and not flags.urls then return "--key is needed, such as --key 'product:{id}'" end
  if flags.urls and (flags.value_url or flags.sql or #flags.source > 0) then return "--urls stands alone" end
  if flags.sql and #flags.source > 0 then return "--sql and files exclude each other" end
  if not flags.sql and not flags.urls and #flags.source == 0 then return "a file, --urls or --sql is needed" end
  if flags.from and not flags.sql then return "--from belongs to --sql" end
end

local function job_of(flags)
  local source, format, url = flags.source, flags.format, flags.value_url
  if flags.sql then
    source = connection_flags.read(flags)
    if flags.from then source = { connection_string = flags.from } end
    source.schema, source.sql = nil, flags.sql
  elseif flags.urls then
    source, format, url = { flags.urls }, "lines", "{line}"
  end
  return {
    source = source, format = format, key = flags.key or "{line}", value = flags.value, url = url, ttl = flags.ttl,
    batch = flags.batch, jobs = flags.jobs, rate = flags.rate, resume = flags.resume, errors = flags.errors,
    max_errors = flags.max_errors, dry_run = flags.dry_run or false,
    http = { parallel = flags.http_parallel, tries = flags.http_tries, timeout = flags.http_timeout,
      max_bytes = flags.http_max_bytes, ca_file = flags.http_ca, headers = #flags.header > 0 and flags.header or nil },
  }
end

--- Does the job: on the server where source and cache share a database and it would come to the same, else here.
local function warm_up(job, flags)
  if flags.sql and not flags.from and not flags.stream then
    local here = job.source
    job.source, job.on_server = { sql = flags.sql }, true
    local state, err, reached = warm.run(job)
    if state or not err:find("^invalid: not on the server: ") and not err:find("^denied: ") then return state, err, reached end
    job.source, job.on_server = here, nil
  end
  return warm.run(job)
end

local function run(flags)
  local job = job_of(flags)
  local finish = function() end
  if not flags.quiet then
    job.on_progress, finish = progress.shower(io.stderr, system.isatty(2))
  end
  local err
  if not job.dry_run then
    local opts = connection_flags.read(flags)
    opts.namespace, opts.feed = flags.namespace, false -- it only writes
    job.cache, err = connection_flags.call(fpcache.new, opts)
    if not job.cache then return answer.failed(err) end
  end
  local called, state, why, reached = pcall(warm_up, job, flags)
  finish()
  if job.cache then job.cache:close() end
  if not called then
    local words = tostring(state):match("options%.(.*)$")
    if not words then error(state, 0) end
    return answer.failed("invalid: " .. words)
  end
  reached = state or reached
  if reached and flags.json then
    reached.done, reached.error = state ~= nil, why
    answer.json(reached)
  elseif reached then
    io.stderr:write(progress.summary(reached), job.dry_run and " (a dry run: nothing was stored)\n" or "\n")
    if state and reached.first_bad and not job.errors then
      io.stderr:write("the first bad one: ", view.plain(reached.first_bad), " (--errors FILE tells all)\n")
    end
  end
  if state then return 0 end
  return answer.failed(why .. (reached and flags.resume and "; run it again to go on" or ""))
end

---@param words string[]
---@return integer exit_code
function cli.run(words)
  local flags, code = connection_flags.parse(make_parser(), words)
  if not flags then return code end
  local mistake = misuse(flags)
  if mistake then return answer.misused(mistake) end
  return run(flags)
end

return cli

--- What a worker does without an engine: libpq by FFI, blocking.
local ffi = require("ffi")

ffi.cdef [[
typedef struct bench_conn bench_conn;
typedef struct bench_result bench_result;
bench_conn *PQconnectdb(const char *);
int PQstatus(bench_conn *);
char *PQerrorMessage(bench_conn *);
bench_result *PQprepare(bench_conn *, const char *, const char *, int, const void *);
bench_result *PQexecPrepared(bench_conn *, const char *, int, const char *const *, const int *, const int *, int);
int PQntuples(bench_result *);
char *PQgetvalue(bench_result *, int, int);
int PQgetlength(bench_result *, int, int);
void PQclear(bench_result *);
]]
local libpq = ffi.load("libpq.so.5")

local blocking_libpq = {}

local conn
local values, lengths, formats = ffi.new("const char *[2]"), ffi.new("int[2]"), ffi.new("int[2]", 0, 1)

--- The value of a key in the namespace "".
function blocking_libpq.get(url, statement, key)
  if not conn then
    conn = libpq.PQconnectdb(url)
    if libpq.PQstatus(conn) ~= 0 then error(ffi.string(libpq.PQerrorMessage(conn))) end
    libpq.PQclear(libpq.PQprepare(conn, "g", statement, 0, nil))
  end
  values[0], values[1], lengths[0], lengths[1] = "", key, 0, #key
  local result = libpq.PQexecPrepared(conn, "g", 2, values, lengths, formats, 1)
  local value = libpq.PQntuples(result) == 1
    and ffi.string(libpq.PQgetvalue(result, 0, 0), libpq.PQgetlength(result, 0, 0)) or nil
  libpq.PQclear(result)
  return value
end

return blocking_libpq

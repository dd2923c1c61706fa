/* fpcache.h -- fpcache inside a C program: Lua runtimes with everything built in.
 *
 * Words of this header:
 *   runtime   one Lua 5.4 state with `require "fpcache"` and `require "cjson"` in it
 *   family    runtimes that share connections: within a family caches that are opened with the same
 *             options use one pool and one pipeline.  The change feed and the cuckoo filter of one
 *             database, schema and login are shared by the whole process anyway; near caches are each
 *             runtime's own
 *   chunk     a piece of Lua that is loaded and run
 *   limit     what one call may use; a call that exceeds it ends with an error, and the runtime can be
 *             used again
 *   host      the program that includes this header
 *
 * Errors are values: every function that may fail returns a status and fills an fpc_error (NULL is allowed).
 * What a script raises has the status whose name its message begins with, as those of
 * `assert(cache:get(key))` do, else FPC_INVALID; its traceback is fpc_runtime_traceback().  A limit of
 * instructions or time is FPC_TIMEOUT, of memory FPC_NOMEM.
 * Ownership: strings and arguments are the caller's and copied.  Results are the runtime's and live until its
 * next call.
 * Thread rule: one thread at a time for each runtime, any thread, and as many runtimes as you like;
 * fpc_runtime_interrupt() and the functions of families may be called from any thread.  fork(2): open
 * runtimes in the child.
 *
 * What is declared here is the ABI of libfpcache.so; the other headers are those of the static
 * libfpcache-core.a. */
#ifndef FPCACHE_FPCACHE_H
#define FPCACHE_FPCACHE_H

#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FPC_API __attribute__((visibility("default")))

typedef struct fpc_runtime fpc_runtime;
typedef struct fpc_family fpc_family;

/* Of one call; 0: none.  Time and instructions are counted in Lua, every 1,000 instructions: a wait for the
 * server ends by the cache's own `timeout`, a long C function of Lua's (string.rep) when it is done. */
typedef struct fpc_limits {
    size_t memory;         /* bytes that the Lua state may hold, at any time */
    uint64_t instructions; /* of Lua's virtual machine, all coroutines together */
    double seconds;
} fpc_limits;

typedef struct fpc_runtime_options {
    fpc_family *family; /* NULL: none; it must outlive the runtime */
    fpc_limits limits;
    bool unwatched; /* no time, no instructions, no interrupts: loops of Lua run up to twice as fast */
} fpc_runtime_options;

typedef enum fpc_value_type {
    FPC_VALUE_NIL = 0,
    FPC_VALUE_BOOLEAN,
    FPC_VALUE_INTEGER,
    FPC_VALUE_NUMBER,
    FPC_VALUE_STRING, /* any bytes */
    FPC_VALUE_JSON    /* a table (or null), as JSON text */
} fpc_value_type;

typedef struct fpc_value {
    fpc_value_type type;
    union {
        bool boolean;
        int64_t integer;
        double number;
        struct {
            const char *bytes; /* results: ends with '\0' */
            size_t length;
        } text; /* FPC_VALUE_STRING and FPC_VALUE_JSON */
    };
} fpc_value;

/* --- families --- */

FPC_API fpc_status fpc_family_open(fpc_family **out, fpc_error *err);
/* No runtime of it may be open any more.  NULL is allowed. */
FPC_API void fpc_family_close(fpc_family *family);
/* Pools that are open in it. */
FPC_API int fpc_family_pools(fpc_family *family);

/* --- runtimes --- */

/* `options` NULL: no family, no limits.  The limit of memory holds from the beginning; a runtime needs 3 MB.
 */
FPC_API fpc_status fpc_runtime_open(const fpc_runtime_options *options, fpc_runtime **out, fpc_error *err);
/* Closes its caches too.  NULL is allowed. */
FPC_API void fpc_runtime_close(fpc_runtime *runtime);

/* From the next call on. */
FPC_API void fpc_runtime_set_limits(fpc_runtime *runtime, const fpc_limits *limits);
/* Bytes that the Lua state holds now. */
FPC_API size_t fpc_runtime_memory(const fpc_runtime *runtime);

/* Runs a chunk; `name` stands in messages, such as "startup.lua".  Globals that it sets stay.  What it
 * returns are the results; NULL for `results` and `count`: they are dropped. */
FPC_API fpc_status fpc_runtime_run(fpc_runtime *runtime, const char *code, size_t length, const char *name,
                                   const fpc_value **results, int *count, fpc_error *err);
/* The same for a file; FPC_INVALID when it cannot be read. */
FPC_API fpc_status fpc_runtime_run_file(fpc_runtime *runtime, const char *path, const fpc_value **results,
                                        int *count, fpc_error *err);

/* Calls a global function, or one inside global tables: "handlers.get".  FPC_INVALID when there is none. */
FPC_API fpc_status fpc_runtime_call(fpc_runtime *runtime, const char *function, const fpc_value *arguments,
                                    int argument_count, const fpc_value **results, int *count,
                                    fpc_error *err);

/* The traceback of the last call, or "" when it did not fail by something that was raised. */
FPC_API const char *fpc_runtime_traceback(const fpc_runtime *runtime);

/* Ends the call that runs now, if one does, at its next instructions: FPC_INTERRUPTED.  From any thread and
 * from signal handlers. */
FPC_API void fpc_runtime_interrupt(fpc_runtime *runtime);

/* --- functions of the host --- */

/* A function that scripts call as a global.  It reads `count` arguments, which live until it returns, fills
 * *result (zeroed before; its text is copied when it returns) and returns FPC_OK, or fills *err, which is
 * raised in the script as "code: message".  It must not call the runtime. */
typedef fpc_status fpc_host_function(void *data, const fpc_value *arguments, int count, fpc_value *result,
                                     fpc_error *err);
FPC_API fpc_status fpc_runtime_define(fpc_runtime *runtime, const char *name, fpc_host_function *function,
                                      void *data, fpc_error *err);

/* Such as "0.1.0". */
FPC_API const char *fpc_library_version(void);
/* The stable name of a status, such as "timeout"; never NULL. */
FPC_API const char *fpc_status_text(fpc_status status);

#ifdef __cplusplus
}
#endif

#endif

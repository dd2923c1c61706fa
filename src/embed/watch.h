/* watch.h -- what a runtime is, and the watch over what its calls use.
 *
 * Thread rule: the runtime's; `is_interrupted` is any thread's. */
#ifndef FPC_EMBED_WATCH_H
#define FPC_EMBED_WATCH_H

#include "fpcache/clock.h"
#include "fpcache/fpcache.h"

#include <lua.h>
#include <stdatomic.h>

struct fpc_runtime {
    lua_State *L;
    fpc_limits limits;
    bool is_watched;
    size_t used; /* bytes of the Lua state */
    atomic_bool is_in_call, is_interrupted;
    uint64_t instructions; /* of this call so far */
    fpc_deadline deadline; /* of this call */
    fpc_status violation;  /* FPC_OK: none yet in this call */
    fpc_value *results;
    int result_count, result_room;
    char *traceback; /* NULL: none */
};

/* The allocator of its state, which keeps to the limit of memory. */
void *fpc_embed_allocate(void *runtime, void *block, size_t old_size, size_t new_size);

/* Sets the hook that looks after every coroutine from now on. */
void fpc_embed_watch(fpc_runtime *runtime);
/* Whether the call that runs in this state has exceeded a limit, or was interrupted. */
bool fpc_embed_is_over(lua_State *L);
/* Begins and ends the time of a call. */
void fpc_embed_begin_call(fpc_runtime *runtime);
void fpc_embed_end_call(fpc_runtime *runtime);

#endif

/* token.h -- a keeper of passwords, shared by its Lua object and the pools that ask it.
 *
 * A Lua function as a source is called here and nowhere else: by the thread that calls into the library,
 * before it connects.  Threads of the core take the last password it gave. */
#ifndef FPC_LUA_TOKEN_H
#define FPC_LUA_TOKEN_H

#include "fpcache/token.h"
#include "types.h"

#include <stdatomic.h>

/* Lives until the last of them is closed or collected.  One with a function belongs to its Lua state; others
 * may be shared and dropped by any thread. */
typedef struct fpc_lua_keeper {
    fpc_token_keeper *keeper;
    int function; /* a reference in the registry; LUA_NOREF: the keeper has a source */
    bool is_pulling;
    atomic_int references;
} fpc_lua_keeper;

/* The keeper of the userdata at `index`, NULL when it is closed; raises if it is none. */
fpc_lua_keeper *fpc_lua_check_keeper(lua_State *L, int index);
fpc_lua_keeper *fpc_lua_keeper_share(fpc_lua_keeper *self); /* NULL gives NULL */
/* NULL is allowed, for `L` too where there is no function. */
void fpc_lua_keeper_drop(lua_State *L, fpc_lua_keeper *self);

/* Whether there is a function, and it should be called; NULL is allowed. */
bool fpc_lua_keeper_wants(const fpc_lua_keeper *self);
/* Calls the function where it is wanted.  What goes wrong with it, who needs the password learns. */
void fpc_lua_keeper_pull(lua_State *L, fpc_lua_keeper *self);

/* Pushes a table of the keeper's numbers and words. */
void fpc_lua_keeper_push_stats(lua_State *L, const fpc_lua_keeper *self);

#endif

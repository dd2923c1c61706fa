/* pool_family.h -- pools shared by several Lua states, on any number of threads.
 *
 *   family   what the states of one host program have in common; the states are told by
 *            fpc_lua_join_pool_family(), before they open a cache
 *
 * Within a family core.pool() with the same description gives the same pool and pipeline; the last one that
 * closes it ends it.  A pool whose password is a function is its state's own.  Thread rule: any thread; a
 * family must outlive its states. */
#ifndef FPC_LUA_POOL_FAMILY_H
#define FPC_LUA_POOL_FAMILY_H

#include "compat.h"
#include "pool.h"

typedef struct fpc_lua_pool_family fpc_lua_pool_family;

fpc_lua_pool_family *fpc_lua_pool_family_new(void); /* NULL: out of memory */
/* NULL is allowed. */
void fpc_lua_pool_family_delete(fpc_lua_pool_family *family);
/* How many pools are open in it. */
int fpc_lua_pool_family_count(fpc_lua_pool_family *family);

void fpc_lua_join_pool_family(lua_State *L, fpc_lua_pool_family *family);
/* The family of this state, or NULL. */
fpc_lua_pool_family *fpc_lua_pool_family_of(lua_State *L);

/* The pool of this description, with one more reference; where there is none, `mine` becomes it.  A state
 * that runs out of memory keeps `mine` for itself. */
fpc_lua_shared_pool *fpc_lua_pool_family_join(fpc_lua_pool_family *family, fpc_lua_shared_pool *mine,
                                              const char *description, size_t length);

/* One reference less of a pool of a family; whether it was the last, which takes the pool out of the family.
 */
bool fpc_lua_pool_family_drop(fpc_lua_shared_pool *shared);

#endif

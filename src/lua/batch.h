/* batch.h -- the Lua type of a batch, for the binding of statements. */
#ifndef FPC_LUA_BATCH_H
#define FPC_LUA_BATCH_H

#include "fpcache/batch.h"
#include "types.h"

/* The open batch at `index`, or NULL when it is something else. */
fpc_batch *fpc_lua_test_batch(lua_State *L, int index);

#endif

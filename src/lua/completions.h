/* completions.h -- the Lua type of a completion queue. */
#ifndef FPC_LUA_COMPLETIONS_H
#define FPC_LUA_COMPLETIONS_H

#include "fpcache/completions.h"
#include "types.h"

/* The queue at `index`; raises if it is none or closed. */
fpc_completions *fpc_lua_check_completions(lua_State *L, int index);

#endif

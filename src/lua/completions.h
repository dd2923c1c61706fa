/* completions.h -- the Lua type of a completion queue. */
#ifndef FPC_LUA_COMPLETIONS_H
#define FPC_LUA_COMPLETIONS_H

#include "fpcache/completions.h"
#include "types.h"

/* The queue at `index`; raises if it is none or closed. */
fpc_completions *fpc_lua_check_completions(lua_State *L, int index);
/* Pushes the id of a request that was submitted there: a number that no other has until next() gave it or
 * abandon() ended it.  Out of memory: abandons it and pushes nil and the reason.  Returns how many it pushed.
 */
int fpc_lua_push_request(lua_State *L, int index, fpc_request *request);

#endif

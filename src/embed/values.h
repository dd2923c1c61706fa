/* values.h -- fpc_value to Lua and back.
 *
 * Both functions raise Lua errors; they are for protected calls.  Thread rule: the state's. */
#ifndef FPC_EMBED_VALUES_H
#define FPC_EMBED_VALUES_H

#include "fpcache/fpcache.h"

#include <lua.h>

/* Pushes a value; raises when a JSON text is none. */
void fpc_embed_push_value(lua_State *L, const fpc_value *value);

/* Reads the value at `index`, whose texts live as long as the table at `anchor` holds them under `n`.  Raises
 * "`what` n is a function" for what has no form outside Lua. */
void fpc_embed_read_value(lua_State *L, int index, int anchor, int n, const char *what, fpc_value *out);

#endif

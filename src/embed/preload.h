/* preload.h -- gives a Lua state what is built in: fpcache, its core, cjson.
 *
 * Thread rule: the state's. */
#ifndef FPC_EMBED_PRELOAD_H
#define FPC_EMBED_PRELOAD_H

#include <lua.h>

/* Puts the built-in modules into package.preload, so that require() finds them before any file.  The standard
 * libraries must be there.  Raises Lua's "not enough memory". */
void fpc_embed_preload(lua_State *L);

/* Puts one more there. */
void fpc_embed_preload_function(lua_State *L, const char *name, lua_CFunction open);

#endif

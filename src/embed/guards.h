/* guards.h -- what Lua runs without its hook, and scripts would get around the limits by.
 *
 * In a watched runtime setmetatable() and debug.setmetatable() have finalizers (__gc) run where the hook
 * looks after them; xpcall() calls no message handler for the error of a limit; debug.sethook() is refused.
 */
#ifndef FPC_EMBED_GUARDS_H
#define FPC_EMBED_GUARDS_H

#include <lua.h>

/* Replaces them in a state that has its libraries. */
void fpc_embed_guard(lua_State *L);

#endif

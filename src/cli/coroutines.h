/* coroutines.h -- coroutine.resume() and coroutine.wrap() that know which coroutines run.
 *
 *   chain   the coroutines that were resumed and have neither yielded nor ended: each resumed by the one
 *           before it, the first by the main state
 *
 * A hook of Lua belongs to one coroutine.  Who wants to stop the running code must set it in the whole chain.
 * Thread rule: the main thread's, which runs the one Lua state. */
#ifndef FPC_CLI_COROUTINES_H
#define FPC_CLI_COROUTINES_H

#include <lua.h>

/* Puts our two functions into the library `coroutine`, before anybody has taken them from there.  `prepare`
 * is called with each coroutine that is about to run. */
void fpc_cli_coroutines_track(lua_State *L, void (*prepare)(lua_State *co));

/* Calls `act` for each coroutine of the chain.  May be called in a signal handler. */
void fpc_cli_coroutines_each(void (*act)(lua_State *co));

#endif

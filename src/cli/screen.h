/* screen.h -- the whole terminal for a program that redraws it: `require "fpcache.screen"`.
 *
 *   screen.open()        the other screen of the terminal, without a cursor; what is typed comes unechoed,
 *                        key by key.  Raises when standard input or output is no terminal.  close(), which
 *                        is also its finalizer, gives everything back as it was: so whatever ends the
 *                        program but a kill does
 *   screen:size()        columns, rows
 *   screen:key(seconds)  the bytes of a key; nil, "timeout"; nil, "resized"; nil, "interrupted"; nil,
 *                        "closed" at the end of input
 *
 * Ctrl-C and Ctrl-\ are signals as ever; Ctrl-Z does nothing.  Thread rule: the main thread's. */
#ifndef FPC_CLI_SCREEN_H
#define FPC_CLI_SCREEN_H

#include <lua.h>

int fpc_cli_open_screen(lua_State *L);

#endif

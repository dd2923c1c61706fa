/* signals.h -- what SIGINT and SIGTERM do to the interpreter.
 *
 *   script   the first signal interrupts it, and the program ends; a second one kills
 *   call     one evaluation of the shell: SIGINT ends it, and the shell goes on; SIGTERM ends the shell
 *
 * Thread rule: the main thread's, which runs the one Lua state. */
#ifndef FPC_CLI_SIGNALS_H
#define FPC_CLI_SIGNALS_H

#include <lua.h>
#include <stdbool.h>

/* From now on signals interrupt the script that runs in `L`, its coroutines too.  The standard libraries must
 * be there. */
void fpc_cli_signals_catch(lua_State *L);
/* The signal that ended the script, or 0. */
int fpc_cli_signals_caught(void);

/* From now on SIGINT ends calls only, and one begins: an evaluation, or the reading of a line, which may call
 * Lua too (completion).  Where SIGINT comes between two calls it ends the next one at once if that one heeds
 * it, as an evaluation does that was typed before; else it is forgotten. */
void fpc_cli_signals_begin_call(bool heeds_earlier);
/* The call has ended, and the next one starts unharmed; answers whether SIGINT came. */
bool fpc_cli_signals_end_call(lua_State *L);

#endif

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

/* From now on SIGINT ends calls only.  At the prompt it does nothing but wake the reader (EINTR). */
void fpc_cli_signals_for_calls(void);
/* Forgets a SIGINT that came, so that the next call starts unharmed; answers whether there was one. */
bool fpc_cli_signals_clear(lua_State *L);

#endif

/* terminal.h -- the module fpcache.terminal: a line editor with history and completion (libedit), and calls
 * that Ctrl-C ends.  Only the interpreter has it. */
#ifndef FPC_CLI_TERMINAL_H
#define FPC_CLI_TERMINAL_H

#include <lua.h>

/* terminal.editor{ history = path?, complete = function(before) -> start, candidates } -> editor
 *   editor:read(prompt) -> line | nil, "interrupted" | nil   (nil alone: end of input)
 *   editor:remember(text)   adds to the history, which is kept in the file at once
 *   editor:close()          gives the terminal back; also done by the collector
 * terminal.call(fn, ...) -> ok, results... | false, message, traceback, was_interrupted */
int fpc_cli_open_terminal(lua_State *L);

#endif

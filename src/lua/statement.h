/* statement.h -- the Lua type of a statement, and how Lua arguments become its parameters. */
#ifndef FPC_LUA_STATEMENT_H
#define FPC_LUA_STATEMENT_H

#include "fpcache/statement.h"
#include "types.h"

#define FPC_LUA_STATEMENT "fpcache.statement"

/* bytea[] arguments that a statement may have. */
#define FPC_LUA_MOST_LISTS 3

/* A statement and its parameters, bound from Lua arguments.  Strings are borrowed from the stack, so
 * release it before the arguments go. */
typedef struct fpc_lua_binding {
    const fpc_statement *statement;
    fpc_params params;
    fpc_array lists[FPC_LUA_MOST_LISTS]; /* of its bytea[] arguments */
    int list_count;
} fpc_lua_binding;

/* The statement at `index` and its arguments from `first` on.  Raises an argument error when they do not fit;
 * a false return has filled `err`, with nothing left to release. */
bool fpc_lua_bind(lua_State *L, int index, int first, fpc_lua_binding *binding, fpc_error *err);
void fpc_lua_unbind(fpc_lua_binding *binding);

#endif

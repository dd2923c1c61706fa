/* db.h -- what pools and connections have in common in Lua: running statements and converting answers.
 *
 * Methods, all of them (self, statement, timeout_s, ...arguments):
 *   run    rows written                       | nil, err
 *   row    true, column, ... or false         | nil, err
 *   rows   columns of all rows in one list, number of rows | nil, err
 * and, with (self, statement, timeout_s, codec, parse_json, ...arguments):
 *   value  true, value of the columns value, format; or false | nil, err
 *   map    {key = value} of the columns key, value, format, number of rows | nil, err
 * Where a column ttl follows, `value` adds ttl, bytes of the value and further columns, `map` {key = ttl} and
 * {key = bytes}.  A format NULL says that there is no value, but something else to be said: `value` gives
 * true, nil and its bytes.
 */
#ifndef FPC_LUA_DB_H
#define FPC_LUA_DB_H

#include "fpcache/completions.h"
#include "fpcache/conn.h"
#include "statement.h"
#include "types.h"

/* Runs a bound statement on whatever `self` is. */
typedef fpc_status fpc_lua_exec(void *self, const fpc_lua_binding *binding, fpc_deadline deadline,
                                fpc_result **out, fpc_error *err);

/* Pushes an answer as one of the methods gives it.  `codec`: the index of the codec, before that of
 * parse_json; for value and map.  Returns how many values it pushed, or nil and the error. */
typedef int fpc_lua_convert(lua_State *L, const fpc_answer *answer, int codec);

fpc_lua_convert fpc_lua_convert_run, fpc_lua_convert_row, fpc_lua_convert_rows, fpc_lua_convert_value,
    fpc_lua_convert_map;

int fpc_lua_db_run(lua_State *L, fpc_lua_exec *exec, void *self);
int fpc_lua_db_row(lua_State *L, fpc_lua_exec *exec, void *self);
int fpc_lua_db_rows(lua_State *L, fpc_lua_exec *exec, void *self);
int fpc_lua_db_value(lua_State *L, fpc_lua_exec *exec, void *self);
int fpc_lua_db_map(lua_State *L, fpc_lua_exec *exec, void *self);

/* Holds a result so that an error raised while it is converted frees it.  Pushes one userdata. */
fpc_result **fpc_lua_hold_result(lua_State *L);
/* Frees the result of a holder now rather than at the next collection. */
void fpc_lua_drop_result(fpc_result **holder);

/* Pushes the rows of a text result as a list of {column = value}, or the number of rows written when the
 * statement has no columns. */
void fpc_lua_push_text_rows(lua_State *L, const fpc_result *result);

void fpc_lua_register_result(lua_State *L);

#endif

/* json.h -- Lua values as JSON text and back, exactly.
 *
 * Words of this header:
 *   null        lightuserdata NULL, as in lua-cjson and ngx.null
 *   array mark  what says that an empty table is `[]` and not `{}`: the metatable array_mt, or in its
 *               place the value empty_array (a lightuserdata)
 *
 * Integers keep all 64 bits, floats their last bit, strings must be UTF-8 (NUL is fine).  A table
 * with the keys 1..n is an array, one with string keys an object; any other is refused.  Tables are
 * read and made raw: no metamethod runs.  At most FPC_JSON_DEPTH tables stand inside each other.
 * JSON's `[]` comes back as a table with array_mt, `{}` as a plain table; of equal keys the last wins.
 * Errors name the place in the table (its keys), a type or a length; never a value.
 * Both functions raise Lua's own "not enough memory", and then hold nothing. */
#ifndef FPC_LUA_JSON_H
#define FPC_LUA_JSON_H

#include "compat.h"
#include "fpcache/error.h"

#define FPC_JSON_DEPTH 512
#define FPC_JSON_BYTES ((size_t)1 << 30) /* longest text written: PostgreSQL takes no more either */

/* Writes the value at `index` as JSON.  On success pushes one value, which keeps *bytes alive.  On
 * failure (FPC_INVALID, FPC_NOMEM) pushes nothing. */
bool fpc_lua_json_write(lua_State *L, int index, const char **bytes, size_t *len, fpc_error *err);

/* Pushes the value of a JSON text of any kind.  On failure pushes nothing: FPC_INVALID when it is
 * no JSON or cannot be held exactly, FPC_NOMEM. */
bool fpc_lua_json_push(lua_State *L, const char *text, size_t len, fpc_error *err);

/* Pushes the set of array marks: a table whose keys are array_mt, empty_array and those added by
 * json_adopt().  Its value under 1 is array_mt. */
void fpc_lua_json_push_marks(lua_State *L);

#endif

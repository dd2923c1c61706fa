/* token_settings.h -- a Lua table as the settings of a token source. */
#ifndef FPC_LUA_TOKEN_SETTINGS_H
#define FPC_LUA_TOKEN_SETTINGS_H

#include "fpcache/token_source.h"
#include "types.h"

/* The table {name = text, number, boolean or list of texts} at `index`.  Raises for anything else.  Pushes
 * two values, which keep the answer alive. */
const fpc_token_setting *fpc_lua_check_token_settings(lua_State *L, int index, size_t *count);

#endif

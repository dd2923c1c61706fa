/* db.c -- statements in, Lua values out. */
#include "db.h"
#include "fpcache/key.h"
#include "number.h"
#include "seal.h"

#include <stdlib.h>
#include <string.h>

#define RESULT_TYPE "fpcache.result"

static int result_close(lua_State *L) {
    fpc_lua_drop_result(luaL_checkudata(L, 1, RESULT_TYPE));
    return 0;
}

fpc_result **fpc_lua_hold_result(lua_State *L) {
    fpc_result **holder = lua_newuserdata(L, sizeof *holder);
    *holder = NULL;
    luaL_setmetatable(L, RESULT_TYPE);
    return holder;
}

void fpc_lua_drop_result(fpc_result **holder) {
    fpc_result_delete(*holder);
    *holder = NULL;
}

void fpc_lua_register_result(lua_State *L) {
    static const luaL_Reg METHODS[] = {{NULL, NULL}};
    fpc_lua_new_type(L, RESULT_TYPE, METHODS, result_close);
}

/* Binds the arguments from `first` on, runs the statement, and leaves the result in a holder on the stack;
 * NULL when it failed. */
static fpc_result **execute(lua_State *L, fpc_lua_exec *exec, void *self, int first, fpc_error *err) {
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 3));
    fpc_result **holder = fpc_lua_hold_result(L);
    int top = lua_gettop(L);
    fpc_lua_binding binding;
    if (!fpc_lua_bind(L, 2, first, &binding, err)) return NULL;
    fpc_status status = exec(self, &binding, deadline, holder, err);
    fpc_lua_unbind(&binding);
    lua_settop(L, top);
    return status == FPC_OK ? holder : NULL;
}

static void push_column(lua_State *L, const fpc_result *result, int row, int column) {
    size_t length;
    if (fpc_result_is_null(result, row, column)) {
        lua_pushnil(L);
        return;
    }
    const char *bytes = fpc_result_bytes(result, row, column, &length);
    switch (fpc_result_oid(result, column)) {
    case FPC_OID_BOOL: lua_pushboolean(L, length > 0 && bytes[0] != 0); break;
    case FPC_OID_INT2:
    case FPC_OID_INT4:
    case FPC_OID_INT8:
    case FPC_OID_OID: fpc_lua_push_int64(L, fpc_result_int64(result, row, column)); break;
    case FPC_OID_FLOAT4:
    case FPC_OID_FLOAT8: lua_pushnumber(L, fpc_result_double(result, row, column)); break;
    default: lua_pushlstring(L, bytes, length);
    }
}

int fpc_lua_db_run(lua_State *L, fpc_lua_exec *exec, void *self) {
    fpc_error err;
    fpc_result **holder = execute(L, exec, self, 4, &err);
    if (holder == NULL) return fpc_lua_failure(L, &err);
    lua_pushinteger(L, (lua_Integer)fpc_result_affected(*holder));
    fpc_lua_drop_result(holder);
    return 1;
}

int fpc_lua_db_row(lua_State *L, fpc_lua_exec *exec, void *self) {
    fpc_error err;
    fpc_result **holder = execute(L, exec, self, 4, &err);
    if (holder == NULL) return fpc_lua_failure(L, &err);
    bool found = fpc_result_rows(*holder) > 0;
    int columns = found ? fpc_result_columns(*holder) : 0;
    lua_pushboolean(L, found);
    for (int column = 0; column < columns; column++) push_column(L, *holder, 0, column);
    fpc_lua_drop_result(holder);
    return 1 + columns;
}

int fpc_lua_db_rows(lua_State *L, fpc_lua_exec *exec, void *self) {
    fpc_error err;
    fpc_result **holder = execute(L, exec, self, 4, &err);
    if (holder == NULL) return fpc_lua_failure(L, &err);
    int rows = fpc_result_rows(*holder), columns = fpc_result_columns(*holder);
    lua_createtable(L, rows * columns, 0);
    for (int row = 0, i = 1; row < rows; row++) {
        for (int column = 0; column < columns; column++, i++) {
            push_column(L, *holder, row, column);
            lua_rawseti(L, -2, i);
        }
    }
    fpc_lua_drop_result(holder);
    lua_pushinteger(L, rows);
    return 2;
}

/* Pushes the value of the columns `column` and the next, which is its format.  `key`: the stored one. */
static bool push_value(lua_State *L, const fpc_result *result, int row, int column, const char *key,
                       size_t key_length, fpc_error *err) {
    size_t length, format_length;
    const char *bytes = fpc_result_bytes(result, row, column, &length);
    const char *format = fpc_result_bytes(result, row, column + 1, &format_length);
    int codec = lua_isnoneornil(L, 4) ? 0 : 4;
    return fpc_lua_seal_push(L, bytes, length, *format, codec, key, key_length, lua_toboolean(L, 5), err);
}

/* Pushes the bytes that the value of the columns `column` and the next has, opened and unpacked. */
static void push_size(lua_State *L, const fpc_result *result, int row, int column) {
    size_t length, format_length;
    const char *bytes = fpc_result_bytes(result, row, column, &length);
    const char *format = fpc_result_bytes(result, row, column + 1, &format_length);
    lua_pushinteger(L, (lua_Integer)fpc_lua_seal_size(bytes, length, *format));
}

int fpc_lua_db_value(lua_State *L, fpc_lua_exec *exec, void *self) {
    fpc_error err;
    fpc_result **holder = execute(L, exec, self, 6, &err);
    if (holder == NULL) return fpc_lua_failure(L, &err);
    bool found = fpc_result_rows(*holder) > 0;
    lua_pushboolean(L, found);
    size_t key_length = 0;
    const char *key = lua_type(L, 7) == LUA_TSTRING ? lua_tolstring(L, 7, &key_length) : NULL;
    bool decoded = !found || push_value(L, *holder, 0, 0, key, key_length, &err),
         has_ttl = found && fpc_result_columns(*holder) > 2;
    if (decoded && has_ttl) {
        push_column(L, *holder, 0, 2);
        push_size(L, *holder, 0, 0);
    }
    fpc_lua_drop_result(holder);
    return decoded ? 1 + found + 2 * has_ttl : fpc_lua_failure(L, &err);
}

int fpc_lua_db_map(lua_State *L, fpc_lua_exec *exec, void *self) {
    fpc_error err;
    fpc_result **holder = execute(L, exec, self, 6, &err);
    if (holder == NULL) return fpc_lua_failure(L, &err);
    int rows = fpc_result_rows(*holder), values = lua_gettop(L) + 1;
    char stored[FPC_KEY_STORED_MAX];
    bool has_ttl = fpc_result_columns(*holder) > 3;
    lua_createtable(L, 0, rows);
    if (has_ttl) {
        lua_createtable(L, 0, rows); /* ttls */
        lua_createtable(L, 0, rows); /* sizes */
    }
    for (int row = 0; row < rows; row++) {
        size_t key_length;
        const char *key = fpc_result_bytes(*holder, row, 0, &key_length);
        lua_pushlstring(L, key, key_length);
        if (has_ttl) {
            lua_pushvalue(L, -1);
            push_column(L, *holder, row, 3);
            lua_rawset(L, values + 1);
            lua_pushvalue(L, -1);
            push_size(L, *holder, row, 1);
            lua_rawset(L, values + 2);
        }
        if (key_length > FPC_KEY_INLINE && fpc_key_shorten(key, key_length, stored, &err) == FPC_OK)
            key = stored, key_length = FPC_KEY_STORED_MAX;
        if (!push_value(L, *holder, row, 1, key, key_length, &err)) {
            fpc_error_prefix(&err, "key %d of the answer: ", row + 1);
            fpc_lua_drop_result(holder);
            return fpc_lua_failure(L, &err);
        }
        lua_rawset(L, values);
    }
    fpc_lua_drop_result(holder);
    lua_pushinteger(L, rows);
    if (!has_ttl) return 2;
    lua_insert(L, values + 1); /* values, rows, ttls, sizes */
    return 4;
}

/* One value of a text result: numbers and booleans as such, where Lua can hold them exactly. */
static void push_text(lua_State *L, const fpc_result *result, int row, int column) {
    size_t length;
    double number = 0;
    const char *text = fpc_result_bytes(result, row, column, &length);
    switch (fpc_result_oid(result, column)) {
    case FPC_OID_BOOL: lua_pushboolean(L, text[0] == 't'); break;
    case FPC_OID_INT2:
    case FPC_OID_INT4:
    case FPC_OID_INT8:
    case FPC_OID_OID: fpc_lua_push_int64(L, strtoll(text, NULL, 10)); break;
    case FPC_OID_FLOAT4:
    case FPC_OID_FLOAT8:
        fpc_double_parse(text, length, &number); /* in any locale */
        lua_pushnumber(L, number);
        break;
    default: lua_pushlstring(L, text, length);
    }
}

void fpc_lua_push_text_rows(lua_State *L, const fpc_result *result) {
    int rows = fpc_result_rows(result), columns = fpc_result_columns(result);
    if (columns == 0) {
        lua_pushinteger(L, (lua_Integer)fpc_result_affected(result));
        return;
    }
    lua_createtable(L, rows, 0);
    for (int row = 0; row < rows; row++) {
        lua_createtable(L, 0, columns);
        for (int column = 0; column < columns; column++) {
            if (fpc_result_is_null(result, row, column)) continue;
            lua_pushstring(L, fpc_result_name(result, column));
            push_text(L, result, row, column);
            lua_rawset(L, -3);
        }
        lua_rawseti(L, -2, row + 1);
    }
}

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

/* Binds the arguments from `first` on, runs the statement, and pushes the answer. */
static int call(lua_State *L, fpc_lua_exec *exec, void *self, int first, int codec,
                fpc_lua_convert *convert) {
    fpc_error err;
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 3));
    fpc_result **holder = fpc_lua_hold_result(L);
    int top = lua_gettop(L);
    fpc_lua_binding binding;
    if (!fpc_lua_bind(L, 2, first, &binding, &err)) return fpc_lua_failure(L, &err);
    fpc_status status = exec(self, &binding, deadline, holder, &err);
    fpc_lua_unbind(&binding);
    lua_settop(L, top);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    fpc_answer answer = {.result = *holder, .rows = fpc_result_rows(*holder)};
    int values = convert(L, &answer, codec);
    fpc_lua_drop_result(holder);
    return values;
}

int fpc_lua_db_run(lua_State *L, fpc_lua_exec *exec, void *self) {
    return call(L, exec, self, 4, 0, fpc_lua_convert_run);
}

int fpc_lua_db_row(lua_State *L, fpc_lua_exec *exec, void *self) {
    return call(L, exec, self, 4, 0, fpc_lua_convert_row);
}

int fpc_lua_db_rows(lua_State *L, fpc_lua_exec *exec, void *self) {
    return call(L, exec, self, 4, 0, fpc_lua_convert_rows);
}

int fpc_lua_db_value(lua_State *L, fpc_lua_exec *exec, void *self) {
    return call(L, exec, self, 6, 4, fpc_lua_convert_value);
}

int fpc_lua_db_map(lua_State *L, fpc_lua_exec *exec, void *self) {
    return call(L, exec, self, 6, 4, fpc_lua_convert_map);
}

/* --- Converting --- */

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

int fpc_lua_convert_run(lua_State *L, const fpc_answer *answer, int codec) {
    (void)codec;
    lua_pushinteger(L, (lua_Integer)fpc_result_affected(answer->result));
    return 1;
}

int fpc_lua_convert_row(lua_State *L, const fpc_answer *answer, int codec) {
    (void)codec;
    bool found = answer->rows > 0;
    int columns = found ? fpc_result_columns(answer->result) - answer->column : 0;
    lua_pushboolean(L, found);
    for (int column = 0; column < columns; column++) {
        push_column(L, answer->result, answer->row, answer->column + column);
    }
    return 1 + columns;
}

int fpc_lua_convert_rows(lua_State *L, const fpc_answer *answer, int codec) {
    (void)codec;
    int columns = fpc_result_columns(answer->result) - answer->column;
    lua_createtable(L, answer->rows * columns, 0);
    for (int row = 0, i = 1; row < answer->rows; row++) {
        for (int column = 0; column < columns; column++, i++) {
            push_column(L, answer->result, answer->row + row, answer->column + column);
            lua_rawseti(L, -2, i);
        }
    }
    lua_pushinteger(L, answer->rows);
    return 2;
}

/* Pushes the value of the columns `column` and the next, which is its format.  `key`: the stored one. */
static bool push_value(lua_State *L, const fpc_result *result, int row, int column, int codec,
                       const char *key, size_t key_length, fpc_error *err) {
    size_t length, format_length;
    const char *bytes = fpc_result_bytes(result, row, column, &length);
    const char *format = fpc_result_bytes(result, row, column + 1, &format_length);
    int decoder = lua_isnoneornil(L, codec) ? 0 : codec;
    return fpc_lua_seal_push(L, bytes, length, *format, decoder, key, key_length, lua_toboolean(L, codec + 1),
                             err);
}

/* Pushes the bytes that the value of the columns `column` and the next has, opened and unpacked. */
static void push_size(lua_State *L, const fpc_result *result, int row, int column) {
    size_t length, format_length;
    const char *bytes = fpc_result_bytes(result, row, column, &length);
    const char *format = fpc_result_bytes(result, row, column + 1, &format_length);
    lua_pushinteger(L, (lua_Integer)fpc_lua_seal_size(bytes, length, *format));
}

int fpc_lua_convert_value(lua_State *L, const fpc_answer *answer, int codec) {
    fpc_error err;
    bool found = answer->rows > 0;
    lua_pushboolean(L, found);
    if (!found) return 1;
    size_t key_length = 0;
    if (fpc_result_is_null(answer->result, answer->row, answer->column + 1)) {
        lua_pushnil(L); /* every row of the table has a format */
        push_column(L, answer->result, answer->row, answer->column);
        return 3;
    }
    /* The stored key is the second argument of every statement that gives one value. */
    const char *key = lua_type(L, codec + 3) == LUA_TSTRING ? lua_tolstring(L, codec + 3, &key_length) : NULL;
    if (!push_value(L, answer->result, answer->row, answer->column, codec, key, key_length, &err))
        return fpc_lua_failure(L, &err);
    int columns = fpc_result_columns(answer->result) - answer->column;
    if (columns <= 2) return 2;
    push_column(L, answer->result, answer->row, answer->column + 2);
    push_size(L, answer->result, answer->row, answer->column);
    for (int column = 3; column < columns; column++)
        push_column(L, answer->result, answer->row, answer->column + column);
    return columns + 1;
}

int fpc_lua_convert_map(lua_State *L, const fpc_answer *answer, int codec) {
    fpc_error err;
    const fpc_result *result = answer->result;
    int key_column = answer->column, values = lua_gettop(L) + 1;
    char stored[FPC_KEY_STORED_MAX];
    bool has_ttl = fpc_result_columns(result) - answer->column > 3;
    lua_createtable(L, 0, answer->rows);
    if (has_ttl) {
        lua_createtable(L, 0, answer->rows); /* ttls */
        lua_createtable(L, 0, answer->rows); /* sizes */
    }
    for (int n = 0; n < answer->rows; n++) {
        int row = answer->row + n;
        size_t key_length;
        const char *key = fpc_result_bytes(result, row, key_column, &key_length);
        lua_pushlstring(L, key, key_length);
        if (has_ttl) {
            lua_pushvalue(L, -1);
            push_column(L, result, row, key_column + 3);
            lua_rawset(L, values + 1);
            lua_pushvalue(L, -1);
            push_size(L, result, row, key_column + 1);
            lua_rawset(L, values + 2);
        }
        if (key_length > FPC_KEY_INLINE && fpc_key_shorten(key, key_length, stored, &err) == FPC_OK)
            key = stored, key_length = FPC_KEY_STORED_MAX;
        if (!push_value(L, result, row, key_column + 1, codec, key, key_length, &err)) {
            fpc_error_prefix(&err, "key %d of the answer: ", n + 1);
            return fpc_lua_failure(L, &err);
        }
        lua_rawset(L, values);
    }
    lua_pushinteger(L, answer->rows);
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

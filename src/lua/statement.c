/* statement.c -- `core.statement(sql, types, is_read_only, is_slow, many, many_parameter)`.
 *
 * `many`: a statement that does it for many keys at once, in the place of the parameter of that number (from
 * 1); see include/fpcache/statement.h. `types` has one letter per argument: t text, y bytea, i integer, f
 * float, b boolean, c "char", Y a sequence of strings as bytea[], B a batch (five arrays). */
#include "statement.h"
#include "batch.h"

#include <string.h>

static int statement_close(lua_State *L) {
    fpc_statement **ud = luaL_checkudata(L, 1, FPC_LUA_STATEMENT);
    fpc_statement_delete(*ud);
    *ud = NULL;
    return 0;
}

static uint32_t oid_of(char type) {
    switch (type) {
    case 't': return FPC_OID_TEXT;
    case 'y': return FPC_OID_BYTEA;
    case 'i': return FPC_OID_INT8;
    case 'f': return FPC_OID_FLOAT8;
    case 'b': return FPC_OID_BOOL;
    case 'c': return FPC_OID_CHAR;
    case 'Y': return FPC_OID_BYTEA_ARRAY;
    default: return 0;
    }
}

static int statement_new(lua_State *L) {
    static const uint32_t BATCH_OIDS[FPC_BATCH_PARAMS] = {FPC_OID_BYTEA_ARRAY, FPC_OID_BYTEA_ARRAY,
                                                          FPC_OID_BYTEA_ARRAY, FPC_OID_CHAR_ARRAY,
                                                          FPC_OID_FLOAT8_ARRAY};
    const char *sql = luaL_checkstring(L, 1);
    const char *types = luaL_checkstring(L, 2);
    bool read_only = lua_toboolean(L, 3), slow = lua_toboolean(L, 4);
    fpc_statement **many = lua_isnoneornil(L, 5) ? NULL : luaL_checkudata(L, 5, FPC_LUA_STATEMENT);
    int many_param = many == NULL ? 1 : (int)luaL_checkinteger(L, 6);
    uint32_t oids[FPC_PARAMS_MAX];
    int count = 0;
    for (const char *type = types; *type != '\0'; type++) {
        int width = *type == 'B' ? FPC_BATCH_PARAMS : 1;
        if (count + width > FPC_PARAMS_MAX) return luaL_argerror(L, 2, "too many parameters");
        if (*type == 'B')
            memcpy(&oids[count], BATCH_OIDS, sizeof BATCH_OIDS);
        else if ((oids[count] = oid_of(*type)) == 0)
            return luaL_argerror(L, 2, "unknown type letter");
        count += width;
    }
    luaL_argcheck(L, many == NULL || (*many != NULL && many_param >= 1 && many_param <= count), 5,
                  "does not fit this statement");
    fpc_statement **ud = lua_newuserdata(L, sizeof *ud);
    *ud = NULL;
    luaL_setmetatable(L, FPC_LUA_STATEMENT);
    *ud = fpc_statement_new(sql, oids, count, read_only);
    if (*ud == NULL) return luaL_error(L, "memory: statement");
    (*ud)->slow = slow;
    if (many != NULL) fpc_statement_set_many(*ud, *many, many_param - 1);
    return 1;
}

static void check_strings(lua_State *L, int index) {
    luaL_checktype(L, index, LUA_TTABLE);
    int count = (int)lua_rawlen(L, index);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, index, i);
        if (lua_type(L, -1) != LUA_TSTRING) luaL_argerror(L, index, "a sequence of strings is expected");
        lua_pop(L, 1);
    }
}

static void check_argument(lua_State *L, int index, uint32_t oid) {
    int64_t ignored;
    if (lua_isnoneornil(L, index) || oid == FPC_OID_BOOL) {
        return;
    } else if (oid == FPC_OID_BYTEA_ARRAY) {
        check_strings(L, index);
    } else if (oid == FPC_OID_INT8) {
        luaL_argcheck(L, fpc_lua_to_int64(L, index, &ignored), index, "an integer is expected");
    } else if (oid == FPC_OID_FLOAT8) {
        luaL_checknumber(L, index);
    } else {
        luaL_checktype(L, index, LUA_TSTRING); /* a number would be changed in place */
    }
}

static void bind_strings(lua_State *L, int index, fpc_array *array) {
    int count = (int)lua_rawlen(L, index);
    fpc_array_create(array, FPC_OID_BYTEA);
    for (int i = 1; i <= count; i++) {
        size_t length;
        lua_rawgeti(L, index, i);
        const char *bytes = lua_tolstring(L, -1, &length);
        fpc_array_add(array, bytes, length);
        lua_pop(L, 1);
    }
}

static void bind_scalar(lua_State *L, int index, uint32_t oid, fpc_params *params) {
    int64_t integer;
    size_t length;
    if (lua_isnoneornil(L, index)) {
        fpc_params_null(params);
    } else if (oid == FPC_OID_INT8) {
        fpc_lua_to_int64(L, index, &integer);
        fpc_params_int64(params, integer);
    } else if (oid == FPC_OID_FLOAT8) {
        fpc_params_double(params, lua_tonumber(L, index));
    } else if (oid == FPC_OID_BOOL) {
        fpc_params_bool(params, lua_toboolean(L, index));
    } else {
        const char *bytes = lua_tolstring(L, index, &length);
        fpc_params_bytes(params, bytes, length);
    }
}

/* 1. Everything that can raise, before memory is held.  2. The parameters. */
bool fpc_lua_bind(lua_State *L, int index, int first, fpc_lua_binding *binding, fpc_error *err) {
    fpc_statement **ud = luaL_checkudata(L, index, FPC_LUA_STATEMENT);
    luaL_argcheck(L, *ud != NULL, index, "statement is closed");
    const fpc_statement *statement = *ud;
    binding->statement = statement;
    fpc_params_init(&binding->params);
    binding->list_count = 0;
    int lists = 0;
    for (int at = 0, argument = first; at < statement->param_count; argument++) { /* 1 */
        bool is_batch = fpc_lua_test_batch(L, argument) != NULL;
        if (!is_batch) check_argument(L, argument, statement->param_oids[at]);
        if (!is_batch && statement->param_oids[at] == FPC_OID_BYTEA_ARRAY) lists++;
        luaL_argcheck(L, lists <= FPC_LUA_MOST_LISTS, argument, "too many lists");
        at += is_batch ? FPC_BATCH_PARAMS : 1;
        luaL_argcheck(L, at <= statement->param_count, argument, "no batch is expected here");
    }
    for (int argument = first; binding->params.count < statement->param_count; argument++) { /* 2 */
        uint32_t oid = statement->param_oids[binding->params.count];
        fpc_batch *batch = fpc_lua_test_batch(L, argument);
        if (batch != NULL) {
            if (fpc_batch_params(batch, &binding->params, err) == FPC_OK) continue;
            fpc_lua_unbind(binding);
            return false;
        } else if (oid == FPC_OID_BYTEA_ARRAY && !lua_isnoneornil(L, argument)) {
            fpc_array *list = &binding->lists[binding->list_count++];
            bind_strings(L, argument, list);
            if (list->failed) {
                fpc_lua_unbind(binding);
                fpc_fail(err, FPC_NOMEM, "list of keys");
                return false;
            }
            fpc_params_array(&binding->params, list);
        } else {
            bind_scalar(L, argument, oid, &binding->params);
        }
    }
    return true;
}

void fpc_lua_unbind(fpc_lua_binding *binding) {
    for (int i = 0; i < binding->list_count; i++) fpc_array_destroy(&binding->lists[i]);
    binding->list_count = 0;
}

void fpc_lua_register_statement(lua_State *L) {
    static const luaL_Reg METHODS[] = {{NULL, NULL}};
    fpc_lua_new_type(L, FPC_LUA_STATEMENT, METHODS, statement_close);
    lua_pushcfunction(L, statement_new);
    lua_setfield(L, -2, "statement");
}

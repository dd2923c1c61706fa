/* conn.c -- a connection lent by a pool: `pool:acquire()`. */
#include "db.h"
#include "number.h"
#include "pool.h"

#include <math.h>

#define CONN_TYPE "fpcache.conn"

fpc_lua_conn *fpc_lua_new_conn(lua_State *L) {
    fpc_lua_conn *ud = lua_newuserdata(L, sizeof *ud);
    ud->conn = NULL;
    ud->shared = NULL;
    luaL_setmetatable(L, CONN_TYPE);
    return ud;
}

static fpc_conn *open_conn(lua_State *L) {
    fpc_lua_conn *ud = luaL_checkudata(L, 1, CONN_TYPE);
    return ud->conn;
}

/* Gives the connection back to its pool, which closes it when it is broken or in a transaction. */
static int conn_close(lua_State *L) {
    fpc_lua_conn *ud = luaL_checkudata(L, 1, CONN_TYPE);
    if (ud->conn == NULL) return 0;
    fpc_pool_release(ud->shared->pool, ud->conn);
    ud->conn = NULL;
    fpc_lua_shared_pool_drop(ud->shared);
    fpc_lua_open_objects--;
    return 0;
}

static fpc_status closed(fpc_error *err) {
    return fpc_fail(err, FPC_CLOSED, "the transaction has ended");
}

static fpc_status exec(void *self, const fpc_lua_binding *binding, fpc_deadline deadline, fpc_result **out,
                       fpc_error *err) {
    if (self == NULL) return closed(err);
    return fpc_conn_exec(self, binding->statement, &binding->params, deadline, out, err);
}

static int conn_run(lua_State *L) {
    return fpc_lua_db_run(L, exec, open_conn(L));
}

static int conn_row(lua_State *L) {
    return fpc_lua_db_row(L, exec, open_conn(L));
}

static int conn_rows(lua_State *L) {
    return fpc_lua_db_rows(L, exec, open_conn(L));
}

static int conn_value(lua_State *L) {
    return fpc_lua_db_value(L, exec, open_conn(L));
}

static int conn_map(lua_State *L) {
    return fpc_lua_db_map(L, exec, open_conn(L));
}

/* conn:send(statement, timeout, ...) -> true | nil, err.  The answer is fetched by conn:receive(). */
static int conn_send(lua_State *L) {
    fpc_error err;
    fpc_conn *conn = open_conn(L);
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 3));
    fpc_lua_binding binding;
    if (!fpc_lua_bind(L, 2, 4, &binding, &err)) return fpc_lua_failure(L, &err);
    fpc_status status =
        conn == NULL ? closed(&err) : fpc_conn_send(conn, binding.statement, &binding.params, deadline, &err);
    fpc_lua_unbind(&binding);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* conn:receive(timeout) -> rows written | nil, err */
static int conn_receive(lua_State *L) {
    fpc_error err;
    fpc_conn *conn = open_conn(L);
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 2));
    fpc_result *result = NULL;
    fpc_status status = conn == NULL ? closed(&err) : fpc_conn_receive(conn, deadline, &result, &err);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    lua_Integer affected = (lua_Integer)fpc_result_affected(result);
    fpc_result_delete(result);
    lua_pushinteger(L, affected);
    return 1;
}

/* Text for a parameter of conn:query().  Leaves a string on the stack that keeps it alive; NULL for SQL NULL.
 */
static const char *text_param(lua_State *L, int index) {
    int64_t integer;
    char digits[FPC_NUMBER_TEXT];
    switch (lua_type(L, index)) {
    case LUA_TNIL:
    case LUA_TLIGHTUSERDATA: lua_pushnil(L); return NULL; /* fpcache.null */
    case LUA_TBOOLEAN:
        return lua_pushstring(L, lua_toboolean(L, index) ? "true" : "false"), lua_tostring(L, -1);
    case LUA_TSTRING: lua_pushvalue(L, index); return lua_tostring(L, -1);
    default: break;
    }
    if (fpc_lua_to_int64(L, index, &integer)) {
        fpc_int64_text(integer, digits);
    } else {
        double number = luaL_checknumber(L, index);
        if (fabs(number) < 1e15 && (double)(int64_t)number == number && !signbit(number))
            fpc_int64_text((int64_t)number, digits); /* 5.0 may be meant for an integer column */
        else
            fpc_double_text(number, digits);
    }
    lua_pushstring(L, digits);
    return lua_tostring(L, -1);
}

int fpc_lua_text_params(lua_State *L, int first, const char **values) {
    int count = lua_gettop(L) - first + 1;
    luaL_argcheck(L, count <= FPC_LUA_MAX_SQL_PARAMS, first + FPC_LUA_MAX_SQL_PARAMS, "too many parameters");
    luaL_checkstack(L, count + 4, "too many parameters");
    for (int i = 0; i < count; i++) values[i] = text_param(L, first + i);
    return count < 0 ? 0 : count;
}

/* conn:query(sql, timeout, ...) -> rows or number | nil, err: a caller's own SQL. */
static int conn_query(lua_State *L) {
    fpc_error err;
    fpc_conn *conn = open_conn(L);
    const char *sql = luaL_checkstring(L, 2);
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 3));
    const char *values[FPC_LUA_MAX_SQL_PARAMS + 1];
    int count = fpc_lua_text_params(L, 4, values);
    fpc_result **holder = fpc_lua_hold_result(L);
    fpc_status status =
        conn == NULL ? closed(&err) : fpc_conn_query(conn, sql, count, values, deadline, holder, &err);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    fpc_lua_push_text_rows(L, *holder);
    fpc_lua_drop_result(holder);
    return 1;
}

/* conn:script(sql, timeout) -> command of the last statement | nil, err: many statements, no parameters. */
static int conn_script(lua_State *L) {
    fpc_error err;
    fpc_conn *conn = open_conn(L);
    const char *sql = luaL_checkstring(L, 2);
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 3));
    fpc_result **holder = fpc_lua_hold_result(L);
    fpc_status status = conn == NULL ? closed(&err) : fpc_conn_script(conn, sql, deadline, holder, &err);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushstring(L, fpc_result_command(*holder));
    fpc_lua_drop_result(holder);
    return 1;
}

static int conn_in_transaction(lua_State *L) {
    fpc_conn *conn = open_conn(L);
    lua_pushboolean(L, conn != NULL && fpc_conn_in_transaction(conn));
    return 1;
}

static int conn_is_broken(lua_State *L) {
    fpc_conn *conn = open_conn(L);
    lua_pushboolean(L, conn == NULL || fpc_conn_is_broken(conn));
    return 1;
}

/* conn:server_version() -> such as 150020; conn:user() -> the role that logged in */
static int conn_server_version(lua_State *L) {
    fpc_conn *conn = open_conn(L);
    lua_pushinteger(L, conn == NULL ? 0 : fpc_conn_server_version(conn));
    return 1;
}

static int conn_user(lua_State *L) {
    fpc_conn *conn = open_conn(L);
    lua_pushstring(L, conn == NULL ? "" : fpc_conn_user(conn));
    return 1;
}

void fpc_lua_register_conn(lua_State *L) {
    static const luaL_Reg METHODS[] = {{"run", conn_run},
                                       {"row", conn_row},
                                       {"rows", conn_rows},
                                       {"value", conn_value},
                                       {"map", conn_map},
                                       {"send", conn_send},
                                       {"receive", conn_receive},
                                       {"query", conn_query},
                                       {"script", conn_script},
                                       {"in_transaction", conn_in_transaction},
                                       {"is_broken", conn_is_broken},
                                       {"server_version", conn_server_version},
                                       {"user", conn_user},
                                       {NULL, NULL}};
    fpc_lua_new_type(L, CONN_TYPE, METHODS, conn_close);
    lua_pushinteger(L, FPC_LUA_MAX_SQL_PARAMS);
    lua_setfield(L, -2, "MAX_SQL_PARAMS");
}

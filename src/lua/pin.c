/* pin.c -- `core.pin(pool, idle_seconds)`: a connection for one transaction whose caller does not wait (see
 * pin.h).
 *
 * pin:submit(completions, what, timeout, ...) -> id | nil, err   as pool:submit(); `what` is
 *   nil                  take a connection            answered by completions:done()
 *   a statement          ... are its arguments        by run() row() rows() value() map()
 *   SQL, "query", ...    the caller's own             by query()
 *   SQL, "script"        without parameters           by script() */
#include "fpcache/pin.h"
#include "completions.h"
#include "db.h"
#include "number.h"
#include "pool.h"

#define PIN_TYPE "fpcache.pin"

static fpc_pin **check_pin(lua_State *L) {
    return luaL_checkudata(L, 1, PIN_TYPE);
}

static int pin_close(lua_State *L) {
    fpc_pin **ud = check_pin(L);
    if (*ud == NULL) return 0;
    fpc_pin_delete(*ud);
    *ud = NULL;
    fpc_lua_open_objects--;
    return 0;
}

static int pin_new(lua_State *L) {
    fpc_error err;
    double idle_s = luaL_checknumber(L, 2);
    fpc_pool *pool = fpc_lua_check_pool_to_connect(L, 1);
    fpc_pin **ud = lua_newuserdata(L, sizeof *ud);
    *ud = NULL;
    luaL_setmetatable(L, PIN_TYPE);
    fpc_status status = pool == NULL ? fpc_fail(&err, FPC_CLOSED, "the cache was closed")
                                     : fpc_pin_new(pool, idle_s, ud, &err);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    fpc_lua_open_objects++;
    return 1;
}

static fpc_status submit_exec(lua_State *L, fpc_pin *pin, fpc_completions *to, fpc_deadline deadline,
                              fpc_request **request, fpc_error *err) {
    fpc_lua_binding binding;
    if (!fpc_lua_bind(L, 3, 5, &binding, err)) return err->status;
    fpc_status status = fpc_pin_exec(pin, to, binding.statement, &binding.params, deadline, request, err);
    fpc_lua_unbind(&binding);
    return status;
}

static fpc_status submit_sql(lua_State *L, fpc_pin *pin, fpc_completions *to, fpc_deadline deadline,
                             fpc_request **request, fpc_error *err) {
    static const char *const KINDS[] = {"query", "script", NULL};
    const char *values[FPC_LUA_MAX_SQL_PARAMS + 1];
    const char *sql = lua_tostring(L, 3);
    if (luaL_checkoption(L, 5, NULL, KINDS) == 1) return fpc_pin_script(pin, to, sql, deadline, request, err);
    int count = fpc_lua_text_params(L, 6, values);
    return fpc_pin_query(pin, to, sql, count, values, deadline, request, err);
}

static int pin_submit(lua_State *L) {
    fpc_error err;
    fpc_request *request = NULL;
    fpc_pin *pin = *check_pin(L);
    fpc_completions *to = fpc_lua_check_completions(L, 2);
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 4));
    fpc_status status;
    if (pin == NULL)
        status = fpc_fail(&err, FPC_CLOSED, "the transaction has ended");
    else if (lua_isnil(L, 3))
        status = fpc_pin_connect(pin, to, deadline, &request, &err);
    else if (lua_type(L, 3) == LUA_TSTRING)
        status = submit_sql(L, pin, to, deadline, &request, &err);
    else
        status = submit_exec(L, pin, to, deadline, &request, &err);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    return fpc_lua_push_request(L, 2, request);
}

/* pin:kick(): its thread needs none; for who treats it as a pool */
static int pin_kick(lua_State *L) {
    check_pin(L);
    return 0;
}

static int pin_in_transaction(lua_State *L) {
    fpc_pin *pin = *check_pin(L);
    lua_pushboolean(L, pin != NULL && fpc_pin_in_transaction(pin));
    return 1;
}

static int pin_is_broken(lua_State *L) {
    fpc_pin *pin = *check_pin(L);
    lua_pushboolean(L, pin == NULL || fpc_pin_is_broken(pin));
    return 1;
}

void fpc_lua_register_pin(lua_State *L) {
    static const luaL_Reg METHODS[] = {{"submit", pin_submit},
                                       {"kick", pin_kick},
                                       {"in_transaction", pin_in_transaction},
                                       {"is_broken", pin_is_broken},
                                       {NULL, NULL}};
    fpc_lua_new_type(L, PIN_TYPE, METHODS, pin_close);
    lua_pushcfunction(L, pin_new);
    lua_setfield(L, -2, "pin");
}

/* token_source.c -- `core.token_source(kind, settings)`: one source of passwords, asked directly. */
#include "fields.h"
#include "token_settings.h"

#define SOURCE_TYPE       "fpcache.token_source"
#define DEFAULT_TIMEOUT_S 60.0

typedef struct source_ud {
    fpc_token_source *source; /* NULL: closed */
} source_ud;

static int source_close(lua_State *L) { /* close, __gc and __close */
    source_ud *ud = luaL_checkudata(L, 1, SOURCE_TYPE);
    if (ud->source != NULL) fpc_lua_open_objects--;
    fpc_token_source_delete(ud->source);
    ud->source = NULL;
    return 0;
}

/* token_source(kind, settings) -> source | nil, err */
static int source_new(lua_State *L) {
    fpc_error err;
    size_t count;
    const char *kind = luaL_checkstring(L, 1);
    lua_settop(L, 2);
    const fpc_token_setting *settings = fpc_lua_check_token_settings(L, 2, &count);
    source_ud *ud = lua_newuserdata(L, sizeof *ud);
    ud->source = NULL;
    luaL_setmetatable(L, SOURCE_TYPE);
    if (fpc_token_source_new(kind, settings, count, &ud->source, &err) != FPC_OK)
        return fpc_lua_failure(L, &err);
    fpc_lua_open_objects++;
    return 1;
}

static int push_failure(lua_State *L, const fpc_token_failure *failure) {
    fpc_lua_failure(L, &failure->error);
    lua_createtable(L, 0, 2);
    lua_pushboolean(L, failure->permanent);
    lua_setfield(L, -2, "permanent");
    lua_pushnumber(L, failure->retry_after_s);
    lua_setfield(L, -2, "retry_after");
    return 3;
}

/* source:fetch(timeout, fresh) -> {password, valid_for, host, user} | nil, err, {permanent, retry_after} */
static int source_fetch(lua_State *L) {
    source_ud *ud = luaL_checkudata(L, 1, SOURCE_TYPE);
    luaL_argcheck(L, ud->source != NULL, 1, "source is closed");
    fpc_token_fetch how = {.deadline = fpc_deadline_in(luaL_optnumber(L, 2, DEFAULT_TIMEOUT_S)),
                           .stop_fd = -1,
                           .fresh = lua_toboolean(L, 3)};
    fpc_token token = {0};
    fpc_token_failure failure = {0};
    if (ud->source->class->fetch(ud->source, &how, &token, &failure) != FPC_OK)
        return push_failure(L, &failure);
    lua_createtable(L, 0, 4);
    fpc_lua_set_text(L, "password", token.password);
    fpc_lua_set_text(L, "host", token.host);
    fpc_lua_set_text(L, "user", token.user);
    if (token.valid_for_s >= 0) {
        lua_pushnumber(L, token.valid_for_s);
        lua_setfield(L, -2, "valid_for");
    }
    fpc_token_clear(&token);
    return 1;
}

void fpc_lua_register_source(lua_State *L) {
    static const luaL_Reg METHODS[] = {{"fetch", source_fetch}, {NULL, NULL}};
    fpc_lua_new_type(L, SOURCE_TYPE, METHODS, source_close);
    lua_pushcfunction(L, source_new);
    lua_setfield(L, -2, "token_source");
}

/* token_settings.c -- a Lua table as the settings of a token source.
 *
 * The texts are anchored in a table of their own, since a number has none before it is converted. */
#include "token_settings.h"

#include <string.h>

typedef struct collector {
    lua_State *L;
    int argument; /* blamed in errors */
    int anchor;   /* the list of texts */
    fpc_token_setting *out;
    size_t count;
} collector;

/* Takes the value on top of the stack, and pops it. */
static void take(collector *c, const char *name) {
    lua_State *L = c->L;
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN: {
        bool is_true = lua_toboolean(L, -1);
        lua_pop(L, 1);
        lua_pushstring(L, is_true ? "true" : "false");
        break;
    }
    case LUA_TNUMBER:
    case LUA_TSTRING: break;
    default: luaL_argerror(L, c->argument, lua_pushfstring(L, "%s: a text is expected", name));
    }
    const char *text = lua_tostring(L, -1);
    if (strlen(text) != lua_rawlen(L, -1))
        luaL_argerror(L, c->argument, lua_pushfstring(L, "%s: holds a NUL byte", name));
    if (c->out != NULL) c->out[c->count] = (fpc_token_setting){.name = name, .value = text};
    lua_rawseti(L, c->anchor, (int)++c->count);
}

/* Walks over the table; the second time it stores. */
static void walk(collector *c, int index) {
    lua_State *L = c->L;
    c->count = 0;
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING) luaL_argerror(L, c->argument, "names are expected");
        const char *name = lua_tostring(L, -2);
        if (lua_istable(L, -1)) {
            for (int i = 1, n = (int)lua_rawlen(L, -1); i <= n; i++) {
                lua_rawgeti(L, -1, i);
                take(c, name);
            }
        } else {
            lua_pushvalue(L, -1);
            take(c, name);
        }
    }
}

const fpc_token_setting *fpc_lua_check_token_settings(lua_State *L, int index, size_t *count) {
    luaL_checktype(L, index, LUA_TTABLE);
    lua_newtable(L);
    collector c = {.L = L, .argument = index, .anchor = lua_gettop(L)};
    walk(&c, index);
    c.out = lua_newuserdata(L, (c.count + 1) * sizeof *c.out);
    walk(&c, index);
    *count = c.count;
    return c.out;
}

/* token.c -- `core.token_keeper(kind, settings)` or `core.token_keeper(function)`. */
#include "token.h"
#include "fields.h"

#include "token_settings.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEEPER_TYPE   "fpcache.token_keeper"
#define FUNCTION_NAME "the password function"

typedef struct keeper_ud {
    fpc_lua_keeper *shared; /* NULL: closed */
} keeper_ud;

fpc_lua_keeper *fpc_lua_check_keeper(lua_State *L, int index) {
    keeper_ud *ud = luaL_checkudata(L, index, KEEPER_TYPE);
    return ud->shared;
}

fpc_lua_keeper *fpc_lua_keeper_share(fpc_lua_keeper *self) {
    if (self != NULL) atomic_fetch_add(&self->references, 1);
    return self;
}

void fpc_lua_keeper_drop(lua_State *L, fpc_lua_keeper *self) {
    if (self == NULL || atomic_fetch_sub(&self->references, 1) > 1) return;
    if (self->function != LUA_NOREF) luaL_unref(L, LUA_REGISTRYINDEX, self->function);
    fpc_token_keeper_close(self->keeper);
    free(self);
}

static int keeper_close(lua_State *L) { /* close, __gc and __close */
    keeper_ud *ud = luaL_checkudata(L, 1, KEEPER_TYPE);
    if (ud->shared != NULL) fpc_lua_open_objects--;
    fpc_lua_keeper_drop(L, ud->shared);
    ud->shared = NULL;
    return 0;
}

/* --- A function as the source --- */

bool fpc_lua_keeper_wants(const fpc_lua_keeper *self) {
    return self != NULL && self->function != LUA_NOREF && !self->is_pulling &&
           fpc_token_keeper_wants(self->keeper);
}

static void fail(fpc_token_failure *failure, bool permanent, const char *words) {
    *failure = (fpc_token_failure){.permanent = permanent};
    fpc_fail(&failure->error, FPC_AUTH, "%.400s", words);
}

/* A copy of the text field `name` of the table at `index`, or NULL. */
static char *copy_field(lua_State *L, int index, const char *name) {
    lua_getfield(L, index, name);
    char *copy = lua_type(L, -1) == LUA_TSTRING ? strdup(lua_tostring(L, -1)) : NULL;
    lua_pop(L, 1);
    return copy;
}

/* What the function returned: password, seconds it is good for; or {password =, expires_in =, host =, user
 * =}; or nil, why not. */
static bool read_answer(lua_State *L, int first, fpc_token *token, fpc_token_failure *failure) {
    *token = (fpc_token){.valid_for_s = -1};
    if (lua_type(L, first) == LUA_TSTRING) {
        token->password = strdup(lua_tostring(L, first));
        if (lua_type(L, first + 1) == LUA_TNUMBER) token->valid_for_s = lua_tonumber(L, first + 1);
    } else if (lua_istable(L, first)) {
        token->password = copy_field(L, first, "password");
        token->host = copy_field(L, first, "host");
        token->user = copy_field(L, first, "user");
        lua_getfield(L, first, "expires_in");
        if (lua_type(L, -1) == LUA_TNUMBER) token->valid_for_s = lua_tonumber(L, -1);
        lua_pop(L, 1);
    } else if (lua_isnil(L, first) && lua_isstring(L, first + 1)) {
        fail(failure, false, lua_tostring(L, first + 1));
        return false;
    }
    if (token->password != NULL && token->password[0] != '\0') return true;
    fpc_token_clear(token);
    fail(failure, true, "it returned no password");
    return false;
}

static void call_function(lua_State *L, fpc_lua_keeper *self) {
    fpc_token token;
    fpc_token_failure failure;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, 10)) return; /* no memory: who needs the password will say that there is none */
    self->is_pulling = true;
    lua_rawgeti(L, LUA_REGISTRYINDEX, self->function);
    if (lua_pcall(L, 0, 2, 0) != 0) {
        const char *words = lua_tostring(L, -1);
        fail(&failure, false, words == NULL ? "it raised an error" : words);
        fpc_token_keeper_give_up(self->keeper, &failure);
    } else if (read_answer(L, top + 1, &token, &failure)) {
        fpc_token_keeper_give(self->keeper, &token);
    } else {
        fpc_token_keeper_give_up(self->keeper, &failure);
    }
    self->is_pulling = false;
    lua_settop(L, top);
}

void fpc_lua_keeper_pull(lua_State *L, fpc_lua_keeper *self) {
    if (!fpc_lua_keeper_wants(self)) return;
    fpc_lua_keeper_share(self); /* the function may close everything */
    call_function(L, self);
    fpc_lua_keeper_drop(L, self);
}

/* --- The object --- */

static fpc_status open_keeper(lua_State *L, fpc_lua_keeper *self, fpc_error *err) {
    size_t count;
    if (lua_isfunction(L, 1)) {
        self->keeper = fpc_token_keeper_new_pulled(FUNCTION_NAME);
        if (self->keeper == NULL) return fpc_fail(err, FPC_NOMEM, "token");
        lua_pushvalue(L, 1);
        self->function = luaL_ref(L, LUA_REGISTRYINDEX);
        return FPC_OK;
    }
    const fpc_token_setting *settings = fpc_lua_check_token_settings(L, 2, &count);
    return fpc_token_keeper_open(lua_tostring(L, 1), settings, count, &self->keeper, err);
}

/* token_keeper(kind, settings) or token_keeper(function) -> keeper | nil, err */
static int keeper_new(lua_State *L) {
    fpc_error err;
    size_t ignored;
    lua_settop(L, 2);
    if (!lua_isfunction(L, 1)) { /* all that can raise, before anything is held */
        luaL_checkstring(L, 1);
        fpc_lua_check_token_settings(L, 2, &ignored);
        lua_settop(L, 2);
    }
    keeper_ud *ud = lua_newuserdata(L, sizeof *ud);
    ud->shared = NULL;
    luaL_setmetatable(L, KEEPER_TYPE);
    fpc_lua_keeper *self = calloc(1, sizeof *self);
    if (self == NULL) {
        fpc_fail(&err, FPC_NOMEM, "token");
        return fpc_lua_failure(L, &err);
    }
    self->function = LUA_NOREF;
    self->references = 1;
    if (open_keeper(L, self, &err) != FPC_OK) {
        free(self);
        return fpc_lua_failure(L, &err);
    }
    ud->shared = self;
    fpc_lua_open_objects++;
    lua_settop(L, 3);
    return 1;
}

static fpc_status closed(fpc_error *err) {
    return fpc_fail(err, FPC_CLOSED, "the token provider was stopped");
}

/* Calls the function where it is wanted, and asks the keeper. */
static fpc_status ask(lua_State *L, fpc_token *token, uint64_t *generation, fpc_error *err) {
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 2));
    fpc_lua_keeper *self = fpc_lua_check_keeper(L, 1);
    fpc_lua_keeper_pull(L, self);
    self = fpc_lua_check_keeper(L, 1); /* the function may have closed it */
    return self == NULL ? closed(err) : fpc_token_keeper_get(self->keeper, deadline, token, generation, err);
}

/* keeper:get(timeout) -> password, generation | nil, err */
static int keeper_get(lua_State *L) {
    fpc_error err;
    fpc_token token = {0};
    uint64_t generation = 0;
    if (ask(L, &token, &generation, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushstring(L, token.password);
    fpc_token_clear(&token);
    lua_pushinteger(L, (lua_Integer)generation);
    return 2;
}

/* keeper:wait(timeout) -> true | nil, err: there is a password, which Lua does not get to see */
static int keeper_wait(lua_State *L) {
    fpc_error err;
    fpc_token token = {0};
    uint64_t generation = 0;
    if (ask(L, &token, &generation, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    fpc_token_clear(&token);
    lua_pushboolean(L, 1);
    return 1;
}

/* keeper:refresh(timeout) -> true | nil, err */
static int keeper_refresh(lua_State *L) {
    fpc_error err;
    fpc_lua_keeper *self = fpc_lua_check_keeper(L, 1);
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 2));
    fpc_status status;
    if (self == NULL) {
        status = closed(&err);
    } else if (self->function == LUA_NOREF) {
        status = fpc_token_keeper_refresh(self->keeper, deadline, &err);
    } else {
        fpc_token_stats stats;
        fpc_lua_keeper_share(self);
        if (!self->is_pulling) call_function(L, self);
        fpc_token_keeper_get_stats(self->keeper, &stats);
        status = stats.last_error[0] == '\0' ? FPC_OK : fpc_fail(&err, FPC_AUTH, "%s", stats.last_error);
        fpc_lua_keeper_drop(L, self);
    }
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static void set_filled(lua_State *L, const char *name, const char *text) {
    fpc_lua_set_text(L, name, text[0] != '\0' ? text : NULL);
}

void fpc_lua_keeper_push_stats(lua_State *L, const fpc_lua_keeper *self) {
    fpc_token_stats stats;
    fpc_token_keeper_get_stats(self->keeper, &stats);
    lua_createtable(L, 0, 10);
    set_filled(L, "source", stats.source);
    fpc_lua_set_count(L, "generation", stats.generation);
    if (isfinite(stats.expires_in_s)) {
        fpc_lua_set_number(L, "expires_in", stats.expires_in_s);
    }
    fpc_lua_set_count(L, "refreshes", stats.refreshes);
    fpc_lua_set_count(L, "failures", stats.failures);
    fpc_lua_set_count(L, "refusals", stats.refusals);
    fpc_lua_set_boolean(L, "refreshing", stats.is_fetching);
    set_filled(L, "host", stats.host);
    set_filled(L, "user", stats.user);
    set_filled(L, "last_error", stats.last_error);
}

/* keeper:stats() -> table; empty once closed */
static int keeper_stats(lua_State *L) {
    fpc_lua_keeper *self = fpc_lua_check_keeper(L, 1);
    if (self == NULL)
        lua_newtable(L);
    else
        fpc_lua_keeper_push_stats(L, self);
    return 1;
}

/* token_kind_is_of_server(kind) -> boolean */
static int kind_is_of_server(lua_State *L) {
    lua_pushboolean(L, fpc_token_kind_is_of_server(luaL_checkstring(L, 1)));
    return 1;
}

void fpc_lua_register_token(lua_State *L) {
    static const luaL_Reg METHODS[] = {{"get", keeper_get},
                                       {"wait", keeper_wait},
                                       {"refresh", keeper_refresh},
                                       {"stats", keeper_stats},
                                       {NULL, NULL}};
    fpc_lua_new_type(L, KEEPER_TYPE, METHODS, keeper_close);
    lua_pushcfunction(L, keeper_new);
    lua_setfield(L, -2, "token_keeper");
    lua_pushcfunction(L, kind_is_of_server);
    lua_setfield(L, -2, "token_kind_is_of_server");
}

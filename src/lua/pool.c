/* pool.c -- `core.pool(connection_string, settings, defaults, options, description)`: connections to one
 * server, for callers who wait, and a pipeline beside them for those who do not. */
#include "pool.h"
#include "completions.h"
#include "db.h"
#include "pool_family.h"

#include <stdlib.h>

#define POOL_TYPE "fpcache.pool"

#define CLOSE_GRACE_S 0.5 /* for answers under way when the pool is closed */

typedef struct pool_ud {
    fpc_lua_shared_pool *shared; /* NULL: closed */
} pool_ud;

void fpc_lua_shared_pool_drop(fpc_lua_shared_pool *shared) {
    bool last = shared->family != NULL ? fpc_lua_pool_family_drop(shared)
                                       : atomic_fetch_sub(&shared->references, 1) == 1;
    if (!last) return;
    fpc_pipeline_delete(shared->pipeline);
    fpc_pool_delete(shared->pool);
    fpc_lua_keeper_drop(NULL, shared->token); /* one with a function is gone already */
    free(shared);
}

static int pool_close(lua_State *L) {
    pool_ud *ud = luaL_checkudata(L, 1, POOL_TYPE);
    if (ud->shared == NULL) return 0;
    if (ud->shared->family == NULL) { /* else others use it */
        fpc_pipeline_close(ud->shared->pipeline, CLOSE_GRACE_S);
        fpc_pool_close(ud->shared->pool);
        fpc_lua_keeper_drop(L, ud->shared->token);
        ud->shared->token = NULL;
    }
    fpc_lua_shared_pool_drop(ud->shared);
    ud->shared = NULL;
    fpc_lua_open_objects--;
    return 0;
}

/* One call of a method: what it works on. */
typedef struct pool_call {
    lua_State *L;
    fpc_lua_shared_pool *shared; /* NULL: closed */
} pool_call;

static pool_call begin_call(lua_State *L) {
    pool_ud *ud = luaL_checkudata(L, 1, POOL_TYPE);
    return (pool_call){.L = L, .shared = ud->shared};
}

const fpc_conninfo *fpc_lua_check_pool_conninfo(lua_State *L, int index) {
    pool_ud *ud = luaL_checkudata(L, index, POOL_TYPE);
    return ud->shared == NULL ? NULL : fpc_pool_conninfo(ud->shared->pool);
}

fpc_pool *fpc_lua_check_pool_to_connect(lua_State *L, int index) {
    pool_ud *ud = luaL_checkudata(L, index, POOL_TYPE);
    if (ud->shared != NULL && ud->shared->token != NULL) fpc_lua_keeper_pull(L, ud->shared->token);
    return ud->shared == NULL ? NULL : ud->shared->pool; /* the function may have closed it */
}

static double number_field(lua_State *L, int index, const char *name) {
    lua_getfield(L, index, name);
    if (lua_type(L, -1) != LUA_TNUMBER) luaL_error(L, "options.%s: a number is expected", name);
    double value = lua_tonumber(L, -1);
    lua_pop(L, 1);
    return value;
}

/* Checks a table of strings, so that reading it later cannot raise. */
static void check_settings(lua_State *L, int index) {
    luaL_checktype(L, index, LUA_TTABLE);
    for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING) {
            luaL_argerror(L, index, "a table of strings is expected");
        }
    }
}

typedef fpc_status put_setting(fpc_conninfo *info, const char *keyword, const char *value, fpc_error *err);

static fpc_status put_settings(lua_State *L, int index, fpc_conninfo *info, put_setting *put,
                               fpc_error *err) {
    fpc_status status = FPC_OK;
    lua_pushnil(L);
    while (status == FPC_OK && lua_next(L, index) != 0) {
        status = put(info, lua_tostring(L, -2), lua_tostring(L, -1), err);
        lua_pop(L, 1);
    }
    if (status != FPC_OK) lua_pop(L, 1);
    return status;
}

/* What to connect to: a connection string, the settings at 2 and the defaults at 3, and where the password
 * comes from.  *out is the caller's, only when FPC_OK. */
static fpc_status make_info(lua_State *L, const char *text, fpc_lua_keeper *token, const char *token_host,
                            const char *token_user, fpc_conninfo **out, fpc_error *err) {
    fpc_conninfo *info = fpc_conninfo_new();
    fpc_status status = info == NULL ? fpc_fail(err, FPC_NOMEM, "pool") : FPC_OK;
    if (status == FPC_OK && text != NULL) status = fpc_conninfo_parse(info, text, err);
    if (status == FPC_OK) status = put_settings(L, 2, info, fpc_conninfo_add, err);
    if (status == FPC_OK) status = put_settings(L, 3, info, fpc_conninfo_default, err);
    if (status == FPC_OK && token != NULL)
        status = fpc_conninfo_set_token(info, token->keeper, token_host, token_user, err);
    if (status == FPC_OK)
        *out = info;
    else
        fpc_conninfo_delete(info);
    return status;
}

static int pool_new(lua_State *L) {
    /* 1. Everything that can raise, before anything is held. */
    const char *text = luaL_optstring(L, 1, NULL);
    check_settings(L, 2);
    check_settings(L, 3);
    luaL_checktype(L, 4, LUA_TTABLE);
    size_t description_length = 0;
    const char *description = luaL_optlstring(L, 5, NULL, &description_length);
    fpc_pool_options options = {.min_connections = (int)number_field(L, 4, "min_connections"),
                                .max_connections = (int)number_field(L, 4, "max_connections"),
                                .connect_timeout_s = number_field(L, 4, "connect_timeout"),
                                .idle_timeout_s = number_field(L, 4, "idle_timeout"),
                                .max_lifetime_s = number_field(L, 4, "max_lifetime")};
    lua_getfield(L, 4, "prepared");
    options.conn.prepared = lua_toboolean(L, -1);
    lua_getfield(L, 4, "session_sql");
    options.conn.session_sql = luaL_optstring(L, -1, NULL);
    fpc_pipeline_options pipeline_options = {.readers = (int)number_field(L, 4, "pipeline_readers"),
                                             .silence_s = number_field(L, 4, "pipeline_silence"),
                                             .connect_timeout_s = options.connect_timeout_s,
                                             .idle_timeout_s = options.idle_timeout_s,
                                             .max_lifetime_s = options.max_lifetime_s,
                                             .conn = options.conn};
    lua_getfield(L, 4, "token");
    fpc_lua_keeper *token = lua_isnil(L, -1) ? NULL : fpc_lua_check_keeper(L, lua_gettop(L));
    lua_getfield(L, 4, "token_host");
    const char *token_host = luaL_optstring(L, -1, NULL);
    lua_getfield(L, 4, "token_user");
    const char *token_user = luaL_optstring(L, -1, NULL);
    bool is_common = description != NULL && (token == NULL || token->function == LUA_NOREF);
    if (is_common && token != NULL) { /* equal settings have one keeper in the whole process */
        lua_pushvalue(L, 5);
        lua_pushfstring(L, "token=%p", (void *)token->keeper);
        lua_concat(L, 2);
        description = lua_tolstring(L, -1, &description_length);
    }
    pool_ud *ud = lua_newuserdata(L, sizeof *ud);
    ud->shared = NULL;
    luaL_setmetatable(L, POOL_TYPE);
    /* 2. What to connect to. */
    fpc_error err;
    fpc_conninfo *info;
    fpc_status status = make_info(L, text, token, token_host, token_user, &info, &err);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    /* 3. The pool and the pipeline, shared with the connections that are lent. */
    fpc_lua_shared_pool *shared = calloc(1, sizeof *shared);
    fpc_pipeline *pipeline = NULL;
    status = fpc_pipeline_new(info, &pipeline_options, &pipeline, &err);
    fpc_pool *pool = fpc_pool_new(info, &options);
    if (status != FPC_OK || shared == NULL || pool == NULL) {
        if (status == FPC_OK) fpc_fail(&err, FPC_NOMEM, "pool");
        fpc_pipeline_delete(pipeline);
        fpc_pool_delete(pool);
        free(shared);
        return fpc_lua_failure(L, &err);
    }
    *shared = (fpc_lua_shared_pool){
        .pool = pool, .pipeline = pipeline, .token = fpc_lua_keeper_share(token), .references = 1};
    fpc_lua_pool_family *family = fpc_lua_pool_family_of(L);
    if (family != NULL && is_common) {
        fpc_lua_shared_pool *joined =
            fpc_lua_pool_family_join(family, shared, description, description_length);
        if (joined != shared) fpc_lua_shared_pool_drop(shared); /* it had nothing open yet */
        shared = joined;
    }
    ud->shared = shared;
    fpc_lua_open_objects++;
    return 1;
}

typedef fpc_status pool_act(const pool_call *call, void *arg, fpc_deadline deadline, fpc_error *err);

/* Does something that may connect.  A password function is called before, and once more where its password
 * was refused. */
static fpc_status act(const pool_call *call, pool_act *what, void *arg, fpc_deadline deadline,
                      fpc_error *err) {
    fpc_lua_shared_pool *shared = call->shared;
    if (shared == NULL) return fpc_fail(err, FPC_CLOSED, "the cache was closed");
    if (shared->token == NULL) return what(call, arg, deadline, err);
    shared->references++; /* the function may close the pool */
    fpc_status status = FPC_AUTH;
    for (int attempt = 0; attempt < 2 && status == FPC_AUTH; attempt++) {
        if (attempt > 0 && !fpc_lua_keeper_wants(shared->token)) break;
        fpc_lua_keeper_pull(call->L, shared->token);
        status = what(call, arg, deadline, err);
    }
    fpc_lua_shared_pool_drop(shared);
    return status;
}

static fpc_status fill(const pool_call *call, void *arg, fpc_deadline deadline, fpc_error *err) {
    (void)arg;
    return fpc_pool_fill(call->shared->pool, deadline, err);
}

/* pool:fill(timeout) -> true | nil, err */
static int pool_fill(lua_State *L) {
    fpc_error err;
    pool_call call = begin_call(L);
    if (act(&call, fill, NULL, fpc_deadline_in(luaL_checknumber(L, 2)), &err) != FPC_OK)
        return fpc_lua_failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

static fpc_status acquire(const pool_call *call, void *arg, fpc_deadline deadline, fpc_error *err) {
    fpc_lua_conn *conn = arg;
    fpc_status status = fpc_pool_acquire(call->shared->pool, deadline, &conn->conn, err);
    if (status != FPC_OK) return status;
    conn->shared = call->shared;
    conn->shared->references++;
    fpc_lua_open_objects++;
    return FPC_OK;
}

/* pool:acquire(timeout) -> conn | nil, err */
static int pool_acquire(lua_State *L) {
    fpc_error err;
    pool_call call = begin_call(L);
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 2));
    fpc_lua_conn *conn = fpc_lua_new_conn(L);
    return act(&call, acquire, conn, deadline, &err) == FPC_OK ? 1 : fpc_lua_failure(L, &err);
}

typedef struct exec_args {
    const fpc_lua_binding *binding;
    fpc_result **out;
} exec_args;

static fpc_status exec_once(const pool_call *call, void *arg, fpc_deadline deadline, fpc_error *err) {
    const exec_args *args = arg;
    return fpc_pool_exec(call->shared->pool, args->binding->statement, &args->binding->params, deadline,
                         args->out, err);
}

static fpc_status exec(void *self, const fpc_lua_binding *binding, fpc_deadline deadline, fpc_result **out,
                       fpc_error *err) {
    exec_args args = {.binding = binding, .out = out};
    return act(self, exec_once, &args, deadline, err);
}

static int pool_run(lua_State *L) {
    pool_call call = begin_call(L);
    return fpc_lua_db_run(L, exec, &call);
}

static int pool_row(lua_State *L) {
    pool_call call = begin_call(L);
    return fpc_lua_db_row(L, exec, &call);
}

static int pool_rows(lua_State *L) {
    pool_call call = begin_call(L);
    return fpc_lua_db_rows(L, exec, &call);
}

static int pool_value(lua_State *L) {
    pool_call call = begin_call(L);
    return fpc_lua_db_value(L, exec, &call);
}

static int pool_map(lua_State *L) {
    pool_call call = begin_call(L);
    return fpc_lua_db_map(L, exec, &call);
}

/* pool:token() -> table of its keeper's numbers and words, or nil */
static int pool_token(lua_State *L) {
    pool_call call = begin_call(L);
    if (call.shared == NULL || call.shared->token == NULL) return 0;
    fpc_lua_keeper_push_stats(L, call.shared->token);
    return 1;
}

static void set_setting(lua_State *L, const fpc_conninfo *info, const char *keyword) {
    const char *value = fpc_conninfo_get(info, keyword);
    if (value == NULL) return;
    lua_pushstring(L, value);
    lua_setfield(L, -2, keyword);
}

/* server_of(connection_string, settings) -> {host, port, user} as far as they are set | nil, err */
static int server_of(lua_State *L) {
    fpc_error err;
    const char *text = luaL_optstring(L, 1, NULL);
    check_settings(L, 2);
    lua_newtable(L);
    fpc_conninfo *info = fpc_conninfo_new();
    fpc_status status = info == NULL ? fpc_fail(&err, FPC_NOMEM, "pool") : FPC_OK;
    if (status == FPC_OK && text != NULL) status = fpc_conninfo_parse(info, text, &err);
    if (status == FPC_OK) status = put_settings(L, 2, info, fpc_conninfo_add, &err);
    if (status == FPC_OK) {
        set_setting(L, info, "host");
        set_setting(L, info, "port");
        set_setting(L, info, "user");
    }
    fpc_conninfo_delete(info);
    return status == FPC_OK ? 1 : fpc_lua_failure(L, &err);
}

/* pool:submit(completions, statement, timeout, ...) -> id | nil, err: the answer arrives at the queue. */
static int pool_submit(lua_State *L) {
    fpc_error err;
    fpc_completions *to = fpc_lua_check_completions(L, 2);
    fpc_deadline deadline = fpc_deadline_in(luaL_checknumber(L, 4));
    fpc_request *request = NULL;
    fpc_lua_binding binding;
    fpc_lua_check_pool_to_connect(L, 1);
    pool_call call = begin_call(L); /* after it: a password function may have closed the pool */
    if (!fpc_lua_bind(L, 3, 5, &binding, &err)) return fpc_lua_failure(L, &err);
    fpc_status status = call.shared == NULL
                            ? fpc_fail(&err, FPC_CLOSED, "the cache was closed")
                            : fpc_pipeline_submit(call.shared->pipeline, to, binding.statement,
                                                  &binding.params, deadline, &request, &err);
    fpc_lua_unbind(&binding);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    return fpc_lua_push_request(L, 2, request);
}

/* pool:kick(): what was submitted is to be sent now */
static int pool_kick(lua_State *L) {
    pool_ud *ud = luaL_checkudata(L, 1, POOL_TYPE);
    if (ud->shared != NULL) fpc_pipeline_kick(ud->shared->pipeline);
    return 0;
}

static void set_count(lua_State *L, const char *name, uint64_t value) {
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, name);
}

/* pool:stats() -> table of counts; all 0 once closed */
static int pool_stats(lua_State *L) {
    fpc_pool_stats stats = {0};
    pool_call call = begin_call(L);
    if (call.shared != NULL) fpc_pool_get_stats(call.shared->pool, &stats);
    lua_newtable(L);
    set_count(L, "idle", (uint64_t)stats.idle);
    set_count(L, "lent", (uint64_t)stats.lent);
    set_count(L, "opening", (uint64_t)stats.opening);
    set_count(L, "waiting", (uint64_t)stats.waiting);
    set_count(L, "opened", stats.opened);
    set_count(L, "open_failures", stats.open_failures);
    set_count(L, "closed_broken", stats.closed_broken);
    set_count(L, "closed_idle", stats.closed_idle);
    set_count(L, "closed_old", stats.closed_old);
    set_count(L, "waits", stats.waits);
    set_count(L, "wait_timeouts", stats.wait_timeouts);
    return 1;
}

/* pool:pipeline_stats() -> table of counts; all 0 once closed */
static int pool_pipeline_stats(lua_State *L) {
    fpc_pipeline_stats stats = {0};
    pool_ud *ud = luaL_checkudata(L, 1, POOL_TYPE);
    if (ud->shared != NULL) fpc_pipeline_get_stats(ud->shared->pipeline, &stats);
    lua_newtable(L);
    set_count(L, "open", (uint64_t)stats.open);
    set_count(L, "opening", (uint64_t)stats.opening);
    set_count(L, "silent", (uint64_t)stats.silent);
    set_count(L, "waiting", stats.waiting);
    set_count(L, "in_flight", stats.in_flight);
    set_count(L, "submitted", stats.submitted);
    set_count(L, "finished", stats.finished);
    set_count(L, "groups", stats.groups);
    set_count(L, "by_callers", stats.by_callers);
    set_count(L, "merged", stats.merged);
    set_count(L, "resent", stats.resent);
    set_count(L, "expired", stats.expired);
    set_count(L, "dropped", stats.dropped);
    set_count(L, "opened", stats.opened);
    set_count(L, "open_failures", stats.open_failures);
    set_count(L, "lost", stats.lost);
    set_count(L, "went_silent", stats.went_silent);
    return 1;
}

void fpc_lua_register_pool(lua_State *L) {
    static const luaL_Reg METHODS[] = {{"fill", pool_fill},
                                       {"acquire", pool_acquire},
                                       {"run", pool_run},
                                       {"row", pool_row},
                                       {"rows", pool_rows},
                                       {"value", pool_value},
                                       {"map", pool_map},
                                       {"submit", pool_submit},
                                       {"kick", pool_kick},
                                       {"stats", pool_stats},
                                       {"pipeline_stats", pool_pipeline_stats},
                                       {"token", pool_token},
                                       {NULL, NULL}};
    fpc_lua_register_result(L);
    fpc_lua_new_type(L, POOL_TYPE, METHODS, pool_close);
    lua_pushcfunction(L, pool_new);
    lua_setfield(L, -2, "pool");
    lua_pushcfunction(L, server_of);
    lua_setfield(L, -2, "server_of");
}

/* completions.c -- `core.completions(max_outstanding)`: where the answers of pool:submit() arrive.
 *
 * `core.bell(parent)` (see bell.h): bell:path(), then, connected to, bell:attach(queue), and bell:close().
 *
 * queue:next() gives the id of a finished request and keeps its answer; the converting method that follows
 * takes it: run() row() rows() value(codec, parse_json, namespace, stored_key) map(codec, parse_json), as
 * the pool's methods return (see db.h), and for what was asked of a pin (see pin.c) query() script() done().
 * The answer is freed by the next next(), so that nobody who vanished in between leaves it behind.
 *
 * Ids are small numbers, used again and again: callers keep tables by id, and Lua's are slow with pointers
 * that come and go.  One that is full up to a power of two is built anew for nearly each new key.
 */
#include "completions.h"
#include "db.h"
#include "fpcache/bell.h"
#include "fpcache/fork.h"

#include <stdlib.h>

#define COMPLETIONS_TYPE "fpcache.completions"

typedef struct numbered {
    fpc_request *request; /* NULL: the number is free */
    unsigned next_free;   /* 0: none */
} numbered;

typedef struct completions_ud {
    fpc_completions *queue; /* NULL: closed */
    fpc_request *current;   /* fetched last */
    bool is_taken;          /* current is being converted */
    numbered *requests;     /* by number; the first is not used */
    unsigned capacity, first_free;
} completions_ud;

static completions_ud *check(lua_State *L, int index) {
    completions_ud *ud = luaL_checkudata(L, index, COMPLETIONS_TYPE);
    luaL_argcheck(L, ud->queue != NULL, index, "the queue is closed");
    return ud;
}

/* --- numbers --- */

static bool make_room(completions_ud *ud, fpc_error *err) {
    unsigned capacity = ud->capacity == 0 ? 64 : 2 * ud->capacity;
    numbered *requests = realloc(ud->requests, capacity * sizeof *requests);
    if (requests == NULL) {
        fpc_fail(err, FPC_NOMEM, "%u requests", capacity);
        return false;
    }
    for (unsigned i = capacity; i-- > (ud->capacity == 0 ? 1 : ud->capacity);) { /* the lowest comes first */
        requests[i] = (numbered){.next_free = ud->first_free};
        ud->first_free = i;
    }
    ud->requests = requests;
    ud->capacity = capacity;
    return true;
}

static void free_number(completions_ud *ud, unsigned number) {
    ud->requests[number] = (numbered){.next_free = ud->first_free};
    ud->first_free = number;
}

fpc_completions *fpc_lua_check_completions(lua_State *L, int index) {
    return check(L, index)->queue;
}

int fpc_lua_push_request(lua_State *L, int index, fpc_request *request) {
    fpc_error err;
    completions_ud *ud = lua_touserdata(L, index);
    if (ud->first_free == 0 && !make_room(ud, &err)) {
        fpc_request_abandon(request);
        return fpc_lua_failure(L, &err);
    }
    unsigned number = ud->first_free;
    ud->first_free = ud->requests[number].next_free;
    ud->requests[number].request = request;
    fpc_request_set_number(request, number);
    lua_pushinteger(L, (lua_Integer)number);
    return 1;
}

/* --- the queue --- */

static int completions_close(lua_State *L) {
    completions_ud *ud = luaL_checkudata(L, 1, COMPLETIONS_TYPE);
    fpc_request_delete(ud->current);
    ud->current = NULL;
    fpc_completions_delete(ud->queue);
    ud->queue = NULL;
    free(ud->requests);
    ud->requests = NULL;
    return 0;
}

static int completions_new(lua_State *L) {
    fpc_error err;
    lua_Integer most = luaL_checkinteger(L, 1);
    luaL_argcheck(L, most > 0, 1, "more than 0 is expected");
    completions_ud *ud = lua_newuserdata(L, sizeof *ud);
    *ud = (completions_ud){0};
    luaL_setmetatable(L, COMPLETIONS_TYPE);
    if (fpc_completions_new((size_t)most, &ud->queue, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    return 1;
}

/* queue:fd() -> for poll(2): readable while next() may have something */
static int completions_fd(lua_State *L) {
    lua_pushinteger(L, fpc_completions_fd(check(L, 1)->queue));
    return 1;
}

/* queue:wake(): makes the descriptor readable once */
static int completions_wake(lua_State *L) {
    fpc_completions_wake(check(L, 1)->queue);
    return 0;
}

/* queue:wait(timeout) -> true | nil, err */
static int completions_wait(lua_State *L) {
    fpc_error err;
    completions_ud *ud = check(L, 1);
    fpc_status status = fpc_completions_wait(ud->queue, fpc_deadline_in(luaL_checknumber(L, 2)), &err);
    if (status != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* queue:next() -> id, as pool:submit() gave it | nil */
static int completions_next(lua_State *L) {
    completions_ud *ud = check(L, 1);
    if (!ud->is_taken) fpc_request_delete(ud->current); /* else who takes it does that */
    ud->is_taken = false;
    ud->current = fpc_completions_next(ud->queue);
    if (ud->current == NULL) return 0;
    unsigned number = fpc_request_number(ud->current);
    free_number(ud, number);
    lua_pushinteger(L, (lua_Integer)number);
    return 1;
}

/* queue:abandon(id): of a request that next() has not given yet; the id is worth nothing any more */
static int completions_abandon(lua_State *L) {
    completions_ud *ud = check(L, 1);
    lua_Integer number = luaL_checkinteger(L, 2);
    luaL_argcheck(L, number > 0 && number < (lua_Integer)ud->capacity && ud->requests[number].request != NULL,
                  2, "the id of a request that next() has not given is expected");
    fpc_request_abandon(ud->requests[number].request);
    free_number(ud, (unsigned)number);
    return 0;
}

/* queue:outstanding() -> requests under way or not fetched */
static int completions_outstanding(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)fpc_completions_outstanding(check(L, 1)->queue));
    return 1;
}

/* A codec of the caller's may wait, in which time others take theirs. */
static int take(lua_State *L, fpc_lua_convert *convert) {
    fpc_error err;
    fpc_answer answer;
    completions_ud *ud = check(L, 1);
    luaL_argcheck(L, ud->current != NULL, 1, "there is no answer to take");
    lua_settop(L, 5);
    if (fpc_request_answer(ud->current, &answer, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    fpc_request *mine = ud->current;
    ud->is_taken = true;
    int count = convert(L, &answer, 2);
    if (ud->current == mine)
        ud->is_taken = false;
    else
        fpc_request_delete(mine);
    return count;
}

static int completions_run(lua_State *L) {
    return take(L, fpc_lua_convert_run);
}

static int completions_row(lua_State *L) {
    return take(L, fpc_lua_convert_row);
}

static int completions_rows(lua_State *L) {
    return take(L, fpc_lua_convert_rows);
}

static int completions_value(lua_State *L) {
    return take(L, fpc_lua_convert_value);
}

static int completions_map(lua_State *L) {
    return take(L, fpc_lua_convert_map);
}

static int convert_query(lua_State *L, const fpc_answer *answer, int codec) {
    (void)codec;
    fpc_lua_push_text_rows(L, answer->result);
    return 1;
}

static int convert_script(lua_State *L, const fpc_answer *answer, int codec) {
    (void)codec;
    lua_pushstring(L, fpc_result_command(answer->result));
    return 1;
}

static int convert_done(lua_State *L, const fpc_answer *answer, int codec) {
    (void)answer;
    (void)codec;
    lua_pushboolean(L, 1);
    return 1;
}

static int completions_query(lua_State *L) {
    return take(L, convert_query);
}

static int completions_script(lua_State *L) {
    return take(L, convert_script);
}

static int completions_done(lua_State *L) {
    return take(L, convert_done);
}

/* queue:silence(): its bell rings no more */
static int completions_silence(lua_State *L) {
    fpc_completions_silence(check(L, 1)->queue);
    return 0;
}

/* --- bells --- */

#define BELL_TYPE "fpcache.bell"

static fpc_bell **check_bell(lua_State *L) {
    fpc_bell **ud = luaL_checkudata(L, 1, BELL_TYPE);
    luaL_argcheck(L, *ud != NULL, 1, "the bell is closed");
    return ud;
}

static int bell_close(lua_State *L) {
    fpc_bell **ud = luaL_checkudata(L, 1, BELL_TYPE);
    fpc_bell_delete(*ud);
    *ud = NULL;
    return 0;
}

/* bell(parent) -> bell | nil, err */
static int bell_new(lua_State *L) {
    fpc_error err;
    const char *parent = luaL_checkstring(L, 1);
    fpc_bell **ud = lua_newuserdata(L, sizeof *ud);
    *ud = NULL;
    luaL_setmetatable(L, BELL_TYPE);
    return fpc_bell_new(parent, ud, &err) == FPC_OK ? 1 : fpc_lua_failure(L, &err);
}

/* bell:path() -> where to connect to */
static int bell_path(lua_State *L) {
    lua_pushstring(L, fpc_bell_path(*check_bell(L)));
    return 1;
}

/* bell:attach(queue) -> true | nil, err */
static int bell_attach(lua_State *L) {
    fpc_error err;
    fpc_bell **ud = check_bell(L);
    if (fpc_bell_attach(*ud, check(L, 2)->queue, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushboolean(L, 1);
    return 1;
}

/* fork_generation() -> another number in a child of fork(2) */
static int fork_generation(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)fpc_fork_generation());
    return 1;
}

void fpc_lua_register_completions(lua_State *L) {
    static const luaL_Reg METHODS[] = {{"fd", completions_fd},
                                       {"wake", completions_wake},
                                       {"wait", completions_wait},
                                       {"silence", completions_silence},
                                       {"next", completions_next},
                                       {"abandon", completions_abandon},
                                       {"outstanding", completions_outstanding},
                                       {"run", completions_run},
                                       {"row", completions_row},
                                       {"rows", completions_rows},
                                       {"value", completions_value},
                                       {"map", completions_map},
                                       {"query", completions_query},
                                       {"script", completions_script},
                                       {"done", completions_done},
                                       {NULL, NULL}};
    fpc_lua_new_type(L, COMPLETIONS_TYPE, METHODS, completions_close);
    static const luaL_Reg BELL_METHODS[] = {{"path", bell_path}, {"attach", bell_attach}, {NULL, NULL}};
    fpc_lua_new_type(L, BELL_TYPE, BELL_METHODS, bell_close);
    lua_pushcfunction(L, bell_new);
    lua_setfield(L, -2, "bell");
    lua_pushcfunction(L, completions_new);
    lua_setfield(L, -2, "completions");
    lua_pushcfunction(L, fork_generation);
    lua_setfield(L, -2, "fork_generation");
}

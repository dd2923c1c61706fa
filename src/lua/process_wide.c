/* process_wide.c -- what the Lua states of one process share.
 *
 * nginx with `lua_code_cache off` makes a Lua state for each request; these functions let the others know
 * what one of them has begun.  A child of fork(2) begins anew.  One thread runs all states of a process that
 * use them. */
#include "fpcache/fork.h"
#include "types.h"

#include <stdlib.h>
#include <string.h>

/* A text under a name, as long as the process lives. */
typedef struct note {
    struct note *next;
    char *text;
    size_t length;
    char name[];
} note;

static struct {
    unsigned generation;
    const void *first; /* the state that asked first */
    note *notes;
} shared;

static void begin_anew_after_fork(void) {
    if (shared.generation == fpc_fork_generation()) return;
    shared.generation = fpc_fork_generation();
    shared.first = NULL;
}

/* is_first_state() -> whether no other Lua state of this process has asked before */
static int is_first_state(lua_State *L) {
    const void *self = lua_topointer(L, LUA_REGISTRYINDEX);
    begin_anew_after_fork();
    if (shared.first == NULL) shared.first = self;
    lua_pushboolean(L, shared.first == self);
    return 1;
}

static note *find_note(const char *name) {
    note *found = shared.notes;
    while (found != NULL && strcmp(found->name, name) != 0) found = found->next;
    return found;
}

static note *add_note(const char *name) {
    size_t size = strlen(name) + 1;
    note *added = calloc(1, sizeof *added + size);
    if (added == NULL) return NULL;
    memcpy(added->name, name, size);
    added->next = shared.notes;
    shared.notes = added;
    return added;
}

/* process_note(name [, text]): leaves a text for other states; without one -> what was left last, or nil */
static int process_note(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    note *about = find_note(name);
    if (lua_isnoneornil(L, 2)) {
        if (about == NULL) return 0;
        lua_pushlstring(L, about->text, about->length);
        return 1;
    }
    size_t length;
    const char *text = luaL_checklstring(L, 2, &length);
    char *copy = malloc(length + 1);
    if (about == NULL && copy != NULL) about = add_note(name);
    if (about == NULL) {
        free(copy);
        return luaL_error(L, "not enough memory");
    }
    if (copy == NULL) return luaL_error(L, "not enough memory");
    memcpy(copy, text, length + 1);
    free(about->text);
    about->text = copy;
    about->length = length;
    return 0;
}

/* isyieldable() -> whether the caller may yield; false inside a C function that called Lua, such as
 * table.sort */
static int isyieldable(lua_State *L) {
    lua_pushboolean(L, lua_isyieldable(L));
    return 1;
}

void fpc_lua_register_process_wide(lua_State *L) {
    static const luaL_Reg FUNCTIONS[] = {{"is_first_state", is_first_state},
                                         {"process_note", process_note},
                                         {"isyieldable", isyieldable},
                                         {NULL, NULL}};
    for (const luaL_Reg *f = FUNCTIONS; f->name != NULL; f++) {
        lua_pushcfunction(L, f->func);
        lua_setfield(L, -2, f->name);
    }
}

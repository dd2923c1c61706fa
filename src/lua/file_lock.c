/* file_lock.c -- fpcache.core.lock(path, timeout, shared): a lock file as a userdata. */
#include "fpcache/file_lock.h"
#include "types.h"

#define LOCK_TYPE "fpcache.file_lock"

typedef struct lock_ud {
    fpc_file_lock *lock; /* NULL: closed */
} lock_ud;

int fpc_lua_lock_fd(lua_State *L, int index) {
    lock_ud *ud = luaL_checkudata(L, index, LOCK_TYPE);
    luaL_argcheck(L, ud->lock != NULL, index, "lock is closed");
    return fpc_file_lock_fd(ud->lock);
}

static int lock_new(lua_State *L) {
    fpc_error err;
    const char *path = luaL_checkstring(L, 1);
    double timeout = luaL_optnumber(L, 2, 0);
    bool shared = lua_toboolean(L, 3);
    lock_ud *ud = lua_newuserdata(L, sizeof *ud);
    ud->lock = NULL;
    luaL_setmetatable(L, LOCK_TYPE);
    if (fpc_file_lock_new(path, shared, fpc_deadline_in(timeout), &ud->lock, &err) != FPC_OK)
        return fpc_lua_failure(L, &err);
    fpc_lua_open_objects++;
    return 1;
}

static int lock_close(lua_State *L) { /* close, __gc and __close */
    lock_ud *ud = luaL_checkudata(L, 1, LOCK_TYPE);
    if (ud->lock != NULL) fpc_lua_open_objects--;
    fpc_file_lock_delete(ud->lock); /* NULL is allowed */
    ud->lock = NULL;
    return 0;
}

void fpc_lua_register_file_lock(lua_State *L) {
    static const luaL_Reg METHODS[] = {{NULL, NULL}};
    fpc_lua_new_type(L, LOCK_TYPE, METHODS, lock_close);
    lua_pushcfunction(L, lock_new);
    lua_setfield(L, -2, "lock");
}

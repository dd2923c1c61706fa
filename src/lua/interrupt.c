/* interrupt.c -- whether the program was asked to stop. */
#include "fpcache/wait.h"
#include "types.h"

static int interrupted(lua_State *L) {
    lua_pushboolean(L, fpc_interrupt_raised());
    return 1;
}

void fpc_lua_register_interrupt(lua_State *L) {
    lua_pushcfunction(L, interrupted);
    lua_setfield(L, -2, "interrupted");
}

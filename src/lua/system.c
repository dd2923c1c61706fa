/* system.c -- fpcache.core.system: facts and acts of the operating system that Lua lacks.
 *
 * Acts answer true, or nil and "code: message". */
#include "fields.h"
#include "fpcache/clock.h"
#include "fpcache/os.h"
#include "types.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_RANDOM 65536

static const char *const TYPE_NAMES[] = {
    [FPC_OS_FILE] = "file",     [FPC_OS_DIRECTORY] = "directory", [FPC_OS_LINK] = "link",
    [FPC_OS_SOCKET] = "socket", [FPC_OS_OTHER] = "other",
};

static int answer(lua_State *L, fpc_status status, const fpc_error *err) {
    if (status != FPC_OK) return fpc_lua_failure(L, err);
    lua_pushboolean(L, 1);
    return 1;
}

/* now(): seconds on the monotonic clock. */
static int sys_now(lua_State *L) {
    lua_pushnumber(L, (lua_Number)fpc_clock_ns() / (lua_Number)FPC_NS_PER_SECOND);
    return 1;
}

/* wall(): seconds since 1970, with fraction. */
static int sys_wall(lua_State *L) {
    lua_pushnumber(L, fpc_os_wall_clock());
    return 1;
}

static int sys_sleep(lua_State *L) {
    fpc_os_sleep(luaL_checknumber(L, 1));
    return 0;
}

static int sys_getuid(lua_State *L) {
    fpc_lua_push_int64(L, getuid());
    return 1;
}

static int sys_geteuid(lua_State *L) {
    fpc_lua_push_int64(L, geteuid());
    return 1;
}

static int sys_pid(lua_State *L) {
    fpc_lua_push_int64(L, getpid());
    return 1;
}

/* user(name or uid): {name, uid, gid, home}. */
static int sys_user(lua_State *L) {
    fpc_os_user user;
    fpc_error err;
    const char *name = lua_type(L, 1) == LUA_TNUMBER ? NULL : luaL_checkstring(L, 1);
    int64_t uid = name == NULL ? (int64_t)luaL_checknumber(L, 1) : -1;
    if (fpc_os_user_find(name, uid, &user, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_createtable(L, 0, 4);
    fpc_lua_set_text(L, "name", user.name);
    fpc_lua_set_text(L, "home", user.home);
    fpc_lua_set_integer(L, "uid", user.uid);
    fpc_lua_set_integer(L, "gid", user.gid);
    return 1;
}

/* kill(pid, signal): signal 0 asks whether the process is there. */
static int sys_kill(lua_State *L) {
    fpc_error err;
    int64_t pid = (int64_t)luaL_checknumber(L, 1);
    return answer(L, fpc_os_kill(pid, (int)luaL_checkinteger(L, 2), &err), &err);
}

static int sys_random(lua_State *L) {
    unsigned char bytes[MAX_RANDOM];
    fpc_error err;
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 0 && n <= MAX_RANDOM, 1, "0 to 65536 bytes");
    if (fpc_os_random(bytes, (size_t)n, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushlstring(L, (const char *)bytes, (size_t)n);
    return 1;
}

static int sys_getenv(lua_State *L) {
    lua_pushstring(L, getenv(luaL_checkstring(L, 1))); /* NULL: pushes nil */
    return 1;
}

static int sys_setenv(lua_State *L) {
    fpc_error err;
    const char *name = luaL_checkstring(L, 1);
    return answer(L, fpc_os_set_env(name, luaL_optstring(L, 2, NULL), &err), &err);
}

static int sys_hostname(lua_State *L) {
    char name[256];
    fpc_error err;
    if (fpc_os_host_name(name, sizeof name, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushstring(L, name);
    return 1;
}

/* isatty(0, 1 or 2). */
static int sys_isatty(lua_State *L) {
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int push_stat(lua_State *L, bool follow) {
    fpc_os_stat st;
    fpc_error err;
    if (fpc_os_stat_path(luaL_checkstring(L, 1), follow, &st, &err) != FPC_OK)
        return fpc_lua_failure(L, &err);
    lua_createtable(L, 0, 6);
    fpc_lua_set_text(L, "type", TYPE_NAMES[st.type]);
    fpc_lua_set_integer(L, "mode", st.mode);
    fpc_lua_set_integer(L, "uid", st.uid);
    fpc_lua_set_integer(L, "gid", st.gid);
    fpc_lua_set_integer(L, "size", st.size);
    fpc_lua_set_number(L, "modified", st.modified);
    return 1;
}

static int sys_stat(lua_State *L) {
    return push_stat(L, true);
}

static int sys_lstat(lua_State *L) {
    return push_stat(L, false);
}

/* readdir(path): list of names, unordered, without "." and "..". */
static int sys_readdir(lua_State *L) {
    fpc_error err;
    char *names = NULL;
    size_t count = 0;
    if (fpc_os_list(luaL_checkstring(L, 1), &names, &count, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_createtable(L, (int)count, 0);
    const char *name = names;
    for (size_t i = 1; i <= count; i++, name += strlen(name) + 1) {
        lua_pushstring(L, name);
        lua_rawseti(L, -2, (int)i);
    }
    free(names);
    return 1;
}

static int sys_mkdir(lua_State *L) {
    fpc_error err;
    const char *path = luaL_checkstring(L, 1);
    return answer(L, fpc_os_mkdir(path, (unsigned)luaL_optinteger(L, 2, 0700), &err), &err);
}

static int sys_chmod(lua_State *L) {
    fpc_error err;
    const char *path = luaL_checkstring(L, 1);
    return answer(L, fpc_os_chmod(path, (unsigned)luaL_checkinteger(L, 2), &err), &err);
}

static int sys_chown(lua_State *L) {
    fpc_error err;
    const char *path = luaL_checkstring(L, 1);
    int64_t uid = (int64_t)luaL_checknumber(L, 2), gid = (int64_t)luaL_checknumber(L, 3);
    return answer(L, fpc_os_chown(path, uid, gid, &err), &err);
}

static int sys_rename(lua_State *L) {
    fpc_error err;
    const char *from = luaL_checkstring(L, 1);
    return answer(L, fpc_os_rename(from, luaL_checkstring(L, 2), &err), &err);
}

static int sys_unlink(lua_State *L) {
    fpc_error err;
    return answer(L, fpc_os_unlink(luaL_checkstring(L, 1), &err), &err);
}

static int sys_remove_tree(lua_State *L) {
    fpc_error err;
    return answer(L, fpc_os_remove_tree(luaL_checkstring(L, 1), &err), &err);
}

/* mkdtemp(prefix): the path of a new directory, the prefix followed by six letters. */
static int sys_mkdtemp(lua_State *L) {
    fpc_error err;
    lua_pushfstring(L, "%sXXXXXX", luaL_checkstring(L, 1));
    size_t size = lua_rawlen(L, -1) + 1;
    char *template = lua_newuserdata(L, size);
    memcpy(template, lua_tostring(L, -2), size);
    if (fpc_os_mkdtemp(template, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushstring(L, template);
    return 1;
}

static int push_resolved(lua_State *L, const char *path, bool real) {
    fpc_error err;
    char *target = NULL;
    if (fpc_os_resolve(path, real, &target, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    lua_pushstring(L, target);
    free(target);
    return 1;
}

static int sys_readlink(lua_State *L) {
    return push_resolved(L, luaL_checkstring(L, 1), false);
}

static int sys_realpath(lua_State *L) {
    return push_resolved(L, luaL_checkstring(L, 1), true);
}

/* exe(): the path of the running program. */
static int sys_exe(lua_State *L) {
    return push_resolved(L, "/proc/self/exe", false);
}

/* socket_answers(path): whether somebody accepts connections there. */
static int sys_socket_answers(lua_State *L) {
    lua_pushboolean(L, fpc_os_socket_answers(luaL_checkstring(L, 1)));
    return 1;
}

static const luaL_Reg FUNCTIONS[] = {
    {"now", sys_now},
    {"wall", sys_wall},
    {"sleep", sys_sleep},
    {"getuid", sys_getuid},
    {"geteuid", sys_geteuid},
    {"pid", sys_pid},
    {"user", sys_user},
    {"kill", sys_kill},
    {"random", sys_random},
    {"getenv", sys_getenv},
    {"setenv", sys_setenv},
    {"hostname", sys_hostname},
    {"isatty", sys_isatty},
    {"stat", sys_stat},
    {"lstat", sys_lstat},
    {"readdir", sys_readdir},
    {"mkdir", sys_mkdir},
    {"chmod", sys_chmod},
    {"chown", sys_chown},
    {"rename", sys_rename},
    {"unlink", sys_unlink},
    {"mkdtemp", sys_mkdtemp},
    {"readlink", sys_readlink},
    {"realpath", sys_realpath},
    {"exe", sys_exe},
    {"remove_tree", sys_remove_tree},
    {"socket_answers", sys_socket_answers},
    {NULL, NULL},
};

void fpc_lua_register_system(lua_State *L) {
    lua_newtable(L);
    luaL_setfuncs(L, FUNCTIONS, 0);
    lua_setfield(L, -2, "system");
}

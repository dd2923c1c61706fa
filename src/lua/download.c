/* download.c -- `core.downloads(options)`: many bodies by HTTP at once. */
#include "fpcache/download.h"
#include "fields.h"
#include "types.h"

#define DOWNLOADS_TYPE "fpcache.downloads"
#define MAX_HEADERS    32

typedef struct downloads_ud {
    fpc_downloads *downloads; /* NULL: closed */
} downloads_ud;

static fpc_downloads *check(lua_State *L) {
    downloads_ud *ud = luaL_checkudata(L, 1, DOWNLOADS_TYPE);
    luaL_argcheck(L, ud->downloads != NULL, 1, "the downloads are closed");
    return ud->downloads;
}

static double number_field(lua_State *L, const char *name) {
    lua_getfield(L, 1, name);
    double value = luaL_checknumber(L, -1);
    lua_pop(L, 1);
    return value;
}

/* The lines of options.headers; they live as long as the table. */
static void read_headers(lua_State *L, const char *lines[MAX_HEADERS + 1]) {
    int count = 0;
    lua_getfield(L, 1, "headers");
    if (lua_istable(L, -1)) {
        for (int i = 1;; i++) {
            lua_rawgeti(L, -1, i);
            const char *line = lua_tostring(L, -1);
            lua_pop(L, 1);
            if (line == NULL) break;
            if (count == MAX_HEADERS) luaL_error(L, "headers: at most %d", MAX_HEADERS);
            lines[count++] = line;
        }
    }
    lua_pop(L, 1);
    lines[count] = NULL;
}

/* downloads{parallel=, tries=, timeout=, stall=, first_pause=, longest_pause=, max_bytes=, ca_file=,
 * headers=} */
static int downloads_new(lua_State *L) {
    fpc_error err;
    const char *headers[MAX_HEADERS + 1];
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    read_headers(L, headers);
    lua_getfield(L, 1, "ca_file"); /* stays on the stack */
    fpc_downloads_options options = {.parallel = (int)number_field(L, "parallel"),
                                     .tries = (int)number_field(L, "tries"),
                                     .timeout_s = number_field(L, "timeout"),
                                     .stall_s = number_field(L, "stall"),
                                     .first_pause_s = number_field(L, "first_pause"),
                                     .longest_pause_s = number_field(L, "longest_pause"),
                                     .max_bytes = (size_t)number_field(L, "max_bytes"),
                                     .ca_file = lua_tostring(L, 2),
                                     .headers = headers};
    downloads_ud *ud = lua_newuserdata(L, sizeof *ud);
    ud->downloads = NULL;
    luaL_setmetatable(L, DOWNLOADS_TYPE);
    if (fpc_downloads_new(&options, &ud->downloads, &err) != FPC_OK) return fpc_lua_failure(L, &err);
    fpc_lua_open_objects++;
    return 1;
}

static int downloads_close(lua_State *L) {
    downloads_ud *ud = luaL_checkudata(L, 1, DOWNLOADS_TYPE);
    if (ud->downloads != NULL) fpc_lua_open_objects--;
    fpc_downloads_delete(ud->downloads);
    ud->downloads = NULL;
    return 0;
}

/* downloads:add(url, path or nil) -> id | nil, err */
static int downloads_add(lua_State *L) {
    fpc_error err;
    uint64_t id;
    fpc_downloads *downloads = check(L);
    if (fpc_downloads_add(downloads, luaL_checkstring(L, 2), luaL_optstring(L, 3, NULL), &id, &err) != FPC_OK)
        return fpc_lua_failure(L, &err);
    lua_pushinteger(L, (lua_Integer)id);
    return 1;
}

/* downloads:left() -> how many were not handed out yet */
static int downloads_left(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)fpc_downloads_left(check(L)));
    return 1;
}

/* downloads:wait(timeout) -> { id, body | error, status, tries, length, type, tag } | nil: none is left |
 * nil, err */
static int downloads_wait(lua_State *L) {
    fpc_error err;
    const fpc_download *one;
    if (fpc_downloads_wait(check(L), fpc_deadline_in(luaL_checknumber(L, 2)), &one, &err) != FPC_OK)
        return fpc_lua_failure(L, &err);
    if (one == NULL) return 0;
    lua_createtable(L, 0, 7);
    fpc_lua_set_integer(L, "id", (int64_t)one->id);
    if (one->error.status != FPC_OK) {
        fpc_lua_failure(L, &one->error);
        lua_setfield(L, -3, "error");
        lua_pop(L, 1);
    } else if (one->body != NULL) {
        lua_pushlstring(L, one->body, one->length);
        lua_setfield(L, -2, "body");
    }
    fpc_lua_set_integer(L, "status", one->http_status);
    fpc_lua_set_integer(L, "tries", one->tries);
    fpc_lua_set_count(L, "length", one->length);
    fpc_lua_set_text(L, "type", one->type);
    fpc_lua_set_text(L, "tag", one->tag);
    return 1;
}

void fpc_lua_register_download(lua_State *L) {
    static const luaL_Reg METHODS[] = {
        {"add", downloads_add}, {"left", downloads_left}, {"wait", downloads_wait}, {NULL, NULL}};
    fpc_lua_new_type(L, DOWNLOADS_TYPE, METHODS, downloads_close);
    lua_pushcfunction(L, downloads_new);
    lua_setfield(L, -2, "downloads");
}

#include "screen.h"

#include "types.h"

#include <errno.h>
#include <lauxlib.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define SCREEN_TYPE "fpcache.Screen"
#define ENTER       "\033[?1049h\033[?25l"
#define LEAVE       "\033[?25h\033[?1049l"
#define ESCAPE      '\033'

typedef struct screen {
    bool open;
    struct termios before;
} screen;

static volatile sig_atomic_t resized;

static void on_resize(int number) {
    (void)number;
    resized = 1;
}

static screen *check_screen(lua_State *L) {
    screen *self = luaL_checkudata(L, 1, SCREEN_TYPE);
    if (!self->open) luaL_error(L, "the screen is closed");
    return self;
}

/* Around what Lua has written: its output goes through the same stream. */
static void put(const char *text) {
    fputs(text, stdout);
    fflush(stdout);
}

static int screen_close(lua_State *L) {
    screen *self = luaL_checkudata(L, 1, SCREEN_TYPE);
    if (!self->open) return 0;
    self->open = false;
    put(LEAVE);
    tcsetattr(STDIN_FILENO, TCSAFLUSH, &self->before);
    signal(SIGWINCH, SIG_DFL);
    return 0;
}

static int screen_open(lua_State *L) {
    screen *self = lua_newuserdatauv(L, sizeof *self, 0);
    *self = (screen){0};
    luaL_setmetatable(L, SCREEN_TYPE);
    if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &self->before) != 0)
        return luaL_error(L, "standard input and output must be a terminal");
    struct termios raw = self->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    raw.c_cc[VSUSP] = _POSIX_VDISABLE; /* nobody would give the screen back */
    if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) != 0) return luaL_error(L, "the terminal cannot be used");
    self->open = true;
    struct sigaction action = {.sa_handler = on_resize}; /* no SA_RESTART: key() must notice */
    sigaction(SIGWINCH, &action, NULL);
    put(ENTER);
    return 1;
}

static int screen_size(lua_State *L) {
    check_screen(L);
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0)
        size = (struct winsize){.ws_col = 80, .ws_row = 24};
    lua_pushinteger(L, size.ws_col);
    lua_pushinteger(L, size.ws_row);
    return 2;
}

static int no_key(lua_State *L, const char *why) {
    lua_pushnil(L);
    lua_pushstring(L, why);
    return 2;
}

static int screen_key(lua_State *L) {
    check_screen(L);
    double seconds = luaL_checknumber(L, 2);
    luaL_argcheck(L, seconds >= 0 && seconds <= 3600, 2, "0 to 3600 seconds");
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    int ready = resized ? 0 : poll(&input, 1, (int)(seconds * 1000));
    if (resized) {
        resized = 0;
        return no_key(L, "resized");
    }
    if (ready < 0) return no_key(L, errno == EINTR ? "interrupted" : "closed");
    if (ready == 0) return no_key(L, "timeout");
    char bytes[16]; /* of one key: what was typed after it waits for the next call */
    ssize_t count = read(STDIN_FILENO, bytes, 1);
    if (count < 0 && errno == EINTR) return no_key(L, "interrupted");
    if (count <= 0) return no_key(L, "closed");
    size_t length = 1;
    if (bytes[0] == ESCAPE && poll(&input, 1, 0) > 0) { /* the others of an arrow, a function key */
        count = read(STDIN_FILENO, bytes + 1, sizeof bytes - 1);
        if (count > 0) length += (size_t)count;
    }
    lua_pushlstring(L, bytes, length);
    return 1;
}

int fpc_cli_open_screen(lua_State *L) {
    static const luaL_Reg methods[] = {{"size", screen_size}, {"key", screen_key}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"open", screen_open}, {NULL, NULL}};
    fpc_lua_new_type(L, SCREEN_TYPE, methods, screen_close);
    luaL_newlib(L, functions);
    return 1;
}

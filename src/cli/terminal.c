#include "terminal.h"

#include "signals.h"
#include "types.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <lauxlib.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EDITOR_TYPE   "fpcache.Editor"
#define HISTORY_LINES 2000

/* The state while a line is read: libedit calls back without telling whose Lua it is. */
typedef struct editor {
    EditLine *line;
    History *history;
    char *history_path; /* NULL: not kept */
    const char *prompt;
    lua_State *L; /* during read */
    int complete; /* reference in the registry, or LUA_NOREF */
} editor;

static editor *check_editor(lua_State *L) {
    editor *self = luaL_checkudata(L, 1, EDITOR_TYPE);
    if (self->line == NULL) luaL_error(L, "the editor is closed");
    return self;
}

static char *prompt_of(EditLine *line) {
    editor *self = NULL;
    el_get(line, EL_CLIENTDATA, &self);
    return (char *)self->prompt;
}

/* --- completion --- */

/* The bytes that all candidates (a list on top of the stack) begin with. */
static size_t common_prefix(lua_State *L, lua_Integer count, const char **text) {
    size_t common = 0;
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        const char *candidate = lua_tostring(L, -1);
        lua_pop(L, 1); /* the list keeps it */
        if (i == 1) {
            *text = candidate;
            common = strlen(candidate);
        }
        size_t same = 0;
        while (same < common && candidate[same] == (*text)[same]) same++;
        common = same;
    }
    return common;
}

static void list_candidates(lua_State *L, lua_Integer count) {
    fputc('\n', stdout);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, -1, i);
        printf("%s%s", lua_tostring(L, -1), i == count ? "\n" : "  ");
        lua_pop(L, 1);
    }
    fflush(stdout);
}

/* Calls complete(before): pushes the candidates, and answers where in the line the word begins. */
static bool ask_for_candidates(editor *self, const LineInfo *info, lua_Integer *start, lua_Integer *count) {
    lua_State *L = self->L;
    lua_rawgeti(L, LUA_REGISTRYINDEX, self->complete);
    lua_pushlstring(L, info->buffer, (size_t)(info->cursor - info->buffer));
    if (lua_pcall(L, 1, 2, 0) != LUA_OK) return false;
    if (!lua_isinteger(L, -2) || !lua_istable(L, -1)) return false;
    *start = lua_tointeger(L, -2);
    *count = (lua_Integer)lua_rawlen(L, -1);
    if (*start < 1 || *start > info->cursor - info->buffer + 1) return false;
    for (lua_Integer i = 1; i <= *count; i++) {
        bool is_text = lua_rawgeti(L, -1, i) == LUA_TSTRING;
        lua_pop(L, 1);
        if (!is_text) return false;
    }
    return *count > 0;
}

static unsigned char complete(EditLine *line, int key) {
    (void)key;
    editor *self = NULL;
    el_get(line, EL_CLIENTDATA, &self);
    lua_State *L = self->L;
    int top = lua_gettop(L);
    unsigned char answer = CC_REFRESH_BEEP;
    const LineInfo *info = el_line(line);
    lua_Integer start, count;
    if (self->complete != LUA_NOREF && lua_checkstack(L, 10) &&
        ask_for_candidates(self, info, &start, &count)) {
        const char *text;
        size_t typed = (size_t)(info->cursor - info->buffer) - (size_t)(start - 1);
        size_t common = common_prefix(L, count, &text);
        if (common > typed) {
            char *addition = strndup(text + typed, common - typed);
            if (addition != NULL && el_insertstr(line, addition) == 0) answer = CC_REFRESH;
            free(addition);
        } else if (count > 1) {
            list_candidates(L, count);
            answer = CC_REDISPLAY;
        }
    }
    lua_settop(L, top);
    return answer;
}

/* --- the editor --- */

static int editor_close(lua_State *L) {
    editor *self = luaL_checkudata(L, 1, EDITOR_TYPE);
    if (self->line != NULL) el_end(self->line);
    if (self->history != NULL) history_end(self->history);
    free(self->history_path);
    luaL_unref(L, LUA_REGISTRYINDEX, self->complete);
    *self = (editor){.complete = LUA_NOREF};
    return 0;
}

static void open_history(lua_State *L, editor *self, const char *path) {
    HistEvent event;
    self->history = history_init();
    if (self->history == NULL) luaL_error(L, "out of memory");
    history(self->history, &event, H_SETSIZE, HISTORY_LINES);
    history(self->history, &event, H_SETUNIQUE, 1);
    el_set(self->line, EL_HIST, history, self->history);
    if (path == NULL) return;
    self->history_path = strdup(path);
    if (self->history_path == NULL) luaL_error(L, "out of memory");
    history(self->history, &event, H_LOAD, path); /* none yet: an empty one */
}

static int terminal_editor(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "history");
    const char *path = luaL_optstring(L, -1, NULL);
    editor *self = lua_newuserdatauv(L, sizeof *self, 0);
    *self = (editor){.complete = LUA_NOREF};
    luaL_setmetatable(L, EDITOR_TYPE);
    setlocale(LC_CTYPE, ""); /* so that libedit knows how wide a character is */
    self->line = el_init("fpcache", stdin, stdout, stderr);
    if (self->line == NULL) return luaL_error(L, "the terminal cannot be used for editing");
    el_set(self->line, EL_CLIENTDATA, self);
    el_set(self->line, EL_PROMPT, prompt_of);
    el_set(self->line, EL_EDITOR, "emacs");
    el_set(self->line, EL_SIGNAL, 0); /* signals are ours */
    /* The narrow call would leak copies of both texts. */
    el_wset(self->line, EL_ADDFN, L"fpcache-complete", L"Completes names and keys", complete);
    el_set(self->line, EL_BIND, "^I", "fpcache-complete", NULL);
    el_set(self->line, EL_BIND, "^R", "em-inc-search-prev", NULL);
    open_history(L, self, path);
    el_source(self->line, NULL); /* the user's ~/.editrc has the last word */
    if (lua_getfield(L, 1, "complete") == LUA_TFUNCTION)
        self->complete = luaL_ref(L, LUA_REGISTRYINDEX);
    else
        lua_pop(L, 1);
    return 1;
}

static int editor_read(lua_State *L) {
    editor *self = check_editor(L);
    self->prompt = luaL_checkstring(L, 2);
    self->L = L;
    el_resize(self->line);
    fflush(stdout);
    fpc_cli_signals_begin_call(false);
    int length = 0;
    errno = 0;
    const char *text = el_gets(self->line, &length);
    bool interrupted = fpc_cli_signals_end_call(L);
    if (interrupted) {
        fputs("^C\n", stdout);
        lua_pushnil(L);
        lua_pushliteral(L, "interrupted");
        return 2;
    }
    if (text == NULL || length <= 0) return 0;
    size_t size = (size_t)length;
    if (text[size - 1] == '\n') size--;
    lua_pushlstring(L, text, size);
    return 1;
}

/* Nobody else may read what was typed. */
static void save_history(const editor *self) {
    int fd = open(self->history_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL) {
        if (fd >= 0) close(fd);
        return; /* a history that cannot be kept stops nobody */
    }
    HistEvent event;
    history(self->history, &event, H_SAVE_FP, file);
    fclose(file);
}

static int editor_remember(lua_State *L) {
    editor *self = check_editor(L);
    HistEvent event;
    history(self->history, &event, H_ENTER, luaL_checkstring(L, 2));
    if (self->history_path != NULL) save_history(self);
    return 0;
}

/* --- calls --- */

/* Message handler: message -> { message, traceback } */
static int describe(lua_State *L) {
    lua_createtable(L, 2, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    luaL_traceback(L, L, NULL, 1);
    lua_rawseti(L, -2, 2);
    return 1;
}

static int terminal_call(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    fpc_cli_signals_begin_call(true);
    lua_pushcfunction(L, describe);
    lua_insert(L, 1);
    int code = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 1);
    bool interrupted = fpc_cli_signals_end_call(L);
    if (code == LUA_OK) {
        lua_pushboolean(L, 1);
        lua_replace(L, 1);
        return lua_gettop(L);
    }
    lua_pushboolean(L, 0);
    if (lua_istable(L, -2)) {
        lua_rawgeti(L, -2, 1);
        lua_rawgeti(L, -3, 2);
    } else { /* out of memory, or an error in the handler */
        lua_pushvalue(L, -2);
        lua_pushliteral(L, "");
    }
    lua_pushboolean(L, interrupted);
    return 4;
}

int fpc_cli_open_terminal(lua_State *L) {
    static const luaL_Reg methods[] = {{"read", editor_read}, {"remember", editor_remember}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"editor", terminal_editor}, {"call", terminal_call}, {NULL, NULL}};
    fpc_lua_new_type(L, EDITOR_TYPE, methods, editor_close);
    luaL_newlib(L, functions);
    lua_pushliteral(L, FPC_LIBEDIT_VERSION);
    lua_setfield(L, -2, "libedit_version");
    return 1;
}

/* analyzer.h -- read before every file by clang-tidy, never by a compiler: what the analyser cannot know. */
struct lua_State;

/* These raise a Lua error: they never return. */
int lua_error(struct lua_State *L) __attribute__((analyzer_noreturn));
int luaL_error(struct lua_State *L, const char *format, ...) __attribute__((analyzer_noreturn));
int luaL_argerror(struct lua_State *L, int arg, const char *message) __attribute__((analyzer_noreturn));

/* types.h -- the binding's table of contents: one register function per Lua type.
 *
 * Each expects the module table on top of the stack, makes its metatable once per Lua state,
 * and adds its constructor or functions to the module table.  The stack is left as it was.
 * Bindings marshal and never decide; failures come back as nil, "code: message". */
#ifndef FPC_LUA_TYPES_H
#define FPC_LUA_TYPES_H

#include "compat.h"
#include "fpcache/error.h"

#include <stdatomic.h>

void fpc_lua_register_statement(lua_State *L);   /* statement(sql, types, is_read_only, is_slow, ...) */
void fpc_lua_register_batch(lua_State *L);       /* batch() */
void fpc_lua_register_pool(lua_State *L);        /* pool(connection_string, settings, defaults, options) */
void fpc_lua_register_conn(lua_State *L);        /* made by pool:acquire() */
void fpc_lua_register_pin(lua_State *L);         /* pin(pool, idle_seconds) */
void fpc_lua_register_completions(lua_State *L); /* completions(max_outstanding), bell(), fork_generation() */
void fpc_lua_register_feed(lua_State *L);        /* feed(pool, options), feed_seed(namespace) */
void fpc_lua_register_terms(lua_State *L);       /* terms(feed) */
void fpc_lua_register_key(lua_State *L);         /* shorten_key(key), disguise_key(secret, key) */
void fpc_lua_register_filter(lua_State *L);      /* filter(), filter_load(), filter_type, filter_ffi */
void fpc_lua_register_versions(lua_State *L);    /* versions() */
void fpc_lua_register_interrupt(lua_State *L);   /* interrupted() */
void fpc_lua_register_int64(lua_State *L);       /* int64(value), int64_add(a, b), int64_negate(a) */
void fpc_lua_register_json(lua_State *L);        /* null, array marks, json_encode(), json_decode() */
void fpc_lua_register_value(lua_State *L);       /* value_encode, value_decode */
void fpc_lua_register_file_lock(lua_State *L);   /* lock(path, timeout, shared) */
void fpc_lua_register_process(lua_State *L);     /* run(), spawn() */
void fpc_lua_register_download(lua_State *L);    /* downloads(options) */
void fpc_lua_register_process_wide(lua_State *L); /* is_first_state(), process_note(), isyieldable() */
void fpc_lua_register_system(lua_State *L);       /* system.* */
void fpc_lua_register_token(lua_State *L);        /* token_keeper(kind, settings) */
void fpc_lua_register_source(lua_State *L);       /* token_source(kind, settings) */
void fpc_lua_register_seal(lua_State *L);         /* seal(options) */

/* Pushes nil and "code: message" and returns 2, for `return fpc_lua_failure(L, &err);`. */
int fpc_lua_failure(lua_State *L, const fpc_error *err);

/* Makes the metatable of a userdata type: `methods` in __index, `close` as __gc, __close and the method
 * "close".  `close` must be repeatable. */
void fpc_lua_new_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction close);

/* How many pools, connections and batches are open; specs check that it returns to 0. */
extern atomic_int fpc_lua_open_objects;

/* The feed of the userdata at `index`, NULL when it is closed; raises if it is none. */
struct fpc_feed **fpc_lua_check_feed(lua_State *L, int index);

/* The open file of the lock userdata at `index`; raises if it is none or closed. */
int fpc_lua_lock_fd(lua_State *L, int index);

#endif

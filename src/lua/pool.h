/* pool.h -- a pool shared by its Lua object and the connections lent from it. */
#ifndef FPC_LUA_POOL_H
#define FPC_LUA_POOL_H

#include "fpcache/pipeline.h"
#include "fpcache/pool.h"
#include "token.h"

#include <stdatomic.h>

struct fpc_lua_pool_family;

/* Lives until the last of them is closed or collected. */
typedef struct fpc_lua_shared_pool {
    fpc_pool *pool;
    fpc_pipeline *pipeline; /* to the same server, for those who do not wait */
    fpc_lua_keeper *token;  /* NULL: none, or the pool was closed */
    atomic_int references;  /* of a family's: taken and dropped under its lock, or while one is held */
    struct fpc_lua_pool_family *family; /* NULL: of one Lua state */
} fpc_lua_shared_pool;

void fpc_lua_shared_pool_drop(fpc_lua_shared_pool *shared);

/* What the pool userdata at `index` connects to, or NULL when it is closed; raises if it is no pool. */
const fpc_conninfo *fpc_lua_check_pool_conninfo(lua_State *L, int index);

/* The pool of the userdata at `index`, for a caller who makes it connect: a password function is called
 * before.  NULL when it is closed; raises if it is no pool. */
fpc_pool *fpc_lua_check_pool_to_connect(lua_State *L, int index);

#define FPC_LUA_MAX_SQL_PARAMS 64

/* Text for the parameters of a caller's own SQL, the arguments from `first` on; at most
 * FPC_LUA_MAX_SQL_PARAMS, or it raises.  Leaves strings on the stack that keep the texts alive.  Returns how
 * many. */
int fpc_lua_text_params(lua_State *L, int first, const char **values);

/* Pushes the Lua object of a lent connection, closed as yet. */
typedef struct fpc_lua_conn {
    fpc_conn *conn; /* NULL: closed */
    fpc_lua_shared_pool *shared;
} fpc_lua_conn;

fpc_lua_conn *fpc_lua_new_conn(lua_State *L);

#endif

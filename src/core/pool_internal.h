/* pool_internal.h -- what pins (see pin.h) need of a pool.  Inside the core only. */
#ifndef FPC_POOL_INTERNAL_H
#define FPC_POOL_INTERNAL_H

#include "fpcache/pool.h"

/* A reference, so that a pool lives on although its owner deleted it; dropped by any thread. */
void fpc_pool_keep(fpc_pool *pool);
void fpc_pool_drop(fpc_pool *pool);

/* Counts one pin more: FPC_BUSY when there are as many as connections, FPC_CLOSED. */
fpc_status fpc_pool_pin(fpc_pool *pool, fpc_error *err);
void fpc_pool_unpin(fpc_pool *pool);

#endif

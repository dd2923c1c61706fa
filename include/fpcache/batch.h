/* batch.h -- the rows of one bulk write.
 *
 * Rows are collected, then sorted by key (so that two bulk writes lock rows in the same order and
 * cannot deadlock) with the last of equal keys kept (one statement may write a row once).
 * Owner: the caller.  Thread rule: one thread at a time. */
#ifndef FPCACHE_BATCH_H
#define FPCACHE_BATCH_H

#include "fpcache/error.h"
#include "fpcache/key.h"
#include "fpcache/params.h"

typedef struct fpc_batch fpc_batch;

#define FPC_BATCH_PARAMS 5 /* keys, long keys, values, formats, ttls */

fpc_batch *fpc_batch_new(void);          /* NULL when out of memory */
void fpc_batch_delete(fpc_batch *batch); /* NULL is allowed */
void fpc_batch_clear(fpc_batch *batch);  /* keeps the memory */

/* Copies one row.  `ttl_s` in seconds; infinite means no expiry.  FPC_INVALID for more than 1 GB. */
fpc_status fpc_batch_add(fpc_batch *batch, const char *key, size_t key_length, const char *value,
                         size_t value_length, char format, double ttl_s, fpc_error *err);
size_t fpc_batch_rows(const fpc_batch *batch);  /* as added */
size_t fpc_batch_bytes(const fpc_batch *batch); /* keys and values */

/* The stored key (see key.h) of row `index`, as bytes of the batch or in `scratch`; NULL when memory ran out.
 */
const char *fpc_batch_stored_key(const fpc_batch *batch, size_t index, char scratch[FPC_KEY_STORED_MAX],
                                 size_t *length);

/* Sorts the rows and builds the arrays ahead of time, for instance while the server is busy.
 * FPC_NOMEM. */
fpc_status fpc_batch_seal(fpc_batch *batch, fpc_error *err);

/* Appends the five arrays bytea[], bytea[], bytea[], "char"[], float8[].  They belong to the batch and live
 * until it changes.  A batch that is not sealed is sealed first.  A long key: see key.h; an infinite ttl is
 * NULL.  FPC_NOMEM. */
fpc_status fpc_batch_params(fpc_batch *batch, fpc_params *params, fpc_error *err);

#endif

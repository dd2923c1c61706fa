/* feed_keys.h -- the keys of a feed row: a bytea[] as the server sends it in binary.
 *
 * The bytes come from the network and are believed in nothing: every length is checked.
 * Thread rule: one thread at a time for each walk. */
#ifndef FPC_FEED_KEYS_H
#define FPC_FEED_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fpc_feed_keys {
    const char *at, *end;
    uint32_t left; /* elements not yet walked over */
} fpc_feed_keys;

/* Begins a walk; false when the bytes are no one-dimensional bytea[]. */
bool fpc_feed_keys_begin(fpc_feed_keys *keys, const char *bytes, size_t length);

typedef enum fpc_feed_keys_step {
    FPC_FEED_KEYS_END,
    FPC_FEED_KEYS_KEY,
    FPC_FEED_KEYS_BAD
} fpc_feed_keys_step;

/* The next key, which lies inside the bytes.  NULL elements are passed over.  BAD: an element reaches beyond
 * the end, or bytes are left over after the last one. */
fpc_feed_keys_step fpc_feed_keys_next(fpc_feed_keys *keys, const char **key, size_t *length);

#endif

/* feed_keys.c -- a walk over a binary bytea[].
 *
 * Dimensions, has-null flag, element type; then, unless it has no dimension, count and lower bound; then for
 * each element its length (-1 for NULL) and its bytes.  All words have 32 bits. */
#include "feed_keys.h"
#include "fpcache/params.h"

bool fpc_feed_keys_begin(fpc_feed_keys *keys, const char *bytes, size_t length) {
    *keys = (fpc_feed_keys){.at = bytes, .end = bytes + length};
    if (length < 12 || fpc_load_be32(bytes + 8) != FPC_OID_BYTEA) return false;
    uint32_t dimensions = fpc_load_be32(bytes);
    if (dimensions == 0) {
        keys->at = bytes + 12;
        return length == 12;
    }
    if (dimensions != 1 || length < 20) return false;
    keys->left = fpc_load_be32(bytes + 12);
    keys->at = bytes + 20;
    return true;
}

fpc_feed_keys_step fpc_feed_keys_next(fpc_feed_keys *keys, const char **key, size_t *length) {
    while (keys->left > 0) {
        size_t room = (size_t)(keys->end - keys->at);
        if (room < 4) return FPC_FEED_KEYS_BAD;
        uint32_t size = fpc_load_be32(keys->at);
        keys->at += 4;
        keys->left--;
        if (size == UINT32_MAX) continue; /* NULL */
        if (size > room - 4) return FPC_FEED_KEYS_BAD;
        *key = keys->at;
        *length = size;
        keys->at += size;
        return FPC_FEED_KEYS_KEY;
    }
    return keys->at == keys->end ? FPC_FEED_KEYS_END : FPC_FEED_KEYS_BAD;
}

/* fuzz_feed_keys.c -- any bytes as the keys of a feed row: every key lies inside them, in order and without
 * overlap, and the walk ends. */
#include "feed_keys.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    char *bytes =
        malloc(size == 0 ? 1 : size); /* of exactly this size: reading on is seen by the sanitizer */
    if (bytes == NULL) return 0;
    memcpy(bytes, data, size);
    fpc_feed_keys keys;
    if (fpc_feed_keys_begin(&keys, bytes, size)) {
        const char *key, *last = bytes;
        size_t length;
        volatile char sum = 0;
        while (fpc_feed_keys_next(&keys, &key, &length) == FPC_FEED_KEYS_KEY) {
            if (key < last || length > (size_t)(bytes + size - key)) abort();
            for (size_t i = 0; i < length; i++) sum = (char)(sum + key[i]);
            last = key + length;
        }
    }
    free(bytes);
    return 0;
}

/* fuzz_filter_load.c -- load() of any bytes: an error, or a filter that works; never a crash or an over-read.
 * The input is tried as it is, and once more with the first bytes and the checksum made right, so that
 * the checks behind them are reached. */
#include "fpcache/filter.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(fpc_filter *filter) {
    fpc_filter_stats stats;
    fpc_filter_get_stats(filter, &stats);
    for (uint64_t i = 0; i < 50; i++) fpc_filter_contains_hash(filter, i);
    for (uint64_t i = 0; i < 50; i++) {
        if (fpc_filter_add_hash(filter, i) == FPC_OK && !fpc_filter_contains_hash(filter, i)) abort();
    }
    for (uint64_t i = 0; i < 50; i++) fpc_filter_remove_hash(filter, i);
    size_t len = fpc_filter_save_size(filter);
    void *bytes = malloc(len);
    fpc_filter *again;
    fpc_filter_save(filter, bytes);
    if (fpc_filter_load(bytes, len, &again, NULL) != FPC_OK) abort();
    fpc_filter_delete(again);
    free(bytes);
}

static void try_bytes(const uint8_t *bytes, size_t size) {
    fpc_filter *filter;
    fpc_error err;
    if (fpc_filter_load(bytes, size, &filter, &err) != FPC_OK) {
        if (filter != NULL) abort();
        return;
    }
    use(filter);
    fpc_filter_delete(filter);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    try_bytes(data, size);
    if (size < 64) return 0;
    uint8_t *sealed = malloc(size);
    memcpy(sealed, data, size);
    memcpy(sealed, "fpcuckoo\2\0\0\0", 12);
    sealed[13] &= 1;
    sealed[14] &= 1; /* compact: a version of its own, and fewer bits */
    sealed[8] = 2 + sealed[14];
    sealed[12] = (uint8_t)(6 + sealed[12] % (sealed[14] ? 10 : 23));
    sealed[15] = 0;
    memset(sealed + 18, 0, 6); /* a capacity that these bytes can hold */
    sealed[17] &= 3;
    memset(sealed + 49, 0, 7);
    uint64_t sum = XXH3_64bits(sealed, size - 8);
    for (int i = 0; i < 8; i++) sealed[size - 8 + (size_t)i] = (uint8_t)(sum >> (8 * i));
    try_bytes(sealed, size);
    free(sealed);
    return 0;
}

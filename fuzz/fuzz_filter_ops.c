/* fuzz_filter_ops.c -- a stream of operations against a count of each key: nothing held may be denied. */
#include "fpcache/filter.h"

#include <stdlib.h>
#include <string.h>

#define KEYS 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static fpc_filter *filter;
static uint32_t copies[KEYS];
static uint64_t held;

static void expect(bool truth) {
    if (!truth) abort();
}

static void check_all(void) {
    uint64_t hashes[KEYS];
    bool found[KEYS];
    for (uint64_t key = 0; key < KEYS; key++) {
        hashes[key] = key;
        if (copies[key] > 0) expect(fpc_filter_contains_hash(filter, key));
    }
    fpc_filter_contains_hash_many(filter, hashes, KEYS, found);
    for (uint64_t key = 0; key < KEYS; key++) expect(found[key] == fpc_filter_contains_hash(filter, key));
    fpc_filter_stats stats;
    fpc_filter_get_stats(filter, &stats);
    expect(stats.size == held && stats.size <= stats.capacity);
}

static void add(uint8_t key, bool grow, uint64_t capacity) {
    fpc_status status = fpc_filter_add_hash(filter, key);
    expect(status == FPC_OK || (status == FPC_FULL && (held >= capacity || grow)));
    if (status != FPC_OK) return;
    copies[key]++;
    held++;
}

static void take_away(uint8_t key) {
    if (copies[key] == 0) return; /* undefined */
    expect(fpc_filter_remove_hash(filter, key));
    copies[key]--;
    held--;
}

static void save_and_load(void) {
    size_t len = fpc_filter_save_size(filter);
    void *bytes = malloc(len);
    fpc_filter_save(filter, bytes);
    fpc_filter_delete(filter);
    expect(fpc_filter_load(bytes, len, &filter, NULL) == FPC_OK);
    free(bytes);
}

static void unite_with_copy(void) {
    fpc_filter *copy;
    expect(fpc_filter_copy(filter, &copy, NULL) == FPC_OK);
    if (held < 100000 && fpc_filter_union(filter, copy, NULL) == FPC_OK) {
        for (int key = 0; key < KEYS; key++) copies[key] *= 2;
        held *= 2;
    }
    fpc_filter_delete(copy);
}

static void replace_by_copy(void) {
    fpc_filter *copy;
    expect(fpc_filter_copy(filter, &copy, NULL) == FPC_OK);
    fpc_filter_delete(filter);
    filter = copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint64_t seed[2] = {0, 0};
    if (size < 4) return 0;
    fpc_filter_options options = {.capacity = 1 + data[0],
                                  .fingerprint_bits = FPC_FILTER_MIN_BITS + data[1] % 23,
                                  .grow = (data[2] & 1) != 0,
                                  .compact = (data[2] & 2) != 0,
                                  .seed = seed};
    if (options.compact) options.fingerprint_bits = FPC_FILTER_MIN_BITS + data[1] % 10;
    seed[0] = data[3];
    expect(fpc_filter_new(&options, &filter, NULL) == FPC_OK);
    memset(copies, 0, sizeof copies);
    held = 0;
    for (size_t i = 4; i + 1 < size; i += 2) {
        switch (data[i] % 16) {
        case 9:
        case 10:
        case 11:
        case 12: take_away(data[i + 1]); break;
        case 13:
            if (data[i + 1] < 16) save_and_load();
            if (data[i + 1] > 250) replace_by_copy();
            break;
        case 14:
            if (data[i + 1] < 4) unite_with_copy();
            break;
        case 15:
            if (data[i + 1] != 0) break;
            fpc_filter_clear(filter);
            memset(copies, 0, sizeof copies);
            held = 0;
            break;
        default: add(data[i + 1], options.grow, options.capacity); break;
        }
    }
    check_all();
    fpc_filter_delete(filter);
    return 0;
}

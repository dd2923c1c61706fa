/* sides_fpc.c -- our filter as one side of the comparison. */
#include "fpcache/filter.h"
#include "sides.h"

#define BATCH 1024

static void *make_filter(int bits, size_t capacity, bool compact) {
    fpc_filter_options options = {
        .capacity = capacity, .fingerprint_bits = (unsigned)bits, .compact = compact};
    fpc_filter *filter;
    fpc_filter_new(&options, &filter, NULL);
    return filter;
}

static void *make(int shape, size_t capacity) {
    return make_filter(shape, capacity, false);
}

static void *make_compact(int shape, size_t capacity) {
    return make_filter(shape, capacity, true);
}

/* Room for more keys, in as many bytes as buckets of four, a power of two of them, need for `capacity` keys
 * with one bit more a slot. */
static void *make_as_large(int shape, size_t capacity) {
    size_t slots = 4;
    while ((double)capacity / (double)slots > 0.96) slots *= 2;
    fpc_filter *one = make(shape, capacity);
    fpc_filter_stats stats;
    fpc_filter_get_stats(one, &stats);
    double more = (double)slots * (shape + 1) / ((double)stats.slots * shape);
    fpc_filter_delete(one);
    return make(shape, (size_t)((double)capacity * more));
}

static size_t add_one(void *filter, const uint64_t *keys, size_t count) {
    size_t done = 0;
    for (size_t i = 0; i < count; i++) done += fpc_filter_add_hash(filter, keys[i]) == FPC_OK;
    return done;
}

static size_t find_one(void *filter, const uint64_t *keys, size_t count) {
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) hits += fpc_filter_contains_hash(filter, keys[i]);
    return hits;
}

static size_t add_many(void *filter, const uint64_t *keys, size_t count) {
    return fpc_filter_add_hash_many(filter, keys, count, NULL);
}

static size_t find_many(void *filter, const uint64_t *keys, size_t count) {
    bool found[BATCH];
    size_t hits = 0;
    for (size_t at = 0; at < count; at += BATCH) {
        size_t n = count - at < BATCH ? count - at : BATCH;
        hits += fpc_filter_contains_hash_many(filter, keys + at, n, found);
    }
    return hits;
}

static uint64_t bytes(void *filter) {
    fpc_filter_stats stats;
    fpc_filter_get_stats(filter, &stats);
    return stats.bytes;
}

static void clear(void *filter) {
    fpc_filter_clear(filter);
}

static void release(void *filter) {
    fpc_filter_delete(filter);
}

const side SIDE_ONE = {"fpcache", 0, make, add_one, find_one, bytes, clear, release};
const side SIDE_AS_LARGE = {"batch, as large", 0, make_as_large, add_many, find_many, bytes, clear, release};
const side SIDE_COMPACT_ONE = {"compact", 0, make_compact, add_one, find_one, bytes, clear, release};
const side SIDE_COMPACT_MANY = {"compact batch", 0, make_compact, add_many, find_many, bytes, clear, release};
const side SIDE_MANY = {"fpcache batch", 0, make, add_many, find_many, bytes, clear, release};

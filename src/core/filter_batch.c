/* filter_batch.c -- many keys at once: hash a batch, start all its memory accesses, then look. */
#include "filter_internal.h"

size_t fpc_filter_contains_batch(const fpc_filter *f, const uint64_t *mixed, size_t count, bool *found) {
    size_t hits = 0;
    const fpc_table *first = f->tables[0];
    for (size_t i = 0; i < count; i++) fpc_table_prefetch(first, fpc_table_print(first, mixed[i]));
    for (size_t i = 0; i < count; i++) {
        found[i] = fpc_filter_contains_mixed(f, mixed[i]);
        hits += found[i];
    }
    return hits;
}

static size_t batch_of(size_t left) {
    return left < FPC_FILTER_BATCH ? left : FPC_FILTER_BATCH;
}

size_t fpc_filter_contains_many(const fpc_filter *f, const void *const *keys, const size_t *lens,
                                size_t count, bool *found) {
    uint64_t mixed[FPC_FILTER_BATCH];
    size_t hits = 0;
    for (size_t at = 0, n; at < count; at += n) {
        n = batch_of(count - at);
        for (size_t i = 0; i < n; i++)
            mixed[i] = fpc_filter_hash_bytes(&f->hasher, keys[at + i], lens[at + i]);
        hits += fpc_filter_contains_batch(f, mixed, n, found + at);
    }
    return hits;
}

size_t fpc_filter_contains_hash_many(const fpc_filter *f, const uint64_t *hashes, size_t count, bool *found) {
    uint64_t mixed[FPC_FILTER_BATCH];
    size_t hits = 0;
    for (size_t at = 0, n; at < count; at += n) {
        n = batch_of(count - at);
        for (size_t i = 0; i < n; i++) mixed[i] = fpc_filter_hash_word(&f->hasher, hashes[at + i]);
        hits += fpc_filter_contains_batch(f, mixed, n, found + at);
    }
    return hits;
}

/* How many of the batch were added. */
static size_t add_batch(fpc_filter *f, const uint64_t *mixed, size_t count, fpc_status *status) {
    const fpc_table *newest = f->tables[fpc_filter_tables(f) - 1];
    for (size_t i = 0; i < count; i++) fpc_table_prefetch(newest, fpc_table_print(newest, mixed[i]));
    for (size_t i = 0; i < count; i++) {
        *status = fpc_filter_add_mixed(f, mixed[i]);
        if (*status != FPC_OK) return i;
    }
    return count;
}

size_t fpc_filter_add_many(fpc_filter *f, const void *const *keys, const size_t *lens, size_t count,
                           fpc_status *status) {
    uint64_t mixed[FPC_FILTER_BATCH];
    fpc_status last = FPC_OK;
    size_t at = 0;
    while (at < count && last == FPC_OK) {
        size_t n = batch_of(count - at);
        for (size_t i = 0; i < n; i++)
            mixed[i] = fpc_filter_hash_bytes(&f->hasher, keys[at + i], lens[at + i]);
        at += add_batch(f, mixed, n, &last);
    }
    if (status != NULL) *status = last;
    return at;
}

size_t fpc_filter_add_hash_many(fpc_filter *f, const uint64_t *hashes, size_t count, fpc_status *status) {
    uint64_t mixed[FPC_FILTER_BATCH];
    fpc_status last = FPC_OK;
    size_t at = 0;
    while (at < count && last == FPC_OK) {
        size_t n = batch_of(count - at);
        for (size_t i = 0; i < n; i++) mixed[i] = fpc_filter_hash_word(&f->hasher, hashes[at + i]);
        at += add_batch(f, mixed, n, &last);
    }
    if (status != NULL) *status = last;
    return at;
}

/* filter_batch.c -- many keys at once: hash a batch, start all its memory accesses, then look. */
#include "filter_internal.h"
#include "filter_simd.h"

#define BATCH 64 /* keys whose memory accesses are under way together */

static void has_batch(const fpc_table *t, const uint64_t *mixed, size_t count, bool *found) {
    size_t done = fpc_simd_has(t, mixed, count, found);
    for (size_t i = done; i < count && fpc_table_is_large(t); i++)
        fpc_table_prefetch(t, fpc_table_print(t, mixed[i]));
    for (size_t i = done; i < count; i++) found[i] = fpc_table_has(t, mixed[i]);
}

/* Asks the tables but the first for what was not found there. */
static void has_in_grown(const fpc_filter *f, const uint64_t *mixed, size_t count, bool *found) {
    unsigned tables = fpc_filter_tables(f);
    for (unsigned table = 1; table < tables; table++) {
        bool more[BATCH];
        has_batch(f->tables[table], mixed, count, more);
        for (size_t i = 0; i < count; i++) found[i] |= more[i];
    }
}

static size_t contains_batch(const fpc_filter *f, const uint64_t *mixed, size_t count, bool *found) {
    size_t hits = 0;
    has_batch(f->tables[0], mixed, count, found);
    if (fpc_filter_tables(f) > 1) has_in_grown(f, mixed, count, found);
    for (size_t i = 0; i < count; i++) hits += found[i];
    return hits;
}

static size_t batch_of(size_t left) {
    return left < BATCH ? left : BATCH;
}

size_t fpc_filter_contains_many(const fpc_filter *f, const void *const *keys, const size_t *lens,
                                size_t count, bool *found) {
    uint64_t mixed[BATCH];
    size_t hits = 0;
    for (size_t at = 0, n; at < count; at += n) {
        n = batch_of(count - at);
        for (size_t i = 0; i < n; i++)
            mixed[i] = fpc_filter_hash_bytes(&f->hasher, keys[at + i], lens[at + i]);
        hits += contains_batch(f, mixed, n, found + at);
    }
    return hits;
}

static void hash_words(const fpc_filter *f, const uint64_t *hashes, size_t count, uint64_t *restrict mixed) {
    for (size_t i = 0; i < count; i++) mixed[i] = fpc_filter_hash_word(&f->hasher, hashes[i]);
}

size_t fpc_filter_contains_hash_many(const fpc_filter *f, const uint64_t *hashes, size_t count, bool *found) {
    uint64_t mixed[BATCH];
    size_t hits = 0;
    for (size_t at = 0, n; at < count; at += n) {
        n = batch_of(count - at);
        hash_words(f, hashes + at, n, mixed);
        hits += contains_batch(f, mixed, n, found + at);
    }
    return hits;
}

/* How many of the batch were added. */
static size_t add_batch(fpc_filter *f, const uint64_t *mixed, size_t count, fpc_status *status) {
    const fpc_table *newest = f->tables[fpc_filter_tables(f) - 1];
    for (size_t i = 0; i < count && fpc_table_is_large(newest); i++) {
        fpc_table_prefetch(newest, fpc_table_print(newest, mixed[i]));
    }
    for (size_t i = 0; i < count; i++) {
        *status = fpc_filter_add_mixed(f, mixed[i]);
        if (*status != FPC_OK) return i;
    }
    return count;
}

size_t fpc_filter_add_many(fpc_filter *f, const void *const *keys, const size_t *lens, size_t count,
                           fpc_status *status) {
    uint64_t mixed[BATCH];
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
    uint64_t mixed[BATCH];
    fpc_status last = FPC_OK;
    size_t at = 0;
    while (at < count && last == FPC_OK) {
        size_t n = batch_of(count - at);
        hash_words(f, hashes + at, n, mixed);
        at += add_batch(f, mixed, n, &last);
    }
    if (status != NULL) *status = last;
    return at;
}

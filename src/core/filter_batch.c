/* filter_batch.c -- many keys at once: hash a batch, start all its memory accesses, then look or add. */
#include "filter_internal.h"
#include "filter_simd.h"

static void match_in(const fpc_filter *f, unsigned table, const uint64_t *mixed, size_t count, bool *found) {
    const fpc_simd_way *way = fpc_simd(0);
    (f->shape.compact ? way->has_compact : way->has)(f->tables[table], mixed, count, found);
}

static void match_in_grown(const fpc_filter *f, unsigned tables, const uint64_t *mixed, size_t count,
                           bool *found) {
    for (unsigned table = 1; table < tables; table++) {
        bool more[FPC_BATCH];
        match_in(f, table, mixed, count, more);
        for (size_t i = 0; i < count; i++) found[i] |= more[i];
    }
}

static bool any_stash(const fpc_filter *f, unsigned tables) {
    unsigned any = 0;
    for (unsigned i = 0; i < tables; i++) any |= fpc_table_elsewhere(f->tables[i]) & FPC_IN_STASH;
    return any != 0;
}

/* One pair of looks at the versions for all keys of the batch (filter_table.h); where it does not do, those
 * that were not found are asked one by one. */
static size_t contains_batch(const fpc_filter *f, const uint64_t *mixed, size_t count, bool *found) {
    size_t hits = 0;
    unsigned tables = fpc_filter_tables(f);
    uint64_t before = fpc_filter_versions(f, tables);
    bool stash = any_stash(f, tables);
    match_in(f, 0, mixed, count, found);
    match_in_grown(f, tables, mixed, count, found);
    bool changed = fpc_filter_changed(before, fpc_filter_versions(f, tables));
    if (__builtin_expect(changed || stash || any_stash(f, tables), 0)) {
        for (size_t i = 0; i < count; i++) found[i] = found[i] || fpc_filter_contains_mixed(f, mixed[i]);
    }
    for (size_t i = 0; i < count; i++) hits += found[i];
    return hits;
}

static size_t batch_of(size_t left) {
    return left < FPC_BATCH ? left : FPC_BATCH;
}

size_t fpc_filter_contains_many(const fpc_filter *f, const void *const *keys, const size_t *lens,
                                size_t count, bool *found) {
    uint64_t mixed[FPC_BATCH];
    size_t hits = 0;
    for (size_t at = 0, n; at < count; at += n) {
        n = batch_of(count - at);
        for (size_t i = 0; i < n; i++)
            mixed[i] = fpc_filter_hash_bytes(&f->hasher, keys[at + i], lens[at + i]);
        hits += contains_batch(f, mixed, n, found + at);
    }
    return hits;
}

/* The hashes after a batch, while the batch is worked on: they come in bursts, which the processor's own way
 * of fetching ahead does not follow.  Past the last one is allowed: callers with more go on there. */
static void prefetch_next(const uint64_t *hashes) {
    for (size_t line = 0; line < FPC_BATCH * sizeof *hashes; line += 64) {
        __builtin_prefetch((const void *)((uintptr_t)(hashes + FPC_BATCH) + line));
    }
}

size_t fpc_filter_contains_hash_many(const fpc_filter *f, const uint64_t *hashes, size_t count, bool *found) {
    uint64_t mixed[FPC_BATCH];
    size_t hits = 0;
    for (size_t at = 0, n; at < count; at += n) {
        n = batch_of(count - at);
        prefetch_next(hashes + at);
        fpc_simd(0)->hash(&f->hasher, hashes + at, n, mixed);
        hits += contains_batch(f, mixed, n, found + at);
    }
    return hits;
}

/* How many of the batch were added: by prints made together while there is one table with room, then one by
 * one. */
static size_t add_batch(fpc_filter *f, const uint64_t *mixed, size_t count, fpc_status *status) {
    fpc_table *only = f->tables[0];
    fpc_print prints[FPC_BATCH];
    size_t done = 0;
    if (fpc_filter_tables(f) == 1) {
        fpc_simd(0)->prints(only, mixed, count, prints);
        while (done < count && fpc_table_add_print(only, prints[done]) == FPC_ROOM_OK) done++;
    }
    for (; done < count; done++) {
        *status = fpc_filter_add_mixed(f, mixed[done]);
        if (*status != FPC_OK) return done;
    }
    return count;
}

size_t fpc_filter_add_many(fpc_filter *f, const void *const *keys, const size_t *lens, size_t count,
                           fpc_status *status) {
    uint64_t mixed[FPC_BATCH];
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
    uint64_t mixed[FPC_BATCH];
    fpc_status last = FPC_OK;
    size_t at = 0;
    while (at < count && last == FPC_OK) {
        size_t n = batch_of(count - at);
        prefetch_next(hashes + at);
        fpc_simd(0)->hash(&f->hasher, hashes + at, n, mixed);
        at += add_batch(f, mixed, n, &last);
    }
    if (status != NULL) *status = last;
    return at;
}

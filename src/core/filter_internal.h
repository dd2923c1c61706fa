/* filter_internal.h -- the inside of an fpc_filter, for the filter*.c files. */
#ifndef FPC_FILTER_INTERNAL_H
#define FPC_FILTER_INTERNAL_H

#include "filter_hash.h"
#include "filter_slots.h"
#include "fpcache/filter.h"

#define FPC_FILTER_MAX_TABLES 64

/* The lookup of one key, for the processor at hand. */
typedef struct fpc_filter_finder {
    bool (*bytes)(const fpc_filter *filter, const void *key, size_t len);
    bool (*hash)(const fpc_filter *filter, uint64_t hash);
} fpc_filter_finder;

/* The ways that this processor can go in a first table of `shape`, the fastest first; NULL for an `n` past
 * the last.  0 always exists. */
const fpc_filter_finder *fpc_filter_finders(const fpc_table_shape *shape, unsigned n);

/* Whether the bits of the windows of a first table can be numbered with 32 bits, which finders are quickest
 * with: up to some 390 million keys. */
static inline bool fpc_filter_leaps(const fpc_table_shape *shape) {
    return fpc_table_words(shape, 0) < UINT64_C(1) << 26;
}

/* The tables of a filter.  The first has level 0; growth adds one of the next level.  Tables are
 * only added, so a reader may keep what it saw. */
struct fpc_filter { // NOLINT(clang-analyzer-optin.performance.Padding): the padding keeps lines apart
    /* -- fixed at creation -- */
    fpc_filter_finder find;
    fpc_filter_hasher hasher;
    fpc_table_shape shape;
    bool grow;
    /* -- published by table_count -- */
    fpc_table *tables[FPC_FILTER_MAX_TABLES];
    _Atomic unsigned table_count;
    _Alignas(64) _Atomic uint64_t full_adds; /* the writer's line */
    /* -- fixed when the first table comes: its windows and its reflections in bits, by tag; if they leap --
     */
    _Alignas(64) uint32_t span;
    uint32_t leaps[];
};

static inline unsigned fpc_filter_tables(const fpc_filter *filter) {
    fpc_filter_step();
    return atomic_load_explicit(&filter->table_count, memory_order_acquire);
}

/* A filter without tables, or NULL if out of memory; the options were checked. */
fpc_filter *fpc_filter_bare(const fpc_table_shape *shape, bool grow, const uint64_t seed[2]);

/* A new table of `level`, not yet part of the filter; NULL if out of memory or impossible. */
fpc_table *fpc_filter_make_table(const fpc_filter *filter, unsigned level);

/* Makes `table` part of the filter, which frees it one day. */
void fpc_filter_publish_table(fpc_filter *filter, fpc_table *table);

/* The versions of the first `count` tables together: a "no" is true if nothing changed meanwhile and it is
 * even. (There is one writer, so at most one of them is odd.) */
static inline uint64_t fpc_filter_versions(const fpc_filter *filter, unsigned count) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < count; i++) sum += fpc_table_version(filter->tables[i]);
    return sum;
}

static inline bool fpc_filter_changed(uint64_t before, uint64_t after) {
    return ((before ^ after) | (before & 1)) != 0;
}

/* Adds, looks up a hash that went through the hasher. */
fpc_status fpc_filter_add_mixed(fpc_filter *filter, uint64_t mixed);
bool fpc_filter_contains_mixed(const fpc_filter *filter, uint64_t mixed);

#endif

/* filter_stash.h -- the few fingerprints that found no slot in a filter's table.
 *
 * A multiset of ids (never 0, never UINT64_MAX), nearly always empty.  It makes "capacity means
 * capacity" unconditional: many copies of one key, and the rare key whose slots cannot be freed,
 * go here.  Copies are counted, so that a million copies take one cell.
 *
 * Thread rule: one writer; any number of readers of fpc_stash_has().  Arrays that were outgrown
 * are kept until fpc_stash_free(), because a reader may still look at them. */
#ifndef FPC_FILTER_STASH_H
#define FPC_FILTER_STASH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Called before each access that readers and the writer share.  Nothing, except in spec/core/filter_steps.c,
 * which stops one side there while the other goes on. */
#ifdef FPC_FILTER_STEPS
void fpc_filter_step(void);
#else
static inline void fpc_filter_step(void) {
}
#endif

typedef struct fpc_stash_array fpc_stash_array;

typedef struct fpc_stash {
    _Atomic(fpc_stash_array *) array; /* NULL until the first id */
    _Atomic uint32_t live;            /* different ids held; 0: readers need not look */
    _Atomic uint64_t copies;          /* ids held, copies counted */
} fpc_stash;

void fpc_stash_init(fpc_stash *stash);
void fpc_stash_free(fpc_stash *stash);

bool fpc_stash_has(const fpc_stash *stash, uint64_t id);

/* One more copy, or `copies` more; false if out of memory, then nothing changed. */
bool fpc_stash_add(fpc_stash *stash, uint64_t id, uint64_t copies);

/* One copy less; false if there is none. */
bool fpc_stash_remove(fpc_stash *stash, uint64_t id);

static inline uint64_t fpc_stash_copies(const fpc_stash *stash) {
    return atomic_load_explicit(&stash->copies, memory_order_relaxed);
}

void fpc_stash_clear(fpc_stash *stash);

/* The n-th id and its copies, for 0 <= n < fpc_stash_cells(); false for an empty cell. */
size_t fpc_stash_cells(const fpc_stash *stash);
bool fpc_stash_cell(const fpc_stash *stash, size_t n, uint64_t *id, uint64_t *copies);

size_t fpc_stash_bytes(const fpc_stash *stash);

#endif

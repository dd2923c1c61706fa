/* filter_simd.h -- the steps of a lookup for many keys at once.
 *
 * Each step is done for all keys before the next one begins, so that nothing waits for memory, and so that
 * the compiler can do 4 or 8 keys an instruction.  The steps are compiled for AVX2 and for AVX-512 too; what
 * the processor has is chosen at run time.  All ways give the same answers. */
#ifndef FPC_FILTER_SIMD_H
#define FPC_FILTER_SIMD_H

#include "filter_hash.h"
#include "filter_table.h"

#define FPC_BATCH 128 /* most keys of a call */

typedef struct fpc_simd_way {
    const char *name;
    /* What fpc_filter_hash_word() makes of each of `count` hashes. */
    void (*hash)(const fpc_filter_hasher *hasher, const uint64_t *hashes, size_t count, uint64_t *mixed);
    /* Matches `count` mixed hashes against the slots of `table`.  As after fpc_table_match(), the caller asks
     * the stash and compares versions. */
    void (*has)(const fpc_table *table, const uint64_t *mixed, size_t count, bool *found);
    /* The same for a table in the compact layout. */
    void (*has_compact)(const fpc_table *table, const uint64_t *mixed, size_t count, bool *found);
    /* What fpc_table_print() makes of each; their windows are fetched into the nearest cache. */
    void (*prints)(const fpc_table *table, const uint64_t *mixed, size_t count, fpc_print *prints);
} fpc_simd_way;

/* The ways that this processor can go, the fastest first; NULL for an `n` past the last.  0 always exists. */
const fpc_simd_way *fpc_simd(unsigned n);

#endif

/* filter_simd.h -- lookups of several keys per instruction, where the processor can. */
#ifndef FPC_FILTER_SIMD_H
#define FPC_FILTER_SIMD_H

#include "filter_table.h"

/* Looks `count` hashes up in `table` and writes found[] for the first of them, whose number is the result
 * (0 if the processor cannot, or the table is of a rare kind); the caller looks up the rest. */
size_t fpc_simd_has(const fpc_table *table, const uint64_t *hashes, size_t count, bool *found);

#endif

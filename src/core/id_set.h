/* id_set.h -- a small growing set of 64-bit ids, never 0.  Inside the core only; a zeroed one is empty. */
#ifndef FPC_ID_SET_H
#define FPC_ID_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fpc_id_set {
    uint64_t *slots; /* open addressing; 0 is free */
    size_t capacity; /* a power of two, or 0 */
    size_t count;
} fpc_id_set;

bool fpc_id_set_has(const fpc_id_set *set, uint64_t id);
bool fpc_id_set_add(fpc_id_set *set, uint64_t id); /* false when out of memory */
void fpc_id_set_remove(fpc_id_set *set, uint64_t id);
void fpc_id_set_clear(fpc_id_set *set);
void fpc_id_set_destroy(fpc_id_set *set);

#endif

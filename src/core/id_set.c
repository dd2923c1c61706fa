/* id_set.c -- open addressing with linear probing, at most half full.  The ids are hashes already. */
#include "id_set.h"

#include <stdlib.h>
#include <string.h>

static uint64_t *slot_of(const fpc_id_set *set, uint64_t id) {
    size_t i = id & (set->capacity - 1);
    while (set->slots[i] != 0 && set->slots[i] != id) i = (i + 1) & (set->capacity - 1);
    return &set->slots[i];
}

bool fpc_id_set_has(const fpc_id_set *set, uint64_t id) {
    return set->capacity > 0 && *slot_of(set, id) == id;
}

bool fpc_id_set_add(fpc_id_set *set, uint64_t id) {
    if ((set->count + 1) * 2 > set->capacity) {
        fpc_id_set bigger = {.capacity = set->capacity == 0 ? 32 : set->capacity * 2, .count = set->count};
        bigger.slots = calloc(bigger.capacity, sizeof *bigger.slots);
        if (bigger.slots == NULL) return false;
        for (size_t i = 0; i < set->capacity; i++) {
            if (set->slots[i] != 0) *slot_of(&bigger, set->slots[i]) = set->slots[i];
        }
        free(set->slots);
        *set = bigger;
    }
    uint64_t *slot = slot_of(set, id);
    if (*slot == 0) {
        *slot = id;
        set->count++;
    }
    return true;
}

void fpc_id_set_clear(fpc_id_set *set) {
    if (set->capacity > 0) memset(set->slots, 0, set->capacity * sizeof *set->slots);
    set->count = 0;
}

void fpc_id_set_destroy(fpc_id_set *set) {
    free(set->slots);
    memset(set, 0, sizeof *set);
}

void fpc_id_set_remove(fpc_id_set *set, uint64_t id) {
    if (!fpc_id_set_has(set, id)) return;
    size_t hole = (size_t)(slot_of(set, id) - set->slots), mask = set->capacity - 1;
    set->slots[hole] = 0;
    set->count--;
    /* Those behind that the hole would cut off from their place move up. */
    for (size_t i = (hole + 1) & mask; set->slots[i] != 0; i = (i + 1) & mask) {
        uint64_t moved = set->slots[i];
        set->slots[i] = 0;
        *slot_of(set, moved) = moved;
    }
}

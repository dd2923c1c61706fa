/* filter_stash.c -- open addressing with linear probing.
 * Invariant: between an id's home and its cell no cell was ever empty since the id came, and an id
 * never moves inside an array.  So a reader that reaches an empty cell knows the id is absent,
 * without locks.  A removed id leaves a tombstone, which later ids reuse. */
#include "filter_stash.h"

#include <stdlib.h>

#define EMPTY     UINT64_C(0)
#define TOMBSTONE UINT64_MAX
#define MIN_CELLS 16

typedef struct cell {
    _Atomic uint64_t id;
    uint64_t copies; /* the writer's */
} cell;

struct fpc_stash_array {
    fpc_stash_array *outgrown; /* the one before, half as large */
    size_t mask;               /* cells - 1 */
    cell cells[];
};

static size_t home(const fpc_stash_array *array, uint64_t id) {
    return (size_t)((id * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & array->mask;
}

static fpc_stash_array *current(const fpc_stash *stash) {
    return atomic_load_explicit(&stash->array, memory_order_acquire);
}

static uint64_t id_at(const fpc_stash_array *array, size_t at) {
    fpc_filter_step();
    return atomic_load_explicit(&array->cells[at].id, memory_order_acquire);
}

/* The cell of `id`, or NULL; `*spare` (NULL is allowed) gets the first cell it could take. */
static cell *find(fpc_stash_array *array, uint64_t id, cell **spare) {
    size_t at = home(array, id);
    if (spare != NULL) *spare = NULL;
    for (size_t step = 0; step <= array->mask; step++, at = (at + 1) & array->mask) {
        uint64_t here = id_at(array, at);
        if (here == id) return &array->cells[at];
        if (spare != NULL && *spare == NULL && (here == EMPTY || here == TOMBSTONE)) {
            *spare = &array->cells[at];
        }
        if (here == EMPTY) return NULL;
    }
    return NULL;
}

static void set_copies(fpc_stash *stash, uint64_t copies) {
    atomic_store_explicit(&stash->copies, copies, memory_order_relaxed);
}

static void put(cell *into, uint64_t id, uint64_t copies) {
    into->copies = copies;
    fpc_filter_step();
    atomic_store_explicit(&into->id, id, memory_order_release);
}

static fpc_stash_array *larger(const fpc_stash_array *old) {
    size_t count = old == NULL ? MIN_CELLS : 2 * (old->mask + 1);
    fpc_stash_array *array = calloc(1, sizeof *array + count * sizeof(cell));
    if (array == NULL) return NULL;
    array->mask = count - 1;
    for (size_t i = 0; old != NULL && i <= old->mask; i++) {
        uint64_t id = id_at(old, i);
        cell *spare;
        if (id == EMPTY || id == TOMBSTONE) continue;
        find(array, id, &spare);
        put(spare, id, old->cells[i].copies);
    }
    return array;
}

void fpc_stash_init(fpc_stash *stash) {
    atomic_init(&stash->array, NULL);
    atomic_init(&stash->live, 0);
    atomic_init(&stash->copies, 0);
}

void fpc_stash_free(fpc_stash *stash) {
    fpc_stash_array *array = current(stash);
    while (array != NULL) {
        fpc_stash_array *outgrown = array->outgrown;
        free(array);
        array = outgrown;
    }
    fpc_stash_init(stash);
}

bool fpc_stash_has(const fpc_stash *stash, uint64_t id) {
    fpc_stash_array *array = current(stash);
    return array != NULL && find(array, id, NULL) != NULL;
}

bool fpc_stash_add(fpc_stash *stash, uint64_t id, uint64_t copies) {
    fpc_stash_array *array = current(stash);
    cell *spare = NULL;
    cell *held = array == NULL ? NULL : find(array, id, &spare);
    if (held != NULL) {
        held->copies += copies;
    } else {
        uint32_t live = atomic_load_explicit(&stash->live, memory_order_relaxed);
        if (array == NULL || spare == NULL || 2 * (size_t)live > array->mask) { /* no room, or slow */
            fpc_stash_array *next = larger(array);
            if (next == NULL) return false;
            next->outgrown = array;
            atomic_store_explicit(&stash->array, next, memory_order_release);
            find(next, id, &spare);
        }
        put(spare, id, copies);
        atomic_store_explicit(&stash->live, live + 1, memory_order_release);
    }
    set_copies(stash, fpc_stash_copies(stash) + copies);
    return true;
}

bool fpc_stash_remove(fpc_stash *stash, uint64_t id) {
    fpc_stash_array *array = current(stash);
    cell *held = array == NULL ? NULL : find(array, id, NULL);
    if (held == NULL) return false;
    set_copies(stash, fpc_stash_copies(stash) - 1);
    if (--held->copies > 0) return true;
    uint32_t live = atomic_load_explicit(&stash->live, memory_order_relaxed) - 1;
    fpc_filter_step();
    atomic_store_explicit(&held->id, TOMBSTONE, memory_order_release);
    atomic_store_explicit(&stash->live, live, memory_order_release);
    if (live == 0) fpc_stash_clear(stash); /* the tombstones go too */
    return true;
}

void fpc_stash_clear(fpc_stash *stash) {
    fpc_stash_array *array = current(stash);
    atomic_store_explicit(&stash->live, 0, memory_order_release);
    set_copies(stash, 0);
    for (size_t i = 0; array != NULL && i <= array->mask; i++) {
        atomic_store_explicit(&array->cells[i].id, EMPTY, memory_order_release);
    }
}

size_t fpc_stash_cells(const fpc_stash *stash) {
    fpc_stash_array *array = current(stash);
    return array == NULL ? 0 : array->mask + 1;
}

bool fpc_stash_cell(const fpc_stash *stash, size_t n, uint64_t *id, uint64_t *copies) {
    fpc_stash_array *array = current(stash);
    *id = id_at(array, n);
    *copies = array->cells[n].copies;
    return *id != EMPTY && *id != TOMBSTONE;
}

size_t fpc_stash_bytes(const fpc_stash *stash) {
    size_t bytes = 0;
    for (fpc_stash_array *a = current(stash); a != NULL; a = a->outgrown) {
        bytes += sizeof *a + (a->mask + 1) * sizeof(cell);
    }
    return bytes;
}

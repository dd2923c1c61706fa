/* filter_layouts.c -- which arrangement of slots?  Disjoint buckets of four, windows of two or of three
 * slots.
 *
 * Usage: filter_layouts     (10 s; the results stand in docs/filter.md)
 * Each layout gets the same million random keys at rising loads.  All use any number of places, the other
 * place by reflection, the same hash, unaligned 8-byte reads and a breadth-first search for room of at most
 * 1,000 slots, and nothing for threads: only the arrangement differs. */
#include "fpcache/clock.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS   1000000u
#define NODES  1000
#define ROUNDS 7

typedef struct layout {
    const char *name;
    uint32_t span;  /* slots of a place */
    uint32_t step;  /* slots from one place to the next: span, or 1 if they overlap */
    uint32_t bits;  /* of a slot */
    uint32_t sides; /* values spent on telling where in its place an entry sits: 1 if disjoint */
    const double *loads;
} layout;

static const double LOW[] = {0.90, 0.92, 0.93, 0.94, 0.95, 0};
static const double HIGH[] = {0.93, 0.95, 0.96, 0.97, 0};
static const double HIGHEST[] = {0.95, 0.96, 0.97, 0.98, 0};
static const layout LAYOUTS[] = {
    {"buckets of 4, 12 bits", 4, 4, 12, 1, HIGH},
    {"windows of 2, 11 bits", 2, 1, 11, 2, LOW},
    {"windows of 3, 12 bits", 3, 1, 12, 3, HIGHEST},
};

static uint8_t *bytes;
static uint32_t places, reflection[1024];
static uint64_t state = 3;

static uint64_t rnd(void) {
    uint64_t z = (state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static inline uint64_t read_at(uint64_t bit) {
    uint64_t word;
    memcpy(&word, bytes + (bit >> 3), sizeof word);
    return word >> (bit & 7);
}

static inline uint32_t entry_at(const layout *l, uint32_t slot) {
    return (uint32_t)read_at((uint64_t)slot * l->bits) & ((1u << l->bits) - 1);
}

static inline void put(const layout *l, uint32_t slot, uint32_t entry) {
    uint64_t bit = (uint64_t)slot * l->bits, word, mask = ((UINT64_C(1) << l->bits) - 1) << (bit & 7);
    memcpy(&word, bytes + (bit >> 3), sizeof word);
    word = (word & ~mask) | (uint64_t)entry << (bit & 7);
    memcpy(bytes + (bit >> 3), &word, sizeof word);
}

static inline uint32_t other(uint32_t place, uint32_t tag) {
    uint32_t r = reflection[tag & 1023];
    return r < place ? r - place + places : r - place;
}

static inline void locate(const layout *l, uint64_t key, uint32_t *first, uint32_t *second, uint32_t *tag) {
    unsigned __int128 product =
        (unsigned __int128)(key ^ UINT64_C(0x9FB21C651E98DF25)) * UINT64_C(0x2545F4914F6CDD1D);
    uint64_t hash = (uint64_t)product ^ (uint64_t)(product >> 64);
    *first = (uint32_t)(((unsigned __int128)hash * places) >> 64);
    *tag = 1 + (uint32_t)(((hash & 0xffffffff) * ((1u << l->bits) / l->sides - 1)) >> 32);
    *second = other(*first, *tag);
}

static inline bool find(const layout *l, uint64_t key) {
    uint32_t first, second, tag;
    uint64_t ones = 0, sides = 0;
    locate(l, key, &first, &second, &tag);
    for (uint32_t i = 0; i < l->span; i++) {
        ones |= UINT64_C(1) << (i * l->bits);
        sides |= (uint64_t)(l->sides > 1 ? i : 0) << (i * l->bits);
    }
    uint64_t pattern = ones * tag * l->sides + sides, high = ones << (l->bits - 1);
    uint64_t a = read_at((uint64_t)first * l->step * l->bits) ^ pattern;
    uint64_t b = read_at((uint64_t)second * l->step * l->bits) ^ pattern;
    return ((((a - ones) & ~a) | ((b - ones) & ~b)) & high) != 0;
}

typedef struct nodes {
    uint32_t slot[NODES + 8];
    int parent[NODES + 8], count;
} nodes;

static inline uint32_t side_of(const layout *l, uint32_t slot, uint32_t place) {
    return l->sides > 1 ? slot - place : 0;
}

/* Frees a slot of one of the two places; false after NODES slots. */
static inline bool make_room(const layout *l, uint32_t first, uint32_t second, uint32_t *freed) {
    nodes n;
    n.count = 0;
    for (uint32_t i = 0; i < 2 * l->span; i++) {
        n.slot[n.count] = (i < l->span ? first * l->step : second * l->step - l->span) + i;
        n.parent[n.count++] = -1;
    }
    for (int i = 0; i < n.count && n.count < NODES; i++) {
        uint32_t slot = n.slot[i], entry = entry_at(l, slot), tag = entry / l->sides;
        uint32_t place = l->sides > 1 ? slot - entry % l->sides : slot / l->step,
                 elsewhere = other(place, tag);
        for (uint32_t k = l->sides > 1 ? 0 : l->span; k < 2 * l->span; k++) {
            uint32_t to = k < l->span ? place * l->step + k : elsewhere * l->step + k - l->span;
            if (to == slot) continue;
            if (entry_at(l, to) == 0) {
                for (int at = i; at >= 0; at = n.parent[at]) { /* move the path, its far end first */
                    uint32_t e = entry_at(l, n.slot[at]), t = e / l->sides;
                    uint32_t p = l->sides > 1 ? n.slot[at] - e % l->sides : n.slot[at] / l->step;
                    if (to - p * l->step >= l->span) p = other(p, t);
                    put(l, to, t * l->sides + side_of(l, to, p));
                    to = n.slot[at];
                }
                *freed = to;
                return true;
            }
            if (k < l->span && n.parent[i] >= 0) continue; /* neighbours of neighbours come again and again */
            n.slot[n.count] = to;
            n.parent[n.count++] = i;
            if (n.count >= NODES) break;
        }
    }
    return false;
}

static inline bool add(const layout *l, uint64_t key) {
    uint32_t first, second, tag, slot = UINT32_MAX;
    locate(l, key, &first, &second, &tag);
    for (uint32_t i = 0; i < 2 * l->span && slot == UINT32_MAX; i++) {
        uint32_t s = (i < l->span ? first * l->step : second * l->step - l->span) + i;
        if (entry_at(l, s) == 0) slot = s;
    }
    if (slot == UINT32_MAX && !make_room(l, first, second, &slot)) return false;
    uint32_t place = slot - first * l->step < l->span ? first : second;
    put(l, slot, tag * l->sides + side_of(l, slot, place));
    return true;
}

/* Inlined for each layout, so that its numbers are constants. */
static inline __attribute__((always_inline)) void run(const layout *l, const uint64_t *keys,
                                                      const uint64_t *absent) {
    for (const double *load = l->loads; *load > 0; load++) {
        places = (uint32_t)(KEYS / *load / l->step);
        size_t size = (size_t)places * l->step * l->bits / 8 + 64;
        double best_add = 0, best_find = 0;
        uint32_t lost = 0, wrong = 0;
        bytes = malloc(size);
        for (int i = 0; i < 1024; i++) reflection[i] = (uint32_t)(((rnd() >> 32) * places) >> 32);
        for (int round = 0; round < ROUNDS; round++) {
            memset(bytes, 0, size);
            lost = wrong = 0;
            int64_t t = fpc_clock_ns();
            for (uint32_t i = 0; i < KEYS; i++) lost += !add(l, keys[i]);
            double rate = KEYS * 1000.0 / (double)(fpc_clock_ns() - t);
            if (rate > best_add) best_add = rate;
            t = fpc_clock_ns();
            for (uint32_t i = 0; i < KEYS; i++) wrong += find(l, absent[i]);
            rate = KEYS * 1000.0 / (double)(fpc_clock_ns() - t);
            if (rate > best_find) best_find = rate;
        }
        printf(
            "%s  load %.2f  %6.2f bits/key  fpr %.4f %%  adds %5.1f M/s  finds %5.1f M/s  no room for %u\n",
            l->name, *load, 8.0 * (double)size / KEYS, 100.0 * wrong / KEYS, best_add, best_find, lost);
        free(bytes);
    }
}

int main(void) {
    uint64_t *keys = malloc(KEYS * sizeof *keys), *absent = malloc(KEYS * sizeof *absent);
    for (uint32_t i = 0; i < KEYS; i++) keys[i] = rnd();
    for (uint32_t i = 0; i < KEYS; i++) absent[i] = rnd();
    run(&LAYOUTS[0], keys, absent);
    run(&LAYOUTS[1], keys, absent);
    run(&LAYOUTS[2], keys, absent);
    free(keys);
    free(absent);
    return 0;
}

/* filter_table.h -- one table of fingerprints, packed without gaps.
 *
 * Words of this header:
 *   slot       `bits` bits; 0 means empty
 *   window     two neighbouring slots; windows overlap, so there is one fewer than there are slots
 *   print      what a key leaves: its tag in `bits` - 1 bits (never 0)
 *   entry      tag << 1 | side; the side tells whether the entry sits in the first or the second
 *              slot of its window
 *   reflection the number R of a tag; a key's two windows a and b satisfy a + b = R (mod windows),
 *              so each is found from the other for any number of windows
 *   level      how often this table's windows are doubled against the filter's first table.  A key's
 *              place at a level follows from its place at any higher one: equal prints at a level
 *              are equal at all lower ones.  remove() rests on that (see filter.c)
 *
 * Readers against the writer.  A relocation (1) writes the entry to its new slot, (2) changes
 * `version`, (3) overwrites the old slot; every store is a release.  A reader reads `version`, then
 * both windows, then, before it says "no", `version` again, all acquire.  Suppose it missed an
 * entry that was there throughout.  Then it read the new slot before (1) and the old slot after (3).
 * Having seen (3) it sees (2) in its second look at `version`; had it seen (2) in its first look,
 * it would have seen (1).  So the two looks differ and it asks again.  An entry may straddle two words:
 * seeing half of (3) is seeing (3), and half of (1) is not needed.  Nothing else moves entries.
 *
 * Thread rule: one writer, many readers of fpc_table_has() and fpc_table_size(). */
#ifndef FPC_FILTER_TABLE_H
#define FPC_FILTER_TABLE_H

#include "filter_stash.h"

#include <string.h>

/* x86 reads a window with one unaligned load, where others (and the sanitizers, who must see the
 * atomics) read two aligned words.  FPC_FILTER_PORTABLE forces the latter, for tests. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_THREAD__) && !defined(FPC_FILTER_PORTABLE)
#define FPC_FILTER_UNALIGNED 1
#else
#define FPC_FILTER_UNALIGNED 0
#endif

typedef struct fpc_table {
    /* -- fixed at creation -- */
    _Atomic uint64_t *words; /* slots from bit 0 up; one spare word at the end */
    uint32_t *reflections;   /* by tag & reflection_mask */
    uint64_t low, high;      /* lowest and highest bit of both slots of a window */
    uint64_t spread, second; /* tag * spread + second is the pattern of a window with two such entries */
    uint32_t windows;
    uint32_t tag_mask, base_mask, reflection_mask;
    unsigned bits, level;
    uint64_t capacity;
    size_t word_count, mapped_bytes; /* mapped_bytes: 0 if malloc'ed */
    fpc_stash stash;
    /* -- written by the writer, apart from the line that readers need -- */
    _Alignas(64) _Atomic uint64_t version; /* 2 * moves + whether the stash holds anything */
    _Atomic uint64_t size;                 /* entries here and copies in the stash */
} fpc_table;

#define FPC_STASH_IN_USE UINT64_C(1) /* the lowest bit of `version` */

typedef struct fpc_print {
    uint32_t first, second; /* windows */
    uint32_t tag;
} fpc_print;

typedef enum fpc_room { FPC_ROOM_OK, FPC_ROOM_FULL, FPC_ROOM_NOMEM } fpc_room;

/* Whether a table for `capacity << level` keys can be numbered with 32 bits. */
bool fpc_table_possible(uint64_t capacity, unsigned level);
/* The 64-bit words its slots fill. */
uint64_t fpc_table_words(uint64_t capacity, unsigned base_bits, unsigned level);
/* That table, empty, of a filter whose first table has `base_bits`.  NULL if out of memory or not
 * possible. */
fpc_table *fpc_table_new(uint64_t capacity, unsigned base_bits, unsigned level, const uint64_t seed[2]);
void fpc_table_free(fpc_table *table); /* NULL is allowed */

/* Most false positives of a table of `bits` at `load` (entries / slots). */
double fpc_table_fpr(unsigned base_bits, unsigned bits, double load);
/* Largest load a table is used at. */
#define FPC_TABLE_LOAD 0.93

/* Puts `copies` of a saved id into the stash; false if out of memory. */
bool fpc_table_stash(fpc_table *table, uint64_t id, uint64_t copies);
bool fpc_table_remove(fpc_table *table, fpc_print print);
void fpc_table_clear(fpc_table *table);
void fpc_table_copy(fpc_table *into, const fpc_table *from); /* of equal shape; without the stash */

/* The print in `slot`, translated to `level` (at most the table's own); false if it is empty. */
bool fpc_table_print_at(const fpc_table *table, uint32_t slot, fpc_print *print);
/* Whether every slot, the padding and the stash hold what add() could have written. */
bool fpc_table_valid(const fpc_table *table);
size_t fpc_table_bytes(const fpc_table *table);

static inline uint64_t fpc_table_size(const fpc_table *table) {
    return atomic_load_explicit(&table->size, memory_order_relaxed);
}

/* --- The way of a lookup, inline because batches unroll it --- */

static inline uint32_t fpc_table_other(const fpc_table *table, uint32_t window, uint32_t tag) {
    uint32_t r = table->reflections[tag & table->reflection_mask];
    return r < window ? r - window + table->windows : r - window;
}

static inline fpc_print fpc_table_print(const fpc_table *table, uint64_t hash) {
    fpc_print p;
    p.first = (uint32_t)(((unsigned __int128)hash * table->windows) >> 64);
    p.tag = (uint32_t)hash & table->tag_mask;
    p.tag += ((uint32_t)hash & table->base_mask) == 0; /* 0 is "empty", at every level */
    p.second = fpc_table_other(table, p.first, p.tag);
    return p;
}

/* The same print in the terms of a table of a lower level of the same filter. */
static inline fpc_print fpc_table_translate(const fpc_table *from, const fpc_table *to, fpc_print p) {
    p.first >>= from->level - to->level;
    p.second >>= from->level - to->level;
    p.tag &= to->tag_mask;
    return p;
}

/* At least 2 * bits bits from the first bit of `slot` on. */
static inline uint64_t fpc_table_window(const fpc_table *table, uint32_t slot) {
    uint64_t bit = (uint64_t)slot * table->bits;
#if FPC_FILTER_UNALIGNED
    struct eight {
        char bytes[8];
    };
    uint64_t raw;
    /* A plain load that the compiler may neither move over an atomic one nor split. */
    __asm__ volatile("movq %1, %0"
                     : "=r"(raw)
                     : "m"(*(const struct eight *)((const char *)table->words + (bit >> 3))));
    return raw >> (bit & 7); /* 7 + 2 * 28 bits fit */
#else
    const _Atomic uint64_t *word = table->words + (bit >> 6);
    uint64_t here = atomic_load_explicit(word, memory_order_acquire);
    uint64_t next = atomic_load_explicit(word + 1, memory_order_acquire);
    return here >> (bit & 63) | (next << 1) << (63 - (bit & 63));
#endif
}

/* One bit for each empty slot of the window.  Exact: the subtraction could err on a value of 1 only,
 * which is no entry. */
static inline uint64_t fpc_table_zeros(const fpc_table *table, uint64_t window) {
    return (window - table->low) & ~window & table->high;
}

/* The side of an empty slot, given such bits; the second slot if both are (measured: searches for room
 * get 10 % shorter). */
static inline uint32_t fpc_table_side(const fpc_table *table, uint64_t zeros) {
    return zeros >> table->bits != 0;
}

/* The pattern of a window whose two entries are both `tag`'s. */
static inline uint64_t fpc_table_pattern(const fpc_table *table, uint32_t tag) {
    return tag * table->spread + table->second;
}

/* Nonzero if the print is in the table; the stash is not asked, and moves are not noticed. */
static inline uint64_t fpc_table_match(const fpc_table *table, fpc_print p) {
    uint64_t pattern = fpc_table_pattern(table, p.tag);
    uint64_t a = fpc_table_window(table, p.first) ^ pattern;
    uint64_t b = fpc_table_window(table, p.second) ^ pattern;
    return (((a - table->low) & ~a) | ((b - table->low) & ~b)) & table->high;
}

/* The answer when the first look found nothing and something moved, or the stash is in use. */
bool fpc_table_has_after_all(const fpc_table *table, uint64_t hash);

static inline uint64_t fpc_table_version(const fpc_table *table) {
    return atomic_load_explicit(&table->version, memory_order_acquire);
}

static inline bool fpc_table_has(const fpc_table *table, uint64_t hash) {
    uint64_t before = fpc_table_version(table);
    uint64_t match = fpc_table_match(table, fpc_table_print(table, hash));
    uint64_t after = fpc_table_version(table);
    if (__builtin_expect(((before ^ after) | (after & FPC_STASH_IN_USE)) == 0, 1)) return match != 0;
    return match != 0 || fpc_table_has_after_all(table, hash);
}

static inline void fpc_table_prefetch(const fpc_table *table, fpc_print p) {
    const char *base = (const char *)table->words;
    __builtin_prefetch(base + ((uint64_t)p.first * table->bits >> 3));
    __builtin_prefetch(base + ((uint64_t)p.second * table->bits >> 3));
}

/* --- The way of an add: nearly all find an empty slot at once --- */

static inline void fpc_table_replace(_Atomic uint64_t *word, uint64_t mask, uint64_t value) {
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed); /* only we write */
    atomic_store_explicit(word, (old & ~mask) | value, memory_order_release);
}

static inline void fpc_table_put(fpc_table *t, uint32_t slot, uint32_t entry) {
    uint64_t bit = (uint64_t)slot * t->bits;
    unsigned shift = bit & 63;
    uint64_t mask = (UINT64_C(1) << t->bits) - 1;
    _Atomic uint64_t *word = t->words + (bit >> 6);
    fpc_table_replace(word, mask << shift, (uint64_t)entry << shift);
    if (shift + t->bits <= 64) return;
    fpc_table_replace(word + 1, mask >> (64 - shift), (uint64_t)entry >> (64 - shift));
}

static inline void fpc_table_count(fpc_table *t, int64_t change) {
    atomic_store_explicit(&t->size, fpc_table_size(t) + (uint64_t)change, memory_order_relaxed);
}

/* The add of a key whose four slots are taken. */
fpc_room fpc_table_add_crowded(fpc_table *table, uint64_t hash);

/* Adds one copy.  FULL at `capacity`, NOMEM when the stash cannot grow: nothing changed. */
static inline fpc_room fpc_table_add(fpc_table *t, uint64_t hash) {
    if (fpc_table_size(t) >= t->capacity) return FPC_ROOM_FULL;
    fpc_print p = fpc_table_print(t, hash);
    uint64_t first = fpc_table_zeros(t, fpc_table_window(t, p.first));
    uint64_t second = fpc_table_zeros(t, fpc_table_window(t, p.second));
    if (__builtin_expect((first | second) == 0, 0)) return fpc_table_add_crowded(t, hash);
    uint32_t full = -(uint32_t)(first == 0); /* masks: which window is not predictable */
    uint32_t side = fpc_table_side(t, first | (second & -(uint64_t)(first == 0)));
    fpc_table_put(t, p.first + ((p.second - p.first) & full) + side, p.tag << 1 | side);
    fpc_table_count(t, 1);
    return FPC_ROOM_OK;
}

/* The same for a print that is already known. */
fpc_room fpc_table_add_print(fpc_table *table, fpc_print print);

#endif

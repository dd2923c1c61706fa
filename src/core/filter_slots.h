/* filter_slots.h -- the short ways of a table: look a hash up, add one where a slot is empty.
 *
 * Inline, because batches unroll them.  Words and the argument for readers beside the writer are in
 * filter_table.h. */
#ifndef FPC_FILTER_SLOTS_H
#define FPC_FILTER_SLOTS_H

#include "filter_table.h"

/* x86 reads a window with one unaligned load, where others (and the thread sanitizer, which must see
 * the atomics) read two aligned words.  FPC_FILTER_PORTABLE forces the latter, for tests. */
#if defined(__has_feature) /* clang */
#if __has_feature(thread_sanitizer)
#define FPC_FILTER_PORTABLE
#endif
#endif
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_THREAD__) && !defined(FPC_FILTER_PORTABLE)
#define FPC_FILTER_UNALIGNED 1
#else
#define FPC_FILTER_UNALIGNED 0
#endif

/* --- The way of a lookup, inline because batches unroll it --- */

static inline uint32_t fpc_table_other(const fpc_table *table, uint32_t window, uint32_t tag) {
    uint32_t r = table->reflections[tag & table->reflection_mask];
    return r < window ? r - window + (uint32_t)table->windows : r - window;
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

/* Eight bytes that hold what is at bit number `bit`, from bit fpc_table_shift(bit) of them on: at least
 * 57 bits of it, so a window fits. */
#if FPC_FILTER_UNALIGNED
struct fpc_eight {
    char bytes[8];
};

static inline uint64_t fpc_table_raw(const fpc_table *table, uint64_t bit) {
    uint64_t raw;
    fpc_filter_step();
    /* A plain load that the compiler may neither move over an atomic one nor split. */
    __asm__ volatile("movq %1, %0"
                     : "=r"(raw)
                     : "m"(*(const struct fpc_eight *)((const char *)table->words + (bit >> 3))));
    return raw;
}

static inline unsigned fpc_table_shift(uint64_t bit) {
    return bit & 7;
}
#else
static inline uint64_t fpc_table_raw(const fpc_table *table, uint64_t bit) {
    const _Atomic uint64_t *word = table->words + (bit >> 6);
    fpc_filter_step();
    uint64_t here = atomic_load_explicit(word, memory_order_acquire);
    uint64_t next = atomic_load_explicit(word + 1, memory_order_acquire);
    return here >> (bit & 63) | (next << 1) << (63 - (bit & 63));
}

static inline unsigned fpc_table_shift(uint64_t bit) {
    (void)bit;
    return 0;
}
#endif

/* At least 2 * bits bits from the first bit of `slot` on. */
static inline uint64_t fpc_table_window(const fpc_table *table, uint32_t slot) {
    uint64_t bit = (uint64_t)slot * table->bits;
    return fpc_table_raw(table, bit) >> fpc_table_shift(bit);
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

/* Whether the table is in no cache, so that fetching early pays. */
static inline bool fpc_table_is_large(const fpc_table *table) {
    return table->word_count * sizeof *table->words > ((size_t)4 << 20);
}

/* Fetches the window at bit number `bit`.  One in nine lies on two lines: waiting for those took two thirds
 * of an add to a large table. */
static inline void fpc_table_prefetch(const fpc_table *table, uint64_t bit) {
    __builtin_prefetch((const char *)table->words + (bit >> 3));
    __builtin_prefetch((const char *)table->words + (bit >> 3) + 7);
}

/* --- The way of an add: nearly all find an empty slot at once --- */

#if FPC_FILTER_UNALIGNED
/* One store whether the slot straddles two words or not: that branch is missed one time in six (measured). It
 * may be seen in two parts where it crosses a cache line, as two words may be: filter_table.h rests on
 * neither. */
static inline void fpc_table_store(fpc_table *t, uint64_t bit, uint64_t raw) {
    fpc_filter_step();
    __asm__ volatile("movq %1, %0" /* x86 keeps the order of stores; "memory" makes the compiler keep it */
                     : "=m"(*(struct fpc_eight *)((char *)t->words + (bit >> 3)))
                     : "r"(raw)
                     : "memory");
}

static inline void fpc_table_put_bits(fpc_table *t, uint64_t bit, unsigned width, uint64_t value) {
    unsigned shift = fpc_table_shift(bit);
    uint64_t mask = ((UINT64_C(1) << width) - 1) << shift;
    fpc_table_store(t, bit, (fpc_table_raw(t, bit) & ~mask) | value << shift);
}

/* Puts `entry` into the empty slot that begins `offset` bits after bit number `bit`, where `raw` was read. */
static inline void fpc_table_fill(fpc_table *t, uint64_t bit, uint64_t raw, uint64_t offset, uint64_t entry) {
    fpc_table_store(t, bit, raw | entry << (fpc_table_shift(bit) + offset));
}
#else
static inline void fpc_table_replace(_Atomic uint64_t *word, uint64_t mask, uint64_t value) {
    uint64_t old = atomic_load_explicit(word, memory_order_relaxed); /* only we write */
    fpc_filter_step();
    atomic_store_explicit(word, (old & ~mask) | value, memory_order_release);
}

static inline void fpc_table_put_bits(fpc_table *t, uint64_t bit, unsigned width, uint64_t value) {
    unsigned shift = bit & 63;
    uint64_t mask = (UINT64_C(1) << width) - 1;
    _Atomic uint64_t *word = t->words + (bit >> 6);
    fpc_table_replace(word, mask << shift, value << shift);
    if (shift + width > 64) fpc_table_replace(word + 1, mask >> (64 - shift), value >> (64 - shift));
}

static inline void fpc_table_fill(fpc_table *t, uint64_t bit, uint64_t raw, uint64_t offset, uint64_t entry) {
    (void)raw;
    fpc_table_put_bits(t, bit + offset, (unsigned)t->bits, entry);
}
#endif

static inline void fpc_table_put(fpc_table *t, uint32_t slot, uint32_t entry) {
    fpc_table_put_bits(t, slot * t->bits, (unsigned)t->bits, entry);
}

static inline void fpc_table_count(fpc_table *t, int64_t change) {
    atomic_store_explicit(&t->size, fpc_table_size(t) + (uint64_t)change, memory_order_relaxed);
}

/* Adds one copy.  FULL at `capacity`, NOMEM when the stash cannot grow: nothing changed. */
static inline fpc_room fpc_table_add_print(fpc_table *t, fpc_print p) {
    if (fpc_table_size(t) >= t->capacity) return FPC_ROOM_FULL;
    if (__builtin_expect(t->is_compact, 0)) return fpc_compact_add(t, p);
    uint64_t bit = p.first * t->bits, other_bit = p.second * t->bits;
    uint64_t raw = fpc_table_raw(t, bit), other_raw = fpc_table_raw(t, other_bit);
    uint64_t first = fpc_table_zeros(t, raw >> fpc_table_shift(bit));
    uint64_t second = fpc_table_zeros(t, other_raw >> fpc_table_shift(other_bit));
    if (__builtin_expect((first | second) == 0, 0)) return fpc_table_add_crowded(t, p);
    /* The emptier window, so that fewer keys find both full later.  Masks: it cannot be predicted. */
    uint64_t to_second = -(uint64_t)((first == 0) | ((first != t->high) & (second == t->high)));
    bit ^= (bit ^ other_bit) & to_second;
    uint64_t side = fpc_table_side(t, first ^ ((first ^ second) & to_second));
    fpc_table_fill(t, bit, raw ^ ((raw ^ other_raw) & to_second), side * t->bits, p.tag << 1 | side);
    fpc_table_count(t, 1);
    return FPC_ROOM_OK;
}

static inline fpc_room fpc_table_add(fpc_table *t, uint64_t hash) {
    return fpc_table_add_print(t, fpc_table_print(t, hash));
}

#endif

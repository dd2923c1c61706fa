/* filter_simd.c -- plain loops, one a step, that a compiler turns into vector instructions.  The loads alone
 * stay scalar (gather instructions were a fifth slower on Zen 5), and are under way together.
 *
 * A lookup done key by key has one long chain of steps that each wait for the one before, and a processor can
 * keep only a few such chains in flight: measured, 160 M/s so and 450 M/s step by step (docs/filter.md). */
#include "filter_simd.h"

#include "filter_compact.h"

#define INLINE static inline __attribute__((always_inline))

typedef struct places {
    uint32_t first[FPC_BATCH], second[FPC_BATCH], tag[FPC_BATCH]; /* as in fpc_print */
} places;

/* --- The steps; the same as in filter_slots.h and filter_hash.h --- */

/* fpc_fold() by products of 32 bits, which vectors have. */
INLINE uint64_t fold_wide(uint64_t a, uint64_t b) {
    uint64_t al = (uint32_t)a, ah = a >> 32, bl = (uint32_t)b, bh = b >> 32;
    uint64_t ll = al * bl, lh = al * bh, hl = ah * bl;
    uint64_t middle = (ll >> 32) + (uint32_t)lh + (uint32_t)hl;
    uint64_t low = middle << 32 | (uint32_t)ll;
    return low ^ (ah * bh + (lh >> 32) + (hl >> 32) + (middle >> 32));
}

INLINE void hash_wide(const fpc_filter_hasher *h, const uint64_t *hashes, size_t count,
                      uint64_t *restrict mixed) {
    uint64_t mask0 = h->masks[0], mask1 = h->masks[1], factor = h->factor;
    for (size_t i = 0; i < count; i++) {
        mixed[i] = fold_wide(hashes[i] ^ mask0, (hashes[i] >> 32 | hashes[i] << 32) ^ mask1) * factor;
    }
}

INLINE void find_places(const fpc_table *t, const uint64_t *mixed, size_t count, places *restrict p) {
    const uint32_t *reflections = t->reflections;
    uint32_t windows = (uint32_t)t->windows, tag_mask = t->tag_mask, base_mask = t->base_mask,
             r_mask = t->reflection_mask;
    for (size_t i = 0; i < count; i++) {
        uint64_t lower = (mixed[i] & UINT32_MAX) * windows, upper = (mixed[i] >> 32) * windows;
        p->first[i] = (uint32_t)((upper + (lower >> 32)) >> 32);
        p->tag[i] = ((uint32_t)mixed[i] & tag_mask) + (((uint32_t)mixed[i] & base_mask) == 0);
    }
    for (size_t i = 0; i < count; i++) p->second[i] = reflections[p->tag[i] & r_mask];
    for (size_t i = 0; i < count; i++) {
        uint32_t other = p->second[i] - p->first[i];
        p->second[i] = p->second[i] < p->first[i] ? other + windows : other;
    }
}

INLINE void prefetch(const fpc_table *t, const uint64_t *restrict bits, size_t count) {
    for (size_t i = 0; i < count; i++) fpc_table_prefetch(t, bits[i]);
}

INLINE void find_bits(const fpc_table *t, const uint32_t *windows, size_t count, uint64_t *restrict bits) {
    uint64_t width = t->bits;
    for (size_t i = 0; i < count; i++) bits[i] = windows[i] * width;
}

INLINE void has_wide(const fpc_table *t, const uint64_t *mixed, size_t count, bool *restrict found) {
    places p;
    uint64_t first[FPC_BATCH], second[FPC_BATCH], a[FPC_BATCH], b[FPC_BATCH];
    uint64_t spread = t->spread, both = t->second, low = t->low, high = t->high;
    find_places(t, mixed, count, &p);
    find_bits(t, p.first, count, first);
    find_bits(t, p.second, count, second);
    if (fpc_table_is_large(t)) {
        prefetch(t, first, count);
        prefetch(t, second, count);
    }
    for (size_t i = 0; i < count; i++) {
        a[i] = fpc_table_raw(t, first[i]);
        b[i] = fpc_table_raw(t, second[i]);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t pattern = p.tag[i] * spread + both;
        uint64_t x = a[i] >> fpc_table_shift(first[i]) ^ pattern;
        uint64_t y = b[i] >> fpc_table_shift(second[i]) ^ pattern;
        found[i] = ((((x - low) & ~x) | ((y - low) & ~y)) & high) != 0;
    }
}

INLINE void has_in_buckets(const fpc_table *t, const uint64_t *mixed, size_t count, bool *restrict found) {
    places p;
    uint64_t first[FPC_BATCH], second[FPC_BATCH], a[FPC_BATCH], b[FPC_BATCH];
    uint64_t low_a[FPC_BATCH], low_b[FPC_BATCH];
    find_places(t, mixed, count, &p);
    find_bits(t, p.first, count, first);
    find_bits(t, p.second, count, second);
    if (fpc_table_is_large(t)) {
        prefetch(t, first, count);
        prefetch(t, second, count);
    }
    for (size_t i = 0; i < count; i++) {
        a[i] = fpc_table_raw(t, first[i]) >> fpc_table_shift(first[i]);
        b[i] = fpc_table_raw(t, second[i]) >> fpc_table_shift(second[i]);
    }
    for (size_t i = 0; i < count; i++) {
        low_a[i] = fpc_compact_lows[a[i] % FPC_COMPACT_CODES];
        low_b[i] = fpc_compact_lows[b[i] % FPC_COMPACT_CODES];
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t pattern = p.tag[i] * FPC_COMPACT_LANES;
        found[i] = (fpc_compact_zeros(fpc_compact_unpack(t, a[i], low_a[i]) ^ pattern) |
                    fpc_compact_zeros(fpc_compact_unpack(t, b[i], low_b[i]) ^ pattern)) != 0;
    }
}

INLINE void prints_wide(const fpc_table *t, const uint64_t *mixed, size_t count, fpc_print *restrict prints) {
    places p;
    uint64_t bits[FPC_BATCH];
    find_places(t, mixed, count, &p);
    find_bits(t, p.first, count, bits);
    prefetch(t, bits, count);
    find_bits(t, p.second, count, bits);
    prefetch(t, bits, count);
    for (size_t i = 0; i < count; i++) {
        prints[i].first = p.first[i];
        prints[i].second = p.second[i];
        prints[i].tag = p.tag[i];
    }
}

/* --- The same for each kind of processor --- */

/* Without wide vectors the multiplier of 64 bits is faster. */
INLINE void hash_narrow(const fpc_filter_hasher *h, const uint64_t *hashes, size_t count,
                        uint64_t *restrict mixed) {
    for (size_t i = 0; i < count; i++) mixed[i] = fpc_filter_hash_word(h, hashes[i]);
}

#define COMPILE(kind, attribute, hash)                                                                       \
    __attribute__((attribute)) static void hash_##kind(const fpc_filter_hasher *h, const uint64_t *hashes,   \
                                                       size_t count, uint64_t *mixed) {                      \
        hash(h, hashes, count, mixed);                                                                       \
    }                                                                                                        \
    __attribute__((attribute)) static void has_##kind(const fpc_table *t, const uint64_t *mixed,             \
                                                      size_t count, bool *found) {                           \
        has_wide(t, mixed, count, found);                                                                    \
    }                                                                                                        \
    __attribute__((attribute)) static void compact_##kind(const fpc_table *t, const uint64_t *mixed,         \
                                                          size_t count, bool *found) {                       \
        has_in_buckets(t, mixed, count, found);                                                              \
    }                                                                                                        \
    __attribute__((attribute)) static void prints_##kind(const fpc_table *t, const uint64_t *mixed,          \
                                                         size_t count, fpc_print *prints) {                  \
        prints_wide(t, mixed, count, prints);                                                                \
    }                                                                                                        \
    static const fpc_simd_way way_##kind = {#kind, hash_##kind, has_##kind, compact_##kind, prints_##kind};

COMPILE(plain, noinline, hash_narrow)

#if FPC_FILTER_UNALIGNED
COMPILE(avx2, target("avx2,bmi,bmi2"), hash_narrow)
COMPILE(avx512, target("avx2,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl"), hash_wide)

const fpc_simd_way *fpc_simd(unsigned n) {
    /* The first processors with AVX-512 slow their clock for it; those with VBMI2 do not. */
    if (__builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512dq") && n-- == 0) {
        return &way_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && n-- == 0) return &way_avx2;
    return n == 0 ? &way_plain : NULL;
}
#else
const fpc_simd_way *fpc_simd(unsigned n) {
    return n == 0 ? &way_plain : NULL;
}
#endif

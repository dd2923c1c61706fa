/* filter_find.c -- the lookup of one key, compiled twice: for any machine, and for x86 with AVX2 and BMI2.
 *
 * Many lookups are under way in a processor at a time, each some ninety cycles from its hash to its answer.
 * How many is set by the registers that their instructions write before they end.  So the second way keeps
 * numbers in memory operands where it can, and compares both windows in one vector register, of which there
 * are more: 1.35 times as many lookups a second (docs/filter.md). */
#include "filter_internal.h"
#if FPC_FILTER_UNALIGNED
#include <immintrin.h>
#endif

/* After this many changes under its eyes a reader says "maybe", which is always allowed. */
#define TRIES 1000

/* For any number of tables, stashes in use, and a writer at work. */
static __attribute__((noinline, cold)) bool has_in_any(const fpc_filter *f, uint64_t mixed) {
    for (int tries = 0; tries < TRIES; tries++) {
        unsigned count = fpc_filter_tables(f);
        uint64_t before = fpc_filter_versions(f, count);
        for (unsigned i = 0; i < count; i++) {
            if (fpc_table_look(f->tables[i], mixed)) return true;
        }
        if (fpc_filter_versions(f, count) == before) return false;
    }
    return true;
}

static inline bool has(const fpc_filter *f, uint64_t mixed) {
    const fpc_table *table = f->tables[0];
    if (__builtin_expect(fpc_table_elsewhere(table) != 0, 0)) return has_in_any(f, mixed);
    uint64_t before = fpc_table_version(table);
    uint64_t match = fpc_table_match(table, fpc_table_print(table, mixed));
    if (__builtin_expect(fpc_table_version(table) != before, 0)) return has_in_any(f, mixed);
    return match != 0;
}

bool fpc_filter_contains_mixed(const fpc_filter *f, uint64_t mixed) {
    return has(f, mixed);
}

static bool find_bytes(const fpc_filter *f, const void *key, size_t len) {
    return has(f, fpc_filter_hash_bytes(&f->hasher, key, len));
}

static bool find_hash(const fpc_filter *f, uint64_t hash) {
    return has(f, fpc_filter_hash_word(&f->hasher, hash));
}

static const fpc_filter_finder PLAIN = {find_bytes, find_hash};

#if FPC_FILTER_UNALIGNED
#define FOR_AVX2 __attribute__((target("avx2,bmi,bmi2")))

/* With the second factor in memory; gcc 12 would load it first. */
FOR_AVX2 static inline uint64_t low_product(uint64_t a, const uint64_t *b) {
    __asm__("imulq %1, %0" : "+r"(a) : "m"(*b) : "cc");
    return a;
}

FOR_AVX2 static inline uint64_t high_product(uint64_t a, const uint64_t *b) {
    uint64_t low, high;
    __asm__("mulxq %3, %0, %1" : "=r"(low), "=r"(high) : "d"(a), "m"(*b));
    return high;
}

FOR_AVX2 static inline uint64_t mix(const fpc_filter_hasher *h, uint64_t hash) {
    unsigned long long high, turned = (hash >> 32 | hash << 32) ^ h->masks[1];
    unsigned long long low = _mulx_u64(hash ^ h->masks[0], turned, &high);
    return low_product(low ^ high, &h->factor);
}

FOR_AVX2 static inline __m128i pair(const uint64_t words[2]) {
    return _mm_load_si128((const __m128i *)words);
}

/* Eight bytes at each of two places; the loads stay between the looks at the version. */
FOR_AVX2 static inline __m128i load_pair(const char *first, const char *second) {
    __m128i both;
    fpc_filter_step();
    __asm__ volatile("vmovq %1, %0" : "=x"(both) : "m"(*(const struct fpc_eight *)first) : "memory");
    fpc_filter_step();
    __asm__ volatile("vmovhps %1, %0, %0" : "+x"(both) : "m"(*(const struct fpc_eight *)second) : "memory");
    return both;
}

/* fpc_table_match() of fpc_table_print(), for a table of level 0. */
FOR_AVX2 static inline __m128i match_pair(const fpc_table *t, uint64_t mixed) {
    uint64_t first = high_product(mixed, &t->windows);
    uint32_t tag = (uint32_t)mixed & t->tag_mask;
    tag += tag == 0;
    uint64_t second = t->reflections[tag & t->reflection_mask] - first, around = second + t->windows;
    if ((int64_t)second < 0) second = around;
    uint64_t bit = low_product(first, &t->bits), other_bit = low_product(second, &t->bits);
    const char *words = (const char *)t->words;
    __m128i pattern = _mm_set1_epi64x((long long)low_product(tag, &t->spread));
    __m128i shifts = _mm_set_epi64x((long long)other_bit, (long long)bit);
    __m128i x = load_pair(words + (bit >> 3), words + (other_bit >> 3));
    x = _mm_srlv_epi64(x, _mm_and_si128(shifts, pair(t->sevens)));
    x = _mm_xor_si128(x, _mm_or_si128(pattern, pair(t->seconds)));
    return _mm_andnot_si128(x, _mm_sub_epi64(x, pair(t->lows)));
}

FOR_AVX2 static inline bool has_avx2(const fpc_filter *f, uint64_t mixed) {
    const fpc_table *table = f->tables[0];
    if (__builtin_expect(fpc_table_elsewhere(table) != 0, 0)) return has_in_any(f, mixed);
    uint64_t before = fpc_table_version(table);
    __m128i match = match_pair(table, mixed);
    if (__builtin_expect(fpc_table_version(table) != before, 0)) return has_in_any(f, mixed);
    return !_mm_testz_si128(match, pair(table->highs));
}

FOR_AVX2 static bool find_bytes_avx2(const fpc_filter *f, const void *key, size_t len) {
    return has_avx2(f, fpc_filter_hash_bytes(&f->hasher, key, len));
}

FOR_AVX2 static bool find_hash_avx2(const fpc_filter *f, uint64_t hash) {
    return has_avx2(f, mix(&f->hasher, hash));
}

static const fpc_filter_finder AVX2 = {find_bytes_avx2, find_hash_avx2};

const fpc_filter_finder *fpc_filter_finders(unsigned n) {
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && n-- == 0) return &AVX2;
    return n == 0 ? &PLAIN : NULL;
}
#else
const fpc_filter_finder *fpc_filter_finders(unsigned n) {
    return n == 0 ? &PLAIN : NULL;
}
#endif

bool fpc_filter_contains(const fpc_filter *f, const void *key, size_t len) {
    return f->find.bytes(f, key, len);
}

bool fpc_filter_contains_hash(const fpc_filter *f, uint64_t hash) {
    return f->find.hash(f, hash);
}

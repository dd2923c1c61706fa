/* filter_find.c -- the lookup of one key: in buckets; in windows, for any machine and for x86 with AVX2 and
 * BMI2.
 *
 * Many lookups are under way in a processor at a time, each some ninety cycles from its hash to its answer.
 * How many is set by the registers that their instructions write before they end.  So the second way keeps
 * numbers in memory operands, where gcc 12 would load them, and does what it can in vector registers, of
 * which there are more: 1.5 times as many lookups a second (docs/filter.md). */
#include "filter_compact.h"
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
        if (!fpc_filter_changed(before, fpc_filter_versions(f, count))) return false;
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

/* The finder `NAME`: hashes by `word`, looks by `look`. */
#define FINDER(NAME, attribute, word, look)                                                                  \
    attribute static bool NAME##_bytes(const fpc_filter *f, const void *key, size_t len) {                   \
        return look(f, fpc_filter_hash_bytes(&f->hasher, key, len));                                         \
    }                                                                                                        \
    attribute static bool NAME##_hash(const fpc_filter *f, uint64_t hash) {                                  \
        return look(f, word(&f->hasher, hash));                                                              \
    }                                                                                                        \
    static const fpc_filter_finder NAME = {NAME##_bytes, NAME##_hash};

FINDER(PLAIN, , fpc_filter_hash_word, has)

static inline bool has_compact(const fpc_filter *f, uint64_t mixed) {
    const fpc_table *table = f->tables[0];
    if (__builtin_expect(fpc_table_elsewhere(table) != 0, 0)) return has_in_any(f, mixed);
    uint64_t before = fpc_table_version(table);
    uint64_t match = fpc_compact_match(table, fpc_table_print(table, mixed));
    bool changed = fpc_filter_changed(before, fpc_table_version(table));
    if (__builtin_expect(changed, 0)) return has_in_any(f, mixed);
    return match != 0;
}

FINDER(COMPACT, , fpc_filter_hash_word, has_compact)

#if FPC_FILTER_UNALIGNED
#define FOR_AVX2 __attribute__((target("avx2,bmi,bmi2")))

/* The second number stays in memory; gcc 12 would load some of these first. */
FOR_AVX2 static inline uint64_t low_product(uint64_t a, const uint64_t *b) {
    __asm__("imulq %1, %0" : "+r"(a) : "m"(*b) : "cc");
    return a;
}

FOR_AVX2 static inline uint64_t high_product(uint64_t a, const uint64_t *b) {
    uint64_t low, high;
    __asm__("mulxq %3, %0, %1" : "=r"(low), "=r"(high) : "d"(a), "m"(*b));
    return high;
}

FOR_AVX2 static inline uint64_t exclusive_or(uint64_t a, const uint64_t *b) {
    __asm__("xorq %1, %0" : "+r"(a) : "m"(*b) : "cc");
    return a;
}

FOR_AVX2 static inline uint64_t or_one(uint64_t a) { /* 1 for a 0 */
    __asm__("cmpq $1, %0\n\tadcq $0, %0" : "+r"(a) : : "cc");
    return a;
}

/* a - b, and `*modulus` more if that is negative. */
FOR_AVX2 static inline uint64_t difference(uint64_t a, uint64_t b, const uint64_t *modulus) {
    uint64_t around;
    __asm__("subq %2, %0\n\tmovq %0, %1\n\taddq %3, %1\n\tcmovcq %1, %0"
            : "+&r"(a), "=&r"(around)
            : "r"(b), "m"(*modulus)
            : "cc");
    return a;
}

/* Goes to `label` unless the number at `at`, as long as `suffix` tells, is `value`; stays in order with the
 * other looks at the table.  Every load of x86 acquires. */
#define UNLESS(suffix, at, constraint, value, label)                                                         \
    fpc_filter_step();                                                                                       \
    __asm__ goto("cmp" suffix " %1, %0\n\tjne %l[" #label "]"                                                \
                 :                                                                                           \
                 : "m"(*(const struct fpc_eight *)(at)), constraint(value)                                   \
                 : "cc", "memory"                                                                            \
                 : label)

FOR_AVX2 static inline uint64_t mix(const fpc_filter_hasher *h, uint64_t hash) {
    uint64_t a = exclusive_or(hash, &h->masks[0]), b = exclusive_or(hash >> 32 | hash << 32, &h->masks[1]);
    unsigned long long high, low = _mulx_u64(a, b, &high);
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

/* The tag of fpc_table_print(), and at which bits its windows begin, for a table of level 0. */
typedef struct place {
    uint64_t bit, other_bit, tag;
} place;

FOR_AVX2 static inline place locate(const fpc_table *t, uint64_t mixed) {
    uint64_t first = high_product(mixed, &t->windows), tag = or_one((uint32_t)mixed & t->tag_mask);
    uint64_t second = difference(t->reflections[tag & t->reflection_mask], first, &t->windows);
    return (place){low_product(first, &t->bits), low_product(second, &t->bits), tag};
}

/* fpc_table_match() of fpc_table_print(). */
FOR_AVX2 static inline __m128i match_pair(const fpc_table *t, uint64_t mixed) {
    place p = locate(t, mixed);
    const char *words = (const char *)t->words;
    __m128i pattern = _mm_mul_epu32(_mm_set1_epi64x((long long)p.tag), pair(t->spreads));
    __m128i shifts = _mm_set_epi64x((long long)p.other_bit, (long long)p.bit);
    __m128i x = load_pair(words + (p.bit >> 3), words + (p.other_bit >> 3));
    x = _mm_srlv_epi64(x, _mm_and_si128(shifts, pair(t->sevens)));
    x = _mm_xor_si128(x, _mm_or_si128(pattern, pair(t->seconds)));
    return _mm_andnot_si128(x, _mm_sub_epi64(x, pair(t->lows)));
}

FOR_AVX2 static inline bool has_avx2(const fpc_filter *f, uint64_t mixed) {
    const fpc_table *table = f->tables[0];
    UNLESS("l", &table->elsewhere, "i", 0, look_again);
    uint64_t before = fpc_table_version(table);
    __m128i match = match_pair(table, mixed);
    UNLESS("q", &table->version, "r", before, look_again);
    return !_mm_testz_si128(match, pair(table->highs));
look_again:
    return has_in_any(f, mixed);
}

FINDER(AVX2, FOR_AVX2, mix, has_avx2)

/* fpc_compact_unpack() by an instruction for each half. */
FOR_AVX2 static inline uint64_t deposit(const fpc_table *t, uint64_t bit) {
    uint64_t bits = fpc_table_raw(t, bit) >> fpc_table_shift(bit);
    return _pdep_u64(fpc_compact_lows[bits % FPC_COMPACT_CODES], 15 * FPC_COMPACT_LANES) |
           _pdep_u64(bits / FPC_COMPACT_CODES, t->compact.high);
}

FOR_AVX2 static inline bool has_compact_avx2(const fpc_filter *f, uint64_t mixed) {
    const fpc_table *t = f->tables[0];
    if (__builtin_expect(fpc_table_elsewhere(t) != 0, 0)) return has_in_any(f, mixed);
    uint64_t before = fpc_table_version(t);
    place p = locate(t, mixed);
    uint64_t pattern = p.tag * FPC_COMPACT_LANES;
    uint64_t zeros = fpc_compact_zeros(deposit(t, p.bit) ^ pattern);
    zeros |= fpc_compact_zeros(deposit(t, p.other_bit) ^ pattern);
    bool changed = fpc_filter_changed(before, fpc_table_version(t));
    if (__builtin_expect(changed, 0)) return has_in_any(f, mixed);
    return zeros != 0;
}

FINDER(COMPACT_AVX2, FOR_AVX2, mix, has_compact_avx2)

const fpc_filter_finder *fpc_filter_finders(bool compact, unsigned n) {
    bool vectors = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
    /* The first two generations of Zen take up to 250 cycles for `pdep`. */
    bool slow_deposit = __builtin_cpu_is("znver1") || __builtin_cpu_is("znver2");
    if (vectors && !(compact && slow_deposit) && n-- == 0) return compact ? &COMPACT_AVX2 : &AVX2;
    if (n != 0) return NULL;
    return compact ? &COMPACT : &PLAIN;
}
#else
const fpc_filter_finder *fpc_filter_finders(bool compact, unsigned n) {
    if (n != 0) return NULL;
    return compact ? &COMPACT : &PLAIN;
}
#endif

bool fpc_filter_contains_mixed(const fpc_filter *f, uint64_t mixed) {
    return f->shape.compact ? has_compact(f, mixed) : has(f, mixed);
}

bool fpc_filter_contains(const fpc_filter *f, const void *key, size_t len) {
    return f->find.bytes(f, key, len);
}

bool fpc_filter_contains_hash(const fpc_filter *f, uint64_t hash) {
    return f->find.hash(f, hash);
}

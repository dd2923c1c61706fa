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

#define INLINE static inline __attribute__((always_inline))

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

typedef fpc_print printer(const fpc_table *table, uint64_t mixed);

INLINE bool has(const fpc_filter *f, uint64_t mixed, printer *print) {
    const fpc_table *table = f->tables[0];
    if (__builtin_expect(fpc_table_elsewhere(table) != 0, 0)) return has_in_any(f, mixed);
    uint64_t before = fpc_table_version(table);
    uint64_t match = fpc_table_match(table, print(table, mixed));
    if (__builtin_expect(fpc_table_version(table) != before, 0)) return has_in_any(f, mixed);
    return match != 0;
}

/* The finder `NAME`: hashes by `word`, looks by `look`, in places that `find_place` tells. */
#define FINDER(NAME, attribute, word, look, find_place)                                                      \
    __attribute__((attribute)) static bool NAME##_bytes(const fpc_filter *f, const void *key, size_t len) {  \
        return look(f, fpc_filter_hash_bytes(&f->hasher, key, len), find_place);                             \
    }                                                                                                        \
    __attribute__((attribute)) static bool NAME##_hash(const fpc_filter *f, uint64_t hash) {                 \
        return look(f, word(&f->hasher, hash), find_place);                                                  \
    }                                                                                                        \
    static const fpc_filter_finder NAME = {NAME##_bytes, NAME##_hash};

FINDER(PLAIN, noinline, fpc_filter_hash_word, has, fpc_table_print)

INLINE bool has_compact(const fpc_filter *f, uint64_t mixed, printer *print) {
    const fpc_table *table = f->tables[0];
    if (__builtin_expect(fpc_table_elsewhere(table) != 0, 0)) return has_in_any(f, mixed);
    uint64_t before = fpc_table_version(table);
    uint64_t match = fpc_compact_match(table, print(table, mixed));
    bool changed = fpc_filter_changed(before, fpc_table_version(table));
    if (__builtin_expect(changed, 0)) return has_in_any(f, mixed);
    return match != 0;
}

FINDER(COMPACT, noinline, fpc_filter_hash_word, has_compact, fpc_table_print)

#if FPC_FILTER_UNALIGNED
#define AVX2_TARGET target("avx2,bmi,bmi2")
#define FOR_AVX2    __attribute__((AVX2_TARGET))

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

/* The same in 32 bits, the upper ones being 0. */
FOR_AVX2 static inline uint64_t short_difference(uint64_t a, uint64_t b, const uint32_t *modulus) {
    uint64_t around;
    __asm__("subl %k2, %k0\n\tmovl %k0, %k1\n\taddl %3, %k1\n\tcmovcl %k1, %k0"
            : "+&r"(a), "=&r"(around)
            : "r"(b), "m"(*modulus)
            : "cc");
    return a;
}

/* Goes to `look_again` unless `number`, as long as `suffix` tells, is `value`; stays in order with the
 * other looks at the table.  Every load of x86 acquires. */
#define UNLESS(suffix, number, constraint, value)                                                            \
    fpc_filter_step();                                                                                       \
    __asm__ goto("cmp" suffix " %1, %0\n\tjne %l[look_again]"                                                \
                 :                                                                                           \
                 : "m"(number), constraint(value)                                                            \
                 : "cc", "memory"                                                                            \
                 : look_again)

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

/* The tag of fpc_table_print(), and at which bits its windows begin, in the first table. */
typedef struct place {
    uint64_t bit, other_bit, tag;
} place;

typedef place locator(const fpc_filter *f, const fpc_table *first, uint64_t mixed);

FOR_AVX2 INLINE place locate(const fpc_filter *f, const fpc_table *t, uint64_t mixed) {
    (void)f;
    uint64_t first = high_product(mixed, &t->windows), tag = or_one((uint32_t)mixed & t->tag_mask);
    uint64_t second = difference(t->reflections[tag & t->reflection_mask], first, &t->windows);
    return (place){low_product(first, &t->bits), low_product(second, &t->bits), tag};
}

/* The same with one product less, where fpc_filter_leaps(). */
FOR_AVX2 INLINE place leap(const fpc_filter *f, const fpc_table *t, uint64_t mixed) {
    uint64_t bit = low_product(high_product(mixed, &t->windows), &t->bits);
    uint64_t tag = or_one((uint32_t)mixed & t->tag_mask);
    return (place){bit, short_difference(f->leaps[tag & t->reflection_mask], bit, &f->span), tag};
}

/* fpc_table_match(). */
FOR_AVX2 INLINE __m128i match_pair(const fpc_table *t, place p) {
    const char *words = (const char *)t->words;
    __m128i pattern = _mm_mul_epu32(_mm_set1_epi64x((long long)p.tag), pair(t->spreads));
    __m128i shifts = _mm_set_epi64x((long long)p.other_bit, (long long)p.bit);
    __m128i x = load_pair(words + (p.bit >> 3), words + (p.other_bit >> 3));
    x = _mm_srlv_epi64(x, _mm_and_si128(shifts, pair(t->sevens)));
    x = _mm_xor_si128(x, _mm_or_si128(pattern, pair(t->seconds)));
    return _mm_andnot_si128(x, _mm_sub_epi64(x, pair(t->lows)));
}

FOR_AVX2 INLINE bool has_avx2(const fpc_filter *f, uint64_t mixed, locator *find_place) {
    const fpc_table *t = f->tables[0];
    UNLESS("l", t->elsewhere, "i", 0);
    uint64_t before = fpc_table_version(t);
    __m128i match = match_pair(t, find_place(f, t, mixed));
    UNLESS("q", t->version, "r", before);
    return !_mm_testz_si128(match, pair(t->highs));
look_again:
    return has_in_any(f, mixed);
}

FINDER(AVX2, AVX2_TARGET, mix, has_avx2, locate)
FINDER(LEAPING, AVX2_TARGET, mix, has_avx2, leap)

/* fpc_compact_unpack() by an instruction for each half. */
FOR_AVX2 static inline uint64_t deposit(const fpc_table *t, uint64_t bit) {
    uint64_t bits = fpc_table_raw(t, bit) >> fpc_table_shift(bit);
    return _pdep_u64(fpc_compact_lows[bits % FPC_COMPACT_CODES], 15 * FPC_COMPACT_LANES) |
           _pdep_u64(bits / FPC_COMPACT_CODES, t->compact.high);
}

FOR_AVX2 INLINE bool has_compact_avx2(const fpc_filter *f, uint64_t mixed, locator *find_place) {
    const fpc_table *t = f->tables[0];
    UNLESS("l", t->elsewhere, "i", 0);
    uint64_t before = fpc_table_version(t);
    place p = find_place(f, t, mixed);
    uint64_t pattern = p.tag * FPC_COMPACT_LANES;
    uint64_t zeros = fpc_compact_zeros(deposit(t, p.bit) ^ pattern);
    zeros |= fpc_compact_zeros(deposit(t, p.other_bit) ^ pattern);
    if (__builtin_expect(before & 1, 0)) goto look_again;
    UNLESS("q", t->version, "r", before);
    return zeros != 0;
look_again:
    return has_in_any(f, mixed);
}

FINDER(COMPACT_AVX2, AVX2_TARGET, mix, has_compact_avx2, locate)
FINDER(COMPACT_LEAPING, AVX2_TARGET, mix, has_compact_avx2, leap)

/* --- Buckets by AVX-512, whose `vpmultishiftqb` takes eight bits from anywhere in a word --- */

#define AVX512_TARGET target("avx2,bmi,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")
#define FOR_AVX512    __attribute__((AVX512_TARGET))

/* The bits of a bucket; a shift by memory is one instruction. */
FOR_AVX512 INLINE uint64_t bucket_at(const char *words, uint64_t bit) {
    uint64_t bits;
    fpc_filter_step();
    __asm__ volatile("shrxq %2, %1, %0"
                     : "=r"(bits)
                     : "m"(*(const struct fpc_eight *)(words + (bit >> 3))), "r"(bit & 7)
                     : "memory");
    return bits;
}

/* Lanes of two buckets: the four low bits are picked out of the code's entry, the rest out of the bucket. */
FOR_AVX512 INLINE bool has_compact_avx512(const fpc_filter *f, uint64_t mixed, locator *find_place) {
    const fpc_table *t = f->tables[0];
    UNLESS("l", t->elsewhere, "i", 0);
    uint64_t before = fpc_table_version(t);
    place p = find_place(f, t, mixed);
    const char *words = (const char *)t->words;
    uint64_t a = bucket_at(words, p.bit), b = bucket_at(words, p.other_bit);
    __m128i lows = _mm_cvtsi32_si128(fpc_compact_lows[a % FPC_COMPACT_CODES]);
    lows = _mm_insert_epi16(lows, fpc_compact_lows[b % FPC_COMPACT_CODES], 4);
    __m128i bits = _mm_set_epi64x((long long)b, (long long)a);
    lows = _mm_multishift_epi64_epi8(pair(t->low_picks), lows);
    bits = _mm_multishift_epi64_epi8(pair(t->high_picks), bits);
    __m128i x = _mm_ternarylogic_epi64(pair(t->low_lanes), lows, bits, 0xca); /* of each bit: low or high */
    x = _mm_xor_si128(x, _mm_set1_epi16((short)p.tag));
    __mmask8 zeros = _mm_testn_epi16_mask(x, pair(t->tag_lanes));
    if (__builtin_expect(before & 1, 0)) goto look_again;
    UNLESS("q", t->version, "r", before);
    return zeros != 0;
look_again:
    return has_in_any(f, mixed);
}

FINDER(COMPACT_AVX512, AVX512_TARGET, mix, has_compact_avx512, locate)
FINDER(COMPACT_AVX512_LEAPING, AVX512_TARGET, mix, has_compact_avx512, leap)

static bool avx512(void) {
    return __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

const fpc_filter_finder *fpc_filter_finders(const fpc_table_shape *shape, unsigned n) {
    bool vectors = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
    /* The first two generations of Zen take up to 250 cycles for `pdep`. */
    bool slow_deposit = __builtin_cpu_is("znver1") || __builtin_cpu_is("znver2");
    if (vectors && shape->compact && avx512()) {
        if (fpc_filter_leaps(shape) && n-- == 0) return &COMPACT_AVX512_LEAPING;
        if (n-- == 0) return &COMPACT_AVX512;
    }
    if (vectors && !(shape->compact && slow_deposit)) {
        if (fpc_filter_leaps(shape) && n-- == 0) return shape->compact ? &COMPACT_LEAPING : &LEAPING;
        if (n-- == 0) return shape->compact ? &COMPACT_AVX2 : &AVX2;
    }
    if (n != 0) return NULL;
    return shape->compact ? &COMPACT : &PLAIN;
}
#else
const fpc_filter_finder *fpc_filter_finders(const fpc_table_shape *shape, unsigned n) {
    if (n != 0) return NULL;
    return shape->compact ? &COMPACT : &PLAIN;
}
#endif

bool fpc_filter_contains_mixed(const fpc_filter *f, uint64_t mixed) {
    return f->shape.compact ? has_compact(f, mixed, fpc_table_print) : has(f, mixed, fpc_table_print);
}

bool fpc_filter_contains(const fpc_filter *f, const void *key, size_t len) {
    return f->find.bytes(f, key, len);
}

bool fpc_filter_contains_hash(const fpc_filter *f, uint64_t hash) {
    return f->find.hash(f, hash);
}

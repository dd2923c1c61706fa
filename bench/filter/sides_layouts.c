/* sides_layouts.c -- two layouts to compare with: the semi-sorted buckets of the CMU reference,
 * and buckets of 16 slots compared by one AVX2 instruction.  Written here: no code of theirs is used.
 *
 * Both: a power of two of buckets, the other bucket by XOR, kicks at random, inlined and compiled for this
 * machine, as SIDE_CMU_STYLE. */
#include "sides.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define MAX_KICKS 500

typedef struct buckets {
    uint8_t *bytes;
    size_t size;
    uint32_t mask;
    uint64_t kick; /* state of the generator of kicks */
} buckets;

#if defined(__AVX2__) && defined(__BMI2__)
#include <immintrin.h>

static inline uint64_t multiply_add(uint64_t key) {
    const unsigned __int128 factor =
        (unsigned __int128)UINT64_C(0x9FB21C651E98DF25) << 64 | UINT64_C(0x2545F4914F6CDD1D);
    return (uint64_t)((factor * key + 1) >> 64);
}

static inline void locate(const buckets *b, unsigned bits, uint64_t key, uint32_t *bucket, uint32_t *tag) {
    uint64_t hash = multiply_add(key);
    *bucket = (uint32_t)(hash >> 32) & b->mask;
    *tag = (uint32_t)hash & ((1u << bits) - 1);
    *tag += *tag == 0;
}

static inline uint32_t other(const buckets *b, uint32_t bucket, uint32_t tag) {
    return (bucket ^ tag * 0x5bd1e995u) & b->mask;
}

static inline uint32_t next_kick(buckets *b, uint32_t slots) {
    b->kick = b->kick * UINT64_C(6364136223846793005) + 1;
    return (uint32_t)(b->kick >> 33) % slots;
}

static void *make(size_t capacity, size_t slots, size_t bucket_bytes) {
    buckets *b = calloc(1, sizeof *b);
    size_t count = 1;
    while (count * slots < capacity || (double)capacity / (double)(count * slots) > 0.96) count *= 2;
    b->mask = (uint32_t)(count - 1);
    b->size = count * bucket_bytes + 8;
    b->bytes = aligned_alloc(64, (b->size + 63) / 64 * 64);
    b->kick = 1;
    memset(b->bytes, 0, b->size);
    return b;
}

/* The loops of both.  The layout's functions are known where these are called, and inlined. */
typedef bool put_function(buckets *b, uint32_t bucket, uint32_t tag);      /* false: no empty slot */
typedef uint32_t kick_function(buckets *b, uint32_t bucket, uint32_t tag); /* gives the tag that was there */
typedef bool holds_function(const buckets *b, uint32_t first, uint32_t second, uint32_t tag);
#define LOOP static inline __attribute__((always_inline)) size_t

LOOP add_all(buckets *b, unsigned bits, put_function *put, kick_function *kick, const uint64_t *keys,
             size_t count) {
    size_t done = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bucket, tag;
        locate(b, bits, keys[i], &bucket, &tag);
        for (int kicks = 0; kicks < MAX_KICKS; kicks++) {
            if (put(b, bucket, tag)) {
                done++;
                break;
            }
            if (kicks > 0) tag = kick(b, bucket, tag);
            bucket = other(b, bucket, tag);
        }
    }
    return done;
}

LOOP find_all(const buckets *b, unsigned bits, holds_function *holds, const uint64_t *keys, size_t count) {
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bucket, tag;
        locate(b, bits, keys[i], &bucket, &tag);
        hits += holds(b, bucket, other(b, bucket, tag), tag);
    }
    return hits;
}

/* --- Semi-sorted: 13-bit tags, four to a bucket of 48 bits --- */

/* The low 4 bits of the tags of a bucket, sorted, are one of 3,876 combinations: 12 bits instead of 16. */
static uint16_t combination[3876], number[65536];

static void count_combinations(void) {
    uint16_t n = 0;
    for (unsigned a = 0; a < 16; a++)
        for (unsigned b = a; b < 16; b++)
            for (unsigned c = b; c < 16; c++)
                for (unsigned d = c; d < 16; d++, n++) {
                    combination[n] = (uint16_t)(a | b << 4 | c << 8 | d << 12);
                    number[combination[n]] = n;
                }
}

static void *sorted_make(int bits, size_t capacity) {
    (void)bits;
    count_combinations();
    return make(capacity, 4, 6);
}

/* The four tags in lanes of 16 bits. */
static inline uint64_t sorted_read(const buckets *b, uint32_t bucket) {
    uint64_t word;
    memcpy(&word, b->bytes + (size_t)bucket * 6, sizeof word);
    return _pdep_u64(combination[word & 0xfff], UINT64_C(0x000f000f000f000f)) |
           _pdep_u64(word >> 12, UINT64_C(0x1ff01ff01ff01ff0));
}

static inline uint64_t by_low_bits(uint64_t tags, int i, int j) {
    uint64_t a = tags >> 16 * i & 0xffff, b = tags >> 16 * j & 0xffff;
    uint64_t swap = (a & 15) > (b & 15) ? a ^ b : 0;
    return tags ^ swap << 16 * i ^ swap << 16 * j;
}

static inline void sorted_write(buckets *b, uint32_t bucket, uint64_t tags) {
    tags = by_low_bits(by_low_bits(tags, 0, 1), 2, 3);
    tags = by_low_bits(by_low_bits(tags, 0, 2), 1, 3);
    tags = by_low_bits(tags, 1, 2);
    uint64_t word = number[_pext_u64(tags, UINT64_C(0x000f000f000f000f))] |
                    _pext_u64(tags, UINT64_C(0x1ff01ff01ff01ff0)) << 12;
    memcpy(b->bytes + (size_t)bucket * 6, &word, 6);
}

static inline uint64_t zero_lanes(uint64_t x) {
    return (x - UINT64_C(0x0001000100010001)) & ~x & UINT64_C(0x8000800080008000);
}

static inline bool sorted_put(buckets *b, uint32_t bucket, uint32_t tag) {
    uint64_t tags = sorted_read(b, bucket), empty = zero_lanes(tags);
    if (empty == 0) return false;
    sorted_write(b, bucket, tags | (uint64_t)tag << (__builtin_ctzll(empty) - 15));
    return true;
}

static inline uint32_t sorted_kick(buckets *b, uint32_t bucket, uint32_t tag) {
    uint64_t tags = sorted_read(b, bucket);
    unsigned shift = 16 * next_kick(b, 4);
    uint32_t victim = tags >> shift & 0xffff;
    sorted_write(b, bucket, tags ^ (uint64_t)(victim ^ tag) << shift);
    return victim;
}

static inline bool sorted_holds(const buckets *b, uint32_t first, uint32_t second, uint32_t tag) {
    uint64_t pattern = tag * UINT64_C(0x0001000100010001);
    return (zero_lanes(sorted_read(b, first) ^ pattern) | zero_lanes(sorted_read(b, second) ^ pattern)) != 0;
}

static size_t sorted_add(void *filter, const uint64_t *keys, size_t count) {
    return add_all(filter, 13, sorted_put, sorted_kick, keys, count);
}

static size_t sorted_find(void *filter, const uint64_t *keys, size_t count) {
    return find_all(filter, 13, sorted_holds, keys, count);
}

/* The same behind a call for each key, as ours is. */
static __attribute__((noinline)) bool sorted_has(const buckets *b, uint64_t key) {
    uint32_t bucket, tag;
    locate(b, 13, key, &bucket, &tag);
    return sorted_holds(b, bucket, other(b, bucket, tag), tag);
}

static size_t sorted_find_called(void *filter, const uint64_t *keys, size_t count) {
    bool (*volatile chosen)(const buckets *, uint64_t) = sorted_has;
    bool (*has)(const buckets *, uint64_t) = chosen;
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) hits += has(filter, keys[i]);
    return hits;
}

/* --- Vectorised: 16-bit tags, 16 to a bucket --- */

static void *vector_make(int bits, size_t capacity) {
    (void)bits;
    return make(capacity, 16, 32);
}

/* Two bits for each lane of the bucket that holds `tag`. */
static inline uint32_t lanes_with(const buckets *b, uint32_t bucket, uint32_t tag) {
    __m256i slots = _mm256_load_si256((const __m256i *)(b->bytes + (size_t)bucket * 32));
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi16(slots, _mm256_set1_epi16((short)tag)));
}

static inline uint16_t *vector_slots(buckets *b, uint32_t bucket) {
    return (uint16_t *)(b->bytes + (size_t)bucket * 32);
}

static inline bool vector_put(buckets *b, uint32_t bucket, uint32_t tag) {
    uint32_t empty = lanes_with(b, bucket, 0);
    if (empty == 0) return false;
    vector_slots(b, bucket)[__builtin_ctz(empty) / 2] = (uint16_t)tag;
    return true;
}

static inline uint32_t vector_kick(buckets *b, uint32_t bucket, uint32_t tag) {
    uint16_t *slot = vector_slots(b, bucket) + next_kick(b, 16), victim = *slot;
    *slot = (uint16_t)tag;
    return victim;
}

static inline bool vector_holds(const buckets *b, uint32_t first, uint32_t second, uint32_t tag) {
    return (lanes_with(b, first, tag) | lanes_with(b, second, tag)) != 0;
}

static size_t vector_add(void *filter, const uint64_t *keys, size_t count) {
    return add_all(filter, 16, vector_put, vector_kick, keys, count);
}

static size_t vector_find(void *filter, const uint64_t *keys, size_t count) {
    return find_all(filter, 16, vector_holds, keys, count);
}
#else
static void *none(int bits, size_t capacity) {
    (void)bits;
    (void)capacity;
    return NULL;
}
#define sorted_make        none
#define vector_make        none
#define sorted_add         NULL
#define sorted_find        NULL
#define sorted_find_called NULL
#define vector_add         NULL
#define vector_find        NULL
#endif

static uint64_t size_of(void *filter) {
    return ((buckets *)filter)->size;
}

static void clear(void *filter) {
    buckets *b = filter;
    memset(b->bytes, 0, b->size);
}

static void release(void *filter) {
    buckets *b = filter;
    free(b->bytes);
    free(b);
}

const side SIDE_SEMI_SORTED = {"semi-sorted", 13,      sorted_make, sorted_add,
                               sorted_find,   size_of, clear,       release};
const side SIDE_SEMI_SORTED_CALLED = {"semi-sorted, called", 13,      sorted_make, sorted_add,
                                      sorted_find_called,    size_of, clear,       release};
const side SIDE_VECTOR = {"16 slots, AVX2", 16,      vector_make, vector_add,
                          vector_find,      size_of, clear,       release};

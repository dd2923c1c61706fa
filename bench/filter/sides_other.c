/* sides_other.c -- the compared layouts, written here: no code of theirs is used. */
#include "sides.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

static const uint64_t TIMES = UINT64_C(0x9FB21C651E98DF25), PLUS = UINT64_C(0x2545F4914F6CDD1D);

static inline uint64_t multiply_add(uint64_t key) { /* upper half of a 128-bit multiply-add */
    unsigned __int128 factor = (unsigned __int128)TIMES << 64 | PLUS;
    return (uint64_t)((factor * key + PLUS) >> 64);
}

/* --- Buckets of four --- */

typedef struct buckets {
    uint8_t *bytes;
    size_t size;
    uint32_t mask;
    int bits;
    uint64_t kick; /* state of the generator of kicks */
} buckets;

static void *cmu_make(int bits, size_t capacity) {
    buckets *b = calloc(1, sizeof *b);
    size_t count = 1;
    while (count * 4 < capacity || (double)capacity / (double)(count * 4) > 0.96) count *= 2;
    b->mask = (uint32_t)(count - 1);
    b->bits = bits;
    b->size = count * (size_t)bits / 2 + 8;
    b->bytes = calloc(1, b->size);
    b->kick = 1;
    return b;
}

static inline uint64_t load(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* `bits` is a constant at every call, so that each of these becomes one filter of its own. */
static inline uint32_t get(const buckets *b, int bits, uint32_t bucket, int slot) {
    uint64_t word = load(b->bytes + (size_t)bucket * (size_t)bits / 2);
    return (uint32_t)(word >> (slot * bits)) & ((1u << bits) - 1);
}

static inline void set(buckets *b, int bits, uint32_t bucket, int slot, uint32_t tag) {
    uint8_t *at = b->bytes + (size_t)bucket * (size_t)bits / 2;
    uint64_t word = load(at), mask = ((UINT64_C(1) << bits) - 1) << (slot * bits);
    word = (word & ~mask) | (uint64_t)tag << (slot * bits);
    memcpy(at, &word, sizeof word);
}

static inline uint32_t other(const buckets *b, uint32_t bucket, uint32_t tag) {
    return (bucket ^ tag * 0x5bd1e995u) & b->mask;
}

/* Both buckets are always read, as in the CMU reference: a branch on the first would be missed whenever
 * answers are mixed. */
static inline uint64_t holds(const buckets *b, int bits, uint32_t bucket, uint32_t tag) {
    uint64_t ones = 1 | UINT64_C(1) << bits | UINT64_C(1) << 2 * bits | UINT64_C(1) << 3 * bits;
    uint64_t word = load(b->bytes + (size_t)bucket * (size_t)bits / 2) ^ ones * tag;
    return (word - ones) & ~word & ones << (bits - 1);
}

static inline size_t add_tags(buckets *b, int bits, const uint64_t *keys, size_t count) {
    size_t done = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = multiply_add(keys[i]);
        uint32_t bucket = (uint32_t)(hash >> 32) & b->mask, tag = (uint32_t)hash & ((1u << bits) - 1);
        tag += tag == 0;
        bool placed = false;
        for (int kicks = 0; kicks < 500 && !placed; kicks++) {
            for (int slot = 0; slot < 4 && !placed; slot++) {
                if (get(b, bits, bucket, slot) != 0) continue;
                set(b, bits, bucket, slot, tag);
                placed = true;
            }
            if (placed) break;
            if (kicks > 0) {
                b->kick = b->kick * UINT64_C(6364136223846793005) + 1;
                int slot = (int)(b->kick >> 62);
                uint32_t victim = get(b, bits, bucket, slot);
                set(b, bits, bucket, slot, tag);
                tag = victim;
            }
            bucket = other(b, bucket, tag);
        }
        done += placed;
    }
    return done;
}

static inline bool has_tag(const buckets *b, int bits, uint64_t key) {
    uint64_t hash = multiply_add(key);
    uint32_t bucket = (uint32_t)(hash >> 32) & b->mask, tag = (uint32_t)hash & ((1u << bits) - 1);
    tag += tag == 0;
    return (holds(b, bits, bucket, tag) | holds(b, bits, other(b, bucket, tag), tag)) != 0;
}

static inline size_t find_tags(const buckets *b, int bits, const uint64_t *keys, size_t count) {
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) hits += has_tag(b, bits, keys[i]);
    return hits;
}

/* The same behind a call for each key, as ours is: what a library of it would do. */
#define CALLED(bits)                                                                                         \
    static __attribute__((noinline)) bool called##bits(const buckets *b, uint64_t key) {                     \
        return has_tag(b, bits, key);                                                                        \
    }
CALLED(8)
CALLED(12)
CALLED(16)

static size_t cmu_find_called(void *filter, const uint64_t *keys, size_t count) {
    const buckets *b = filter;
    bool (*volatile chosen)(const buckets *, uint64_t) = b->bits == 8    ? called8
                                                         : b->bits == 12 ? called12
                                                                         : called16;
    bool (*has)(const buckets *, uint64_t) = chosen;
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) hits += has(b, keys[i]);
    return hits;
}

static size_t cmu_add(void *filter, const uint64_t *keys, size_t count) {
    buckets *b = filter;
    if (b->bits == 8) return add_tags(b, 8, keys, count);
    if (b->bits == 12) return add_tags(b, 12, keys, count);
    return add_tags(b, 16, keys, count);
}

static size_t cmu_find(void *filter, const uint64_t *keys, size_t count) {
    const buckets *b = filter;
    if (b->bits == 8) return find_tags(b, 8, keys, count);
    if (b->bits == 12) return find_tags(b, 12, keys, count);
    return find_tags(b, 16, keys, count);
}

static uint64_t cmu_bytes(void *filter) {
    return ((buckets *)filter)->size;
}

static void cmu_clear(void *filter) {
    buckets *b = filter;
    memset(b->bytes, 0, b->size);
}

static void cmu_free(void *filter) {
    buckets *b = filter;
    free(b->bytes);
    free(b);
}

const side SIDE_CMU_STYLE = {"CMU-style", 0, cmu_make, cmu_add, cmu_find, cmu_bytes, cmu_clear, cmu_free};
const side SIDE_CMU_CALLED = {"CMU-style, called", 0,         cmu_make,  cmu_add,
                              cmu_find_called,     cmu_bytes, cmu_clear, cmu_free};

/* --- Split-block Bloom filter: a block of 8 words, one bit set in each --- */

typedef struct blocks {
    uint32_t (*block)[8];
    size_t count;
} blocks;

static void bloom_clear(void *filter) {
    blocks *b = filter;
    memset(b->block, 0, b->count * sizeof *b->block);
}

static uint64_t bloom_bytes(void *filter) {
    return ((blocks *)filter)->count * 32;
}

static void bloom_free(void *filter) {
    blocks *b = filter;
    free(b->block);
    free(b);
}

#ifdef __AVX2__
static void *bloom_make(int bits_per_key, size_t capacity) {
    blocks *b = calloc(1, sizeof *b);
    b->count = capacity * (size_t)bits_per_key / 256 + 1;
    b->block = aligned_alloc(32, b->count * sizeof *b->block);
    bloom_clear(b);
    return b;
}

static inline __m256i bloom_bits(uint32_t hash) {
    const __m256i odd = _mm256_setr_epi32(0x47b6137b, 0x44974d91, (int)0x8824ad5b, (int)0xa2b7289d,
                                          0x705495c7, 0x2df1424b, (int)0x9efc4947, 0x5c6bfb31);
    __m256i h = _mm256_srli_epi32(_mm256_mullo_epi32(_mm256_set1_epi32((int)hash), odd), 27);
    return _mm256_sllv_epi32(_mm256_set1_epi32(1), h);
}

static inline __m256i *bloom_block(blocks *b, uint64_t hash) {
    return (__m256i *)b->block[(uint64_t)(((unsigned __int128)hash * b->count) >> 64)];
}

static size_t bloom_add(void *filter, const uint64_t *keys, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = multiply_add(keys[i]);
        __m256i *block = bloom_block(filter, hash);
        *block = _mm256_or_si256(*block, bloom_bits((uint32_t)hash));
    }
    return count;
}

static size_t bloom_find(void *filter, const uint64_t *keys, size_t count) {
    size_t hits = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = multiply_add(keys[i]);
        hits += (size_t)_mm256_testc_si256(*bloom_block(filter, hash), bloom_bits((uint32_t)hash));
    }
    return hits;
}
#else
static void *bloom_make(int bits_per_key, size_t capacity) {
    (void)bits_per_key;
    (void)capacity;
    return NULL;
}

static size_t bloom_add(void *filter, const uint64_t *keys, size_t count) {
    (void)filter;
    (void)keys;
    return count;
}

static size_t bloom_find(void *filter, const uint64_t *keys, size_t count) {
    (void)filter;
    (void)keys;
    return count;
}
#endif

const side SIDE_BLOOM = {"split-block Bloom", 0,           bloom_make,  bloom_add,
                         bloom_find,          bloom_bytes, bloom_clear, bloom_free};

/* sides.h -- the filters that bench/filter compares: each knows how to fill itself and to be asked. */
#ifndef FPC_BENCH_FILTER_SIDES_H
#define FPC_BENCH_FILTER_SIDES_H

#include <stddef.h>
#include <stdint.h>

typedef struct side {
    const char *name;
    int shape;                                 /* fingerprint bits, or bits a key for the Bloom filter */
    void *(*make)(int shape, size_t capacity); /* NULL: not on this machine */
    size_t (*add)(void *filter, const uint64_t *keys, size_t count);  /* how many found room */
    size_t (*find)(void *filter, const uint64_t *keys, size_t count); /* how many "maybe" */
    uint64_t (*bytes)(void *filter);
    void (*clear)(void *filter);
    void (*free)(void *filter);
} side;

/* Ours, one call a key and in batches; batches again where the filter has the size of SIDE_CMU_STYLE. */
extern const side SIDE_ONE, SIDE_MANY, SIDE_AS_LARGE;
/* Ours in the compact layout; the shape is the bits of a tag. */
extern const side SIDE_COMPACT_ONE, SIDE_COMPACT_MANY;
/* A cuckoo filter laid out like the CMU reference: buckets of four, a power of two of them, the other
 * bucket by XOR, kicks at random; 8, 12 or 16 bits.  Compiled for this machine, inlined in its loop. */
extern const side SIDE_CMU_STYLE;
/* The same filter, but each question is one call of a function, as ours is. */
extern const side SIDE_CMU_CALLED;
/* Split-block Bloom filter (AVX2): no removal, a higher false-positive rate, but one cache line. */
extern const side SIDE_BLOOM;

/* Layouts of others (sides_layouts.c): 13-bit tags in semi-sorted buckets; 16-bit tags in buckets of 16. Only
 * where there is AVX2 and BMI2. */
extern const side SIDE_SEMI_SORTED, SIDE_SEMI_SORTED_CALLED, SIDE_VECTOR;

#endif

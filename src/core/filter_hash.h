/* filter_hash.h -- from keys to the 64-bit hashes a filter works with, by its secret seed.
 *
 * Byte strings go through XXH3 with a secret of our own (not its seed: a seed only shifts a known
 * secret).  Hashes given directly are multiplied with a secret factor and folded, so that neither
 * their patterns nor somebody's choice decides where they go. */
#ifndef FPC_FILTER_HASH_H
#define FPC_FILTER_HASH_H

#define XXH_INLINE_ALL
#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

#define FPC_SECRET_BYTES 192

typedef struct fpc_filter_hasher {
    uint64_t seed[2];
    uint64_t plus[2], times[2];
    uint64_t secret[FPC_SECRET_BYTES / 8]; /* little-endian words, on every machine */
} fpc_filter_hasher;

/* Fills everything but `seed` from `seed`. */
void fpc_filter_hasher_init(fpc_filter_hasher *hasher);

static inline uint64_t fpc_filter_hash_bytes(const fpc_filter_hasher *h, const void *key, size_t len) {
    return XXH3_64bits_withSecret(key, len, h->secret, sizeof h->secret);
}

/* Multiplies and folds the 128 bits of the product. */
static inline uint64_t fpc_fold(uint64_t a, uint64_t b) {
#if defined(__x86_64__) && defined(__GNUC__)
    uint64_t
        high; /* gcc 12 sends unsigned __int128 through the stack here, a third of the time of a lookup */
    __asm__("mulq %2" : "+a"(a), "=d"(high) : "r"(b) : "cc");
    return a ^ high;
#else
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#endif
}

/* Twice: after one fold, numbers in a row still lie too evenly (measured: half the false positives, and
 * thousands of keys that found no slot). */
static inline uint64_t fpc_filter_hash_word(const fpc_filter_hasher *h, uint64_t hash) {
    return fpc_fold(fpc_fold(hash ^ h->plus[0], h->times[0]) ^ h->plus[1], h->times[1]);
}

#endif

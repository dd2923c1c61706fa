/* filter_hash.h -- from keys to the 64-bit hashes a filter works with, by its secret seed.
 *
 * Byte strings go through XXH3 with a secret of our own (not its seed: a seed only shifts a known
 * secret).  Hashes given directly are mixed with two secret masks and a secret factor, so that neither
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
    uint64_t masks[2], factor;             /* for hashes given directly */
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

/* Both factors of the product depend on the hash: with a constant one, numbers in a row lie too evenly after
 * the fold (measured: half the false positives, and thousands of keys that found no slot), and a second fold
 * would be needed.  Without the last factor a few small filters still feel patterns. */
static inline uint64_t fpc_filter_hash_word(const fpc_filter_hasher *h, uint64_t hash) {
    return fpc_fold(hash ^ h->masks[0], (hash >> 32 | hash << 32) ^ h->masks[1]) * h->factor;
}

#endif

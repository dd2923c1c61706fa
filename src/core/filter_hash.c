/* filter_hash.c -- the secret of a filter, drawn from its seed.  Part of the saved format: a change
 * here makes saved filters deny their keys, so it needs a new format version. */
#include "filter_hash.h"

static uint64_t draw(uint64_t state[2]) {
    state[0] += UINT64_C(0x9E3779B97F4A7C15);
    unsigned __int128 product = (unsigned __int128)(state[0] ^ UINT64_C(0xD1B54A32D192ED03)) *
                                ((state[1] += UINT64_C(0xBF58476D1CE4E5B9)) | 1);
    uint64_t z = (uint64_t)product ^ (uint64_t)(product >> 64);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

static uint64_t to_little_endian(uint64_t word) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return __builtin_bswap64(word);
#else
    return word;
#endif
}

void fpc_filter_hasher_init(fpc_filter_hasher *h) {
    uint64_t state[2] = {h->seed[0], h->seed[1]};
    h->masks[0] = draw(state);
    h->masks[1] = draw(state);
    h->factor = draw(state) | 1; /* odd, so that it loses nothing */
    for (size_t i = 0; i < FPC_SECRET_BYTES / 8; i++) h->secret[i] = to_little_endian(draw(state));
}

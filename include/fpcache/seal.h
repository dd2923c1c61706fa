/* seal.h -- values of the cache made smaller, and unreadable for others.
 *
 * Words of this header:
 *   value    bytes with their format code, as they stand in a row
 *   packed   compressed (zstd): the code of what is inside, then one frame that tells its size
 *   sealed   encrypted and authenticated (AES-256-GCM, a random nonce for each)
 *   place    where a value stands: user, namespace, stored key.  A sealed value opens in its place only
 *   key id   names the key that sealed a value, so that keys can be changed; no secret, 1 to 64 bytes
 *
 * All memory is the caller's.  Sizes are in bytes.  The functions share nothing and may be called by any
 * thread, except that a packer belongs to one.  Errors: FPC_INVALID (the bytes are not what they should be),
 * FPC_NOMEM. */
#ifndef FPCACHE_SEAL_H
#define FPCACHE_SEAL_H

#include "fpcache/error.h"

#include <stddef.h>
#include <stdint.h>

#define FPC_FORMAT_PACKED 'z'
#define FPC_FORMAT_SEALED 'e'
#define FPC_SEAL_KEY      32 /* bytes of a key */
#define FPC_SEAL_ID_MAX   64
#define FPC_SEAL_EXTRA                                                                                       \
    (1 + 1 + FPC_SEAL_ID_MAX + 4 + 12 + 1 + 16) /* a sealed value is longer by this at most */

/* What compresses and decompresses; keeps its tables from one call to the next.  NULL: no memory.  Delete
 * accepts NULL. */
typedef struct fpc_packer fpc_packer;
fpc_packer *fpc_packer_new(void);
void fpc_packer_delete(fpc_packer *packer);

/* Room that packing `size` bytes needs at most. */
size_t fpc_pack_room(size_t size);

/* Packs a value of code `format` into `out`; level 1 (fast) to 19 (small). */
fpc_status fpc_pack(fpc_packer *packer, int level, char format, const char *bytes, size_t size, char *out,
                    size_t room, size_t *out_size, fpc_error *err);

/* The size of what is packed.  Nothing is unpacked yet: check it before making room. */
fpc_status fpc_unpacked_size(const char *packed, size_t size, uint64_t *out, fpc_error *err);

/* `packer` may be NULL, which takes longer.  Unpacks into exactly `out_size` bytes, which must be the
 * unpacked size; gives the code of the value inside.
 */
fpc_status fpc_unpack(fpc_packer *packer, const char *packed, size_t size, char *out, size_t out_size,
                      char *format, fpc_error *err);

typedef struct fpc_place {
    const char *user, *space, *key;
    size_t user_size, space_size, key_size;
} fpc_place;

typedef struct fpc_seal_key {
    unsigned char id[FPC_SEAL_ID_MAX];
    size_t id_size;
    unsigned char secret[FPC_SEAL_KEY];
} fpc_seal_key;

/* Seals a value of code `format` into `out`, which has room for size + FPC_SEAL_EXTRA.  `plain_size`: what
 * the value takes when it is also unpacked, for who must know before he opens it; authenticated, not secret.
 */
fpc_status fpc_seal(const fpc_seal_key *key, const fpc_place *place, char format, uint32_t plain_size,
                    const char *bytes, size_t size, char *out, size_t *out_size, fpc_error *err);

/* What a sealed value tells without its key.  `id` points into the bytes. */
typedef struct fpc_sealed {
    const unsigned char *id;
    size_t id_size;
    uint32_t plain_size; /* unproven until it was opened */
} fpc_sealed;

fpc_status fpc_sealed_read(const char *bytes, size_t size, fpc_sealed *out, fpc_error *err);

/* Opens a sealed value into `out`, which has room for `size` bytes.  FPC_INVALID when it was changed, moved
 * from another place, or sealed with another key of the same id; `out` then holds nothing of use. */
fpc_status fpc_unseal(const fpc_seal_key *key, const fpc_place *place, const char *bytes, size_t size,
                      char *out, size_t *out_size, char *format, fpc_error *err);

#endif

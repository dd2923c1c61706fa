/* key.c -- long keys: prefix and SHA-256. */
#include "fpcache/key.h"

#include <openssl/evp.h>
#include <string.h>

fpc_status fpc_key_shorten(const char *key, size_t length, char stored[FPC_KEY_STORED_MAX], fpc_error *err) {
    memcpy(stored, key, FPC_KEY_INLINE);
    unsigned int digest_length = 0;
    if (EVP_Digest(key, length, (unsigned char *)stored + FPC_KEY_INLINE, &digest_length, EVP_sha256(),
                   NULL) != 1) {
        return fpc_fail(err, FPC_NOMEM, "could not hash a key of %zu bytes", length);
    }
    return FPC_OK;
}

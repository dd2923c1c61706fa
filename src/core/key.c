/* key.c -- long keys: prefix and SHA-256; disguised keys. */
#include "fpcache/key.h"

#include <limits.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
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

fpc_status fpc_key_disguise(const char *secret, size_t secret_length, const char *key, size_t length,
                            char digits[FPC_KEY_DISGUISED + 1], fpc_error *err) {
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    if (secret_length > INT_MAX)
        return fpc_fail(err, FPC_INVALID, "a secret of %zu bytes is too long", secret_length);
    if (HMAC(EVP_sha256(), secret, (int)secret_length, (const unsigned char *)key, length, hash, &size) ==
        NULL)
        return fpc_fail(err, FPC_NOMEM, "could not hash a key of %zu bytes", length);
    for (int i = 0; i < FPC_KEY_DISGUISED / 2; i++) snprintf(digits + (size_t)i * 2, 3, "%02x", hash[i]);
    return FPC_OK;
}

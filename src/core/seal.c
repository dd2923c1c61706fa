/* seal.c -- encryption.
 *
 *   version (1) | length of the key id | key id | size when unpacked, 4 bytes | nonce, 12 bytes
 *   | encrypted: format code, value | tag, 16 bytes
 *
 * Authenticated beside the value: everything before the nonce, and the place, each part after its length. */
#include "fpcache/seal.h"

#include <limits.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdbool.h>
#include <string.h>

#define VERSION 1
#define NONCE   12
#define TAG     16

typedef unsigned char byte;

static void put_u32(byte *at, uint32_t number) {
    for (int i = 0; i < 4; i++) at[i] = (byte)(number >> (8 * i));
}

static uint32_t get_u32(const byte *at) {
    uint32_t number = 0;
    for (int i = 0; i < 4; i++) number |= (uint32_t)at[i] << (8 * i);
    return number;
}

static bool authenticate(EVP_CIPHER_CTX *context, const void *bytes, size_t size) {
    int ignored;
    byte length[4];
    put_u32(length, (uint32_t)size);
    return EVP_CipherUpdate(context, NULL, &ignored, length, sizeof length) == 1 &&
           (size == 0 || EVP_CipherUpdate(context, NULL, &ignored, bytes, (int)size) == 1);
}

/* A context that has begun: key, nonce, what is authenticated. */
static EVP_CIPHER_CTX *begin(const fpc_seal_key *key, const fpc_place *place, const byte *head,
                             size_t head_size, bool encrypts) {
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context == NULL) return NULL;
    if (EVP_CipherInit_ex(context, EVP_aes_256_gcm(), NULL, key->secret, head + head_size, encrypts) == 1 &&
        authenticate(context, head, head_size) && authenticate(context, place->user, place->user_size) &&
        authenticate(context, place->space, place->space_size) &&
        authenticate(context, place->key, place->key_size)) {
        return context;
    }
    EVP_CIPHER_CTX_free(context);
    return NULL;
}

fpc_status fpc_seal(const fpc_seal_key *key, const fpc_place *place, char format, uint32_t plain_size,
                    const char *bytes, size_t size, char *out, size_t *out_size, fpc_error *err) {
    if (size > INT_MAX - FPC_SEAL_EXTRA)
        return fpc_fail(err, FPC_INVALID, "%zu bytes are too many to encrypt", size);
    byte *head = (byte *)out;
    size_t head_size = 2 + key->id_size + 4;
    head[0] = VERSION;
    head[1] = (byte)key->id_size;
    memcpy(head + 2, key->id, key->id_size);
    put_u32(head + 2 + key->id_size, plain_size);
    byte *body = head + head_size + NONCE;
    int done = 0, more = 0, last = 0;
    EVP_CIPHER_CTX *context =
        RAND_bytes(head + head_size, NONCE) == 1 ? begin(key, place, head, head_size, true) : NULL;
    bool ok =
        context != NULL && EVP_CipherUpdate(context, body, &done, (const byte *)&format, 1) == 1 &&
        (size == 0 || EVP_CipherUpdate(context, body + done, &more, (const byte *)bytes, (int)size) == 1) &&
        EVP_CipherFinal_ex(context, body + done + more, &last) == 1 &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, TAG, body + 1 + size) == 1;
    EVP_CIPHER_CTX_free(context);
    if (!ok) return fpc_fail(err, FPC_NOMEM, "could not encrypt a value of %zu bytes", size);
    *out_size = head_size + NONCE + 1 + size + TAG;
    return FPC_OK;
}

fpc_status fpc_sealed_read(const char *bytes, size_t size, fpc_sealed *out, fpc_error *err) {
    const byte *at = (const byte *)bytes;
    bool fits = size >= 2 && at[0] == VERSION && at[1] >= 1 && at[1] <= FPC_SEAL_ID_MAX &&
                size >= (size_t)2 + at[1] + 4 + NONCE + 1 + TAG;
    if (!fits)
        return fpc_fail(err, FPC_INVALID, "stored value of %zu bytes is not what encryption makes", size);
    *out = (fpc_sealed){.id = at + 2, .id_size = at[1], .plain_size = get_u32(at + 2 + at[1])};
    return FPC_OK;
}

fpc_status fpc_unseal(const fpc_seal_key *key, const fpc_place *place, const char *bytes, size_t size,
                      char *out, size_t *out_size, char *format, fpc_error *err) {
    fpc_sealed sealed = {0};
    fpc_status status = fpc_sealed_read(bytes, size, &sealed, err);
    if (status != FPC_OK) return status;
    if (size > INT_MAX)
        return fpc_fail(err, FPC_INVALID, "stored value of %zu bytes is too long to open", size);
    size_t head_size = 2 + sealed.id_size + 4;
    const byte *head = (const byte *)bytes, *body = head + head_size + NONCE;
    size_t inside = size - head_size - NONCE - TAG; /* format code and value */
    byte code, tag[TAG];
    int done = 0, last = 0;
    memcpy(tag, body + inside, TAG);
    EVP_CIPHER_CTX *context = begin(key, place, head, head_size, false);
    if (context == NULL) return fpc_fail(err, FPC_NOMEM, "could not decrypt a value of %zu bytes", size);
    bool ok =
        EVP_CipherUpdate(context, &code, &done, body, 1) == 1 &&
        (inside == 1 || EVP_CipherUpdate(context, (byte *)out, &done, body + 1, (int)inside - 1) == 1) &&
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, TAG, tag) == 1 &&
        EVP_CipherFinal_ex(context, tag, &last) == 1;
    EVP_CIPHER_CTX_free(context);
    if (!ok) {
        return fpc_fail(
            err, FPC_INVALID,
            "stored value of %zu bytes does not open: it was changed or copied from another place, or the "
            "key of this id is another one",
            size);
    }
    *format = (char)code;
    *out_size = inside - 1;
    return FPC_OK;
}

/* fuzz_seal.c -- any bytes are unpacked or refused, opened or refused; what was sealed opens again.
 * Input: one byte that says what, the bytes. */
#include "fpcache/seal.h"

#include <stdlib.h>
#include <string.h>

#define LIMIT (1 << 20)

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void require_that(int holds) {
    if (!holds) abort();
}

static void unpack(const char *bytes, size_t size) {
    uint64_t told;
    char format;
    if (fpc_unpacked_size(bytes, size, &told, NULL) != FPC_OK || told > LIMIT) return;
    char *out = malloc(told == 0 ? 1 : (size_t)told);
    if (out == NULL) return;
    (void)!fpc_unpack(NULL, bytes, size, out, (size_t)told, &format, NULL);
    free(out);
}

static void pack(const char *bytes, size_t size) {
    static fpc_packer *packer;
    if (packer == NULL) packer = fpc_packer_new();
    size_t room = fpc_pack_room(size), packed;
    char *out = malloc(room), *back = malloc(size + 1), format;
    uint64_t told;
    require_that(fpc_pack(packer, 1, 'j', bytes, size, out, room, &packed, NULL) == FPC_OK);
    require_that(fpc_unpacked_size(out, packed, &told, NULL) == FPC_OK && told == size);
    require_that(fpc_unpack(packer, out, packed, back, size, &format, NULL) == FPC_OK && format == 'j');
    require_that(memcmp(back, bytes, size) == 0);
    free(out), free(back);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    static const fpc_seal_key KEY = {.id = "k", .id_size = 1, .secret = {1, 2, 3}};
    if (size < 1) return 0;
    const char *bytes = (const char *)data + 1;
    size--;
    fpc_place place = {
        .user = "u", .user_size = 1, .space = "", .space_size = 0, .key = bytes, .key_size = size % 7};
    char *out = malloc(size + FPC_SEAL_EXTRA), *back = malloc(size + FPC_SEAL_EXTRA), format;
    size_t sealed, opened;
    switch (data[0] & 3) {
    case 0: unpack(bytes, size); break;
    case 1: pack(bytes, size); break;
    case 2: require_that(fpc_unseal(&KEY, &place, bytes, size, out, &opened, &format, NULL) != FPC_OK); break;
    default:
        require_that(fpc_seal(&KEY, &place, 's', 7, bytes, size, out, &sealed, NULL) == FPC_OK);
        require_that(fpc_unseal(&KEY, &place, out, sealed, back, &opened, &format, NULL) == FPC_OK);
        require_that(opened == size && format == 's' && memcmp(back, bytes, size) == 0);
    }
    free(out), free(back);
    return 0;
}

/* pack.c -- compression: one byte with the code of what is inside, then a zstd frame with its size. */
#include "fpcache/seal.h"

#include <stdlib.h>
#include <zstd.h>

struct fpc_packer {
    ZSTD_CCtx *context;
    ZSTD_DCtx *unpacks;
};

fpc_packer *fpc_packer_new(void) {
    fpc_packer *packer = malloc(sizeof *packer);
    if (packer == NULL) return NULL;
    packer->context = ZSTD_createCCtx();
    packer->unpacks = ZSTD_createDCtx();
    if (packer->context != NULL && packer->unpacks != NULL) return packer;
    fpc_packer_delete(packer);
    return NULL;
}

void fpc_packer_delete(fpc_packer *packer) {
    if (packer == NULL) return;
    ZSTD_freeCCtx(packer->context);
    ZSTD_freeDCtx(packer->unpacks);
    free(packer);
}

size_t fpc_pack_room(size_t size) {
    return 1 + ZSTD_compressBound(size);
}

fpc_status fpc_pack(fpc_packer *packer, int level, char format, const char *bytes, size_t size, char *out,
                    size_t room, size_t *out_size, fpc_error *err) {
    if (room == 0) return fpc_fail(err, FPC_INVALID, "no room to compress into");
    size_t written = ZSTD_compressCCtx(packer->context, out + 1, room - 1, bytes, size, level);
    if (ZSTD_isError(written)) {
        return fpc_fail(err, FPC_NOMEM, "could not compress %zu bytes: %s", size, ZSTD_getErrorName(written));
    }
    out[0] = format;
    *out_size = 1 + written;
    return FPC_OK;
}

fpc_status fpc_unpacked_size(const char *packed, size_t size, uint64_t *out, fpc_error *err) {
    unsigned long long declared =
        size < 2 ? ZSTD_CONTENTSIZE_ERROR : ZSTD_getFrameContentSize(packed + 1, size - 1);
    if (declared == ZSTD_CONTENTSIZE_ERROR || declared == ZSTD_CONTENTSIZE_UNKNOWN) {
        return fpc_fail(err, FPC_INVALID, "stored value of %zu bytes is not what compression makes", size);
    }
    *out = declared;
    return FPC_OK;
}

fpc_status fpc_unpack(fpc_packer *packer, const char *packed, size_t size, char *out, size_t out_size,
                      char *format, fpc_error *err) {
    if (size < 2)
        return fpc_fail(err, FPC_INVALID, "stored value of %zu bytes is not what compression makes", size);
    size_t written = packer == NULL
                         ? ZSTD_decompress(out, out_size, packed + 1, size - 1)
                         : ZSTD_decompressDCtx(packer->unpacks, out, out_size, packed + 1, size - 1);
    if (ZSTD_isError(written) || written != out_size) {
        return fpc_fail(err, FPC_INVALID,
                        "stored value of %zu bytes does not decompress to the %zu bytes it tells: %s", size,
                        out_size, ZSTD_isError(written) ? ZSTD_getErrorName(written) : "too few");
    }
    *format = packed[0];
    return FPC_OK;
}

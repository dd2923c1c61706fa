/* versions.c -- asks the libraries themselves, not the headers we were built with. */
#include "fpcache/versions.h"

#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <xxhash.h>

int fpc_libpq_version(void) {
    return PQlibVersion();
}

const char *fpc_openssl_version(void) {
    return OpenSSL_version(OPENSSL_VERSION);
}

unsigned fpc_xxhash_version(void) {
    return XXH_versionNumber();
}

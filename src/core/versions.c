/* versions.c -- asks the libraries themselves, not the headers we were built with. */
#include "fpcache/versions.h"

#include "version.h"

#include <curl/curl.h>
#include <jansson.h>
#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <xxhash.h>
#include <zstd.h>

const char *fpc_version(void) {
    return FPC_VERSION;
}

int fpc_libpq_version(void) {
    return PQlibVersion();
}

const char *fpc_openssl_version(void) {
    return OpenSSL_version(OPENSSL_VERSION);
}

unsigned fpc_xxhash_version(void) {
    return XXH_versionNumber();
}

const char *fpc_libcurl_version(void) {
    return curl_version_info(CURLVERSION_NOW)->version;
}

const char *fpc_zstd_version(void) {
    return ZSTD_versionString();
}

const char *fpc_jansson_version(void) {
    return jansson_version_str();
}

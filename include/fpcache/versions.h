/* versions.h -- the libraries this program runs with.  Thread rule: any thread. */
#ifndef FPCACHE_VERSIONS_H
#define FPCACHE_VERSIONS_H

const char *fpc_version(void);         /* of this library, such as "0.1.0" */
int fpc_libpq_version(void);           /* such as 150020 for 15.20 */
const char *fpc_openssl_version(void); /* such as "OpenSSL 3.0.17 1 Jul 2025" */
unsigned fpc_xxhash_version(void);     /* such as 801 for 0.8.1 */
const char *fpc_libcurl_version(void); /* such as "7.88.1" */
const char *fpc_zstd_version(void);    /* such as "1.5.4" */
const char *fpc_jansson_version(void); /* such as "2.14" */

#endif

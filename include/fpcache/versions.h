/* versions.h -- the libraries this program runs with.  Thread rule: any thread. */
#ifndef FPCACHE_VERSIONS_H
#define FPCACHE_VERSIONS_H

int fpc_libpq_version(void);           /* such as 150020 for 15.20 */
const char *fpc_openssl_version(void); /* such as "OpenSSL 3.0.17 1 Jul 2025" */
unsigned fpc_xxhash_version(void);     /* such as 801 for 0.8.1 */

#endif

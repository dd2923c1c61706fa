/* key.h -- how a key of any length and content becomes the key of a table row.
 *
 *   key         what the caller says: 1 byte to the caller's limit, any bytes
 *   stored key  the bytes in the primary key: the key itself up to FPC_KEY_INLINE bytes, else its
 *               first FPC_KEY_INLINE bytes and the SHA-256 of the whole key
 *
 * A btree entry ends near 2,700 bytes, so long keys cannot be indexed whole.  The two forms differ in
 * length, so no short key can pretend to be a long one; and a stored key begins as its key does,
 * so that a scan by prefix finds it.  The server's functions do the same in SQL.
 * Thread rule: pure functions. */
#ifndef FPCACHE_KEY_H
#define FPCACHE_KEY_H

#include "fpcache/error.h"

#include <stddef.h>

#define FPC_KEY_INLINE     1024
#define FPC_KEY_STORED_MAX (FPC_KEY_INLINE + 32)

/* Writes the stored form of a key longer than FPC_KEY_INLINE bytes into `stored`.  FPC_NOMEM. */
fpc_status fpc_key_shorten(const char *key, size_t length, char stored[FPC_KEY_STORED_MAX], fpc_error *err);

/* A key that nobody can tell, for traces: the first 8 bytes of its HMAC-SHA-256 under a secret of any length,
 * as hexadecimal digits.  Equal keys under equal secrets give equal digits.
 * FPC_INVALID when the secret is too long, FPC_NOMEM. */
#define FPC_KEY_DISGUISED 16
fpc_status fpc_key_disguise(const char *secret, size_t secret_length, const char *key, size_t length,
                            char digits[FPC_KEY_DISGUISED + 1], fpc_error *err);

#endif
